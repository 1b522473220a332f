"""The addresses at which the gateway speaks HTTP, and how it listens."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

BACKLOG = 1024
"""The connections to one listening socket that may wait until the gateway accepts them."""


class Address(NamedTuple):
    """Where the gateway speaks HTTP: a path, or a host and a port."""

    path: str
    host: str
    port: int

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach it."""
        if self.path or self.host == "localhost":
            return True
        return ipaddress.ip_address(self.host).is_loopback


_TCP = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+|localhost)):([0-9]{1,5})")


def address_of(text: str) -> Address | None:
    """Return the address that a text of `listen` names; `None` for a bad one."""
    if text.startswith("unix:/") and text.isprintable():
        return Address(text.removeprefix("unix:"), "", 0)
    match = _TCP.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        return None
    host = match[1] or match[2]
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return None
    return Address("", host, int(match[3]))
