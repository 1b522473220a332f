"""The keys of clients that may connect over TCP, and what each may do."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from broker.base.name_patterns import is_granted
from broker.config.fields import SWITCH, ServerPatterns, about
from broker.config.names import normal, why_not


class KeyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[keys.NAME]` table: what the client with the key of that name may do."""

    servers: ServerPatterns = ("*",)
    manage: Annotated[
        bool,
        about(
            "Whether it may stop, start and restart these servers, read their logs, and reload the config.",
            SWITCH,
        ),
    ] = False

    @property
    def is_for_all(self) -> bool:
        """Whether the client may use every server."""
        return "*" in self.servers

    def may_use(self, server: str) -> bool:
        """Return whether the client may use this server."""
        return is_granted(self.servers, server)


class AuthorizedKeys(Struct, frozen=True):
    """The clients that may connect with a key.

    `names` has the name of each by its public key (Z85), as in the folder `authorized_keys`. `grants` are the
    tables `[keys.NAME]`. `faults` are the files and the tables without effect, and why.
    """

    names: dict[str, str] = {}
    faults: tuple[str, ...] = ()
    grants: dict[str, KeyConfig] = {}

    def grant_of(self, public: str) -> KeyConfig | None:
        """Return what the client with this public key may do; `None` if it may not connect."""
        name = self.names.get(public)
        return None if name is None else self.grants.get(name, _DEFAULT)


_DEFAULT = KeyConfig()


def is_client_name(name: str) -> bool:
    """Return whether a client with a key can have this name, which is the name of its file, too."""
    return normal(name) == name and why_not(name) is None and not name.startswith(".")
