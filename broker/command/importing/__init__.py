"""`mcp-broker import`: converts the files of other MCP hosts into a `broker.toml`.

`files` reads and writes files. `reading` parses a text (with `jsonc` and `commands`), `hosts` finds its
servers, `plan` and `conversion` turn each into a table. These four have no I/O.
"""
