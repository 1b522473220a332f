"""Patterns of names: what the holder of a token of the gateway, or of a key of the broker, may use."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase


def is_granted(patterns: Collection[str], name: str) -> bool:
    """Return whether patterns of servers or tools grant this one. `*` and `?` stand for any characters."""
    return "*" in patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
