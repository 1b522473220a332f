"""Who is connected, and what each client may send and hear.

It imports `core.calls`, `core.servers` and what is below them, and never the engine.
"""
