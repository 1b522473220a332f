"""`mcp-broker attach`, `detach`, `add`, `remove`: put MCP hosts behind the broker, and take them out.

`hosts` knows the files, `shared` which servers can be shared; `plan` and `restore` decide, `json_edit` and
`toml_edit` change entries. These have no I/O. `files` reads and writes hosts' files, `ledger` keeps what each
entry was, `claude_code` runs `claude`.
"""
