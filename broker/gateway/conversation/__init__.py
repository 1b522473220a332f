"""One MCP client, of either era, in conversation with one server.

It has no I/O, except for `session`, which runs a conversation on asyncio, and `running_calls`.
"""
