"""Streamable HTTP for both eras: sockets, connections, who may come in, sessions, streams, the status
page.

`app` is read first: it passes a request to `endpoint`.
"""
