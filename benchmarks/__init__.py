"""What the broker costs, measured beside what else there is. `make bench` runs it: docs/performance.md."""
