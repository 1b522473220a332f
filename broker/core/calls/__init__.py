"""Calls that are open: queued, at their server, retried, ended.

It imports `core.clients`, `core.servers` and what is below them, and never the engine.
"""
