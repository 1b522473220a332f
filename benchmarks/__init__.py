"""Measures what the broker costs beside its alternatives. `make bench` runs it: docs/performance.md."""
