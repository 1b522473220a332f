"""What the broker knows of each server: its lifecycle, its session, its catalogue.

It imports `core.clients`, `core.calls` and what is below them, and never the engine.
"""
