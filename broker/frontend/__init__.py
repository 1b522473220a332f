"""How clients reach the daemon: the address, the socket's file, the ROUTER.

It imports the hub, the core and `service`, and never `upstream`.
"""
