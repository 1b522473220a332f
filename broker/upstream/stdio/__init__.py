"""Servers on stdio: one process, its pipes, and what it writes to stderr."""
