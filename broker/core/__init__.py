"""The pure core: every decision of the broker, and no input or output. Its methods are synchronous, take
`now`, and return effects: small frozen values that the shell carries out. It imports the standard library
without its clocks, sockets and processes, msgspec, `client_shim.wire`, and of the broker `config` and `base`.
"""
