"""`mcp-broker connect`, which a host starts in place of a server, and the Unix sockets that it relays to.

What `connect` imports at its start is the standard library.
"""
