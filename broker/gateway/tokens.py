"""The bearer tokens of the gateway, and what the holder of each may do."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from broker.base.name_patterns import is_granted


class Token(NamedTuple):
    """A bearer token, and what its holder may do.

    Attributes:
        name: what logs and the status call its holder.
        digest: the SHA-256 of the token.
        servers: patterns of the servers it may use.
        tools: patterns of the tools it may call.
        rate: requests a second; 0 sets no limit.
    """

    name: str
    digest: bytes
    servers: tuple[str, ...] = ("*",)
    tools: tuple[str, ...] = ("*",)
    rate: float = 0.0

    def may_use(self, server: str) -> bool:
        """Return whether the holder may use this server."""
        return is_granted(self.servers, server)

    @property
    def may_call_all(self) -> bool:
        """Whether no tool is closed to the holder."""
        return "*" in self.tools

    def may_call(self, tool: str) -> bool:
        """Return whether the holder may call a tool of this name."""
        return is_granted(self.tools, tool)


LOCAL = Token("local", b"")
"""Stands for all clients of a door that needs no token."""


def digest_of(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).digest()
