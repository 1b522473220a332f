"""The command line, a client of the running broker.

It imports `client_shim` and, for `serve`, the daemon; never the core or the hub.
"""
