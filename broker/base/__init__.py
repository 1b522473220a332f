"""Small helpers for every room: text, secrets, metrics, rate limits, the names of what is tolerated.

Pure, as the core is; it imports nothing else of the broker.
"""
