"""Programs that let other MCP clients in: newline-delimited JSON on Unix sockets, Streamable HTTP, `connect`.

They are clients of the running broker: this room imports `client_shim`, `service`, `config` and `base`, and
the daemon never imports it.
"""
