"""mcp-broker, the daemon: it owns exactly one process per configured MCP server and multiplexes the requests
of many short-lived clients onto it over ZeroMQ. A newcomer reads `broker/daemon.py` first. A client links
`client_shim` instead, which never imports this package.
"""

__version__ = "0.1.0"
