"""The client's side of the wire protocol without I/O: no socket, no event loop, no clock.

It imports `wire`, `errors` and `text`.
"""
