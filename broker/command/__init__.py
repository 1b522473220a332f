"""The command line, a client of the running broker.

It imports `client_shim`, the config, `service` and `processes`, and for `serve` and `gateway` the daemon and
the gateway; never the core or the hub.
"""
