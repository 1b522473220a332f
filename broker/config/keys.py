"""The keys of clients that may connect over TCP."""

from __future__ import annotations

from msgspec import Struct

from broker.config.names import normal, why_not


class AuthorizedKeys(Struct, frozen=True):
    """The content of the folder `authorized_keys`: the name of the client by its public key (Z85).

    `faults` are the files that are left out, and why.
    """

    names: dict[str, str] = {}
    faults: tuple[str, ...] = ()


def is_client_name(name: str) -> bool:
    """Return whether a client with a key can have this name, which is the name of its file, too."""
    return normal(name) == name and why_not(name) is None and not name.startswith(".")
