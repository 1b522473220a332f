"""`mcp-broker import`: the files of other hosts become a `broker.toml`.

`plan` and what it uses decide, and never touch the machine; `files` reads and writes.
"""
