"""Decides what a client may ask by its key, and refuses the rest.

A limited client is told of no other server than those that it may use, not even in a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker.base.text import clip
from broker.config.keys import AuthorizedKeys, KeyConfig
from broker.config.names import toml_key
from broker.core import refusals
from broker.core.clients.connections import Peer
from broker.core.refusals import Blame, Refusal
from client_shim.wire import Code

LOOKS = frozenset({"ping", "servers", "status"})
"""Management requests of clients that may not manage: they tell of the servers that the client may use."""


def may_ask(grant: KeyConfig | None, command: str) -> bool:
    """Return whether a client may send this management request."""
    return grant is None or grant.manage or command in LOOKS


def may_use(grant: KeyConfig | None, server: str) -> bool:
    """Return whether a client may use this server. One that needs no key may use every server."""
    return grant is None or grant.may_use(server)


def ended(authorized: AuthorizedKeys, peer: Peer, grant: KeyConfig | None) -> str:
    """Return why a client with a key may not go on; empty if its key and its grant still hold."""
    if not peer.public:
        return ""
    if authorized.names.get(peer.public) != peer.key:
        return f"the key of {peer.key} was revoked"
    return "" if authorized.grant_of(peer.public) == grant else f"what {peer.key} may do has changed"


def unknown_server(grant: KeyConfig | None, name: str, names: Iterable[str]) -> Refusal:
    """Return the refusal of a request for a server that is not configured. `names` are those that are."""
    if grant is not None and not grant.is_for_all:
        names = filter(grant.may_use, names)
    return refusals.unknown_server(name, names)


def not_granted(key: str, name: str) -> Refusal:
    """Return the refusal of a server that the key does not grant, configured or not."""
    table = f"[keys.{toml_key(key)}]"
    return Refusal(
        Code.UNKNOWN_SERVER,
        f"the key {key!r} may not use a server {clip(name)!r}",
        f"add it to `servers` of {table} in broker.toml, then `mcp-broker reload`",
        Blame.CALLER,
        {"server": clip(name), "key": key},
    )


def manages_nothing(key: str, command: str) -> Refusal:
    """The client's key does not let it manage the broker."""
    table = f"[keys.{toml_key(key)}]"
    return Refusal(
        Code.METHOD_REFUSED,
        f"the key {key!r} may not send the command {clip(command)!r}",
        f"run it where the broker runs, or write manage = true into {table} of broker.toml and reload",
        Blame.CALLER,
        {"method": clip(command), "key": key},
    )
