"""How the daemon reaches servers: one supervisor each, and the pipes to its process.

It imports `processes`, the hub, the core and `service`, and never `frontend`.
"""
