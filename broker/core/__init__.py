"""The pure core: every decision of the broker and none of its input or output. Its methods are synchronous,
take `now`, and return what is to be done as small frozen values; the shell around it does that. It imports
the standard library without its clocks, sockets and processes, msgspec, `client_shim.wire`, and of the broker
`config` and `base`.
"""
