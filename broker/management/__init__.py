"""The operator's API: the commands of `$broker`, reload, metrics.

It imports `upstream`, `frontend` and what is below them, and never the daemon.
"""
