"""The client for asyncio: connections, channels, calls. It imports `transport` and `protocol`."""
