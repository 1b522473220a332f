"""The Model Context Protocol: JSON-RPC lines, methods, `_meta`, the handshake.

It imports `base` and the wire protocol only; it knows no client and no server.
"""
