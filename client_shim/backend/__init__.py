"""`MCPClient`, the drop-in for a backend's own client; it imports `asyncio` and what is below."""
