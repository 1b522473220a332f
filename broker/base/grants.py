"""Decides what the holder of a token or a key may use, for every door: the gateway's and the broker's."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase


def is_granted(patterns: Collection[str], name: str) -> bool:
    """Return whether patterns of servers or tools grant this one. `*` and `?` stand for any characters."""
    return "*" in patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
