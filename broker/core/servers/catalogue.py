"""The catalogue: the lists of a server and the result of its handshake, answered from memory.

A client gets each list as one page, in the server's order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping, Set
from functools import reduce
from operator import or_
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from broker.core.mcp.agreement import Agreed
from broker.core.mcp.methods import Era, in_effect
from broker.core.servers.visibility import Sifted, Visibility

TOLD_TTL_MS, LEAST_TTL_MS = 10_000, 1000
"""The least `ttlMs` that clients get: of a list whose changes the server tells of, and of another list."""


class ListKind(Struct, frozen=True):
    """A list method: the member of its result, the key of its items, its capability and its notification."""

    member: str
    key: str
    capability: str
    changed: str


LISTS = {
    "tools/list": ListKind("tools", "name", "tools", "notifications/tools/list_changed"),
    "resources/list": ListKind("resources", "uri", "resources", "notifications/resources/list_changed"),
    "resources/templates/list": ListKind(
        "resourceTemplates", "uriTemplate", "resources", "notifications/resources/list_changed"
    ),
    "prompts/list": ListKind("prompts", "name", "prompts", "notifications/prompts/list_changed"),
}


def lists_for(capabilities: Collection[str]) -> list[str]:
    """Return the lists to read at the start of a server with these capabilities, or else its tools.

    Some servers have tools that they do not declare. Other lists are read when a client wants them: no SDK
    requests more by itself, and some servers exit at an unknown method.
    """
    declared = [method for method, kind in LISTS.items() if kind.capability in capabilities]
    return declared or ["tools/list"]


def changed_lists(notification: str) -> list[str]:
    """Return the list methods that a `list_changed` notification names."""
    return [method for method, kind in LISTS.items() if kind.changed == notification]


class Listing(Struct, frozen=True):
    """One list: its items as bytes, by their keys in the server's order, and how long it stays fresh.

    `repeatable` are the tools whose annotations say that a second call does no harm. `ttl_s` is the server's
    `ttlMs`, or `None`; `fresh_until` counts it from the reading. `partial`: the rest could not be read.
    `matching` has the bits of the patterns of its server that match a key of the whole list.
    """

    member: str
    items: dict[str, bytes]
    era: Era = Era.LEGACY
    scope: Literal["public", "private"] = "private"
    ttl_s: float | None = None
    fresh_until: float = math.inf
    repeatable: frozenset[str] = frozenset()
    partial: bool = False
    matching: int = 0

    def only(self, sifted: Sifted | None) -> Listing:
        """Return the list with the items that clients see."""
        if sifted is None:
            return self
        seen = {key: item for key, item in self.items.items() if key in sifted.seen}
        return structs.replace(self, items=seen, matching=sifted.matching)

    def differs(self, other: Listing | None) -> bool:
        """Return whether the other one has other items, or the same in another order."""
        return other is None or list(self.items.values()) != list(other.items.values())

    def is_kept_otherwise(self, other: Listing | None) -> bool:
        """Return whether another one must be written down anew: its items or its hints differ."""
        if other is None or self.differs(other):
            return True
        return (self.ttl_s, self.scope, self.partial) != (other.ttl_s, other.scope, other.partial)

    def is_stale(self, now: float, heard_of: bool) -> bool:
        """Return whether it must be read again before it is answered.

        With a `ttlMs` of 0 a list is fresh as long as the server tells of changes (`heard_of`).
        """
        if self.ttl_s is None or (self.ttl_s == 0 and heard_of):
            return False
        return now >= self.fresh_until

    def body(self, now: float, least_ms: int = 0) -> bytes:
        """Return the result of the list method, with the time that is left of its `ttlMs`, or `least_ms`."""
        items = b'"%b":[%b]' % (self.member.encode(), b",".join(self.items.values()))
        if self.era is Era.LEGACY:
            return b"{%b}" % items
        left_ms = 0 if not self.ttl_s else int((self.fresh_until - now) * 1000)
        left_ms = max(left_ms, least_ms)
        hints = b'{"resultType":"complete","ttlMs":%d,"cacheScope":"%b",%b}'
        return hints % (left_ms, self.scope.encode(), items)


class Catalogue:
    """The lists of one server, and the result of its handshake.

    Args:
        agreed: the result of the handshake.
        visible: what clients see of the lists; `None` for everything.
    """

    def __init__(self, agreed: Agreed, visible: Visibility | None = None) -> None:
        self.agreed = agreed
        self._visible = visible
        self._whole: dict[str, Listing] = {}
        """The lists as they were read."""
        self._listings: dict[str, Listing] = {}
        """The lists as clients see them."""
        self._lacking: set[str] = set()
        self.is_veiled = False
        """Whether the filters have changed, and the lists are not yet compared with them."""
        self.revision = 0
        """Changes with the lists as they were read."""

    @property
    def whole(self) -> Mapping[str, Listing]:
        """The lists as they were read, with what clients do not see."""
        return self._whole

    def declares(self, method: str) -> bool:
        """Return whether the server declares this list."""
        return LISTS[method].capability in self.agreed.capabilities

    def has(self, method: str) -> bool:
        """Return whether the list has been read."""
        return method in self._listings

    def is_known(self, method: str) -> bool:
        """Return whether memory has the result of this method, perhaps not yet compared with the filters."""
        return method == "server/discover" or method in self._whole or method in self._lacking

    def is_lacking(self, method: str) -> bool:
        """Return whether the server is known not to have this list."""
        return method in self._lacking

    def was_asked(self, method: str) -> bool:
        """Return whether the server has been asked for this list."""
        return method in self._listings or method in self._lacking

    def lacks(self, method: str) -> None:
        """Note that the server does not have this list: it is answered as an empty one."""
        self.revision += method not in self._lacking
        self._lacking.add(method)

    def is_filtered(self, method: str) -> bool:
        """Return whether clients may see a part of this list only."""
        return self._visible is not None and self._visible.has(LISTS[method].capability)

    def put(self, method: str, listing: Listing, sifted: Sifted | None = None) -> bool:
        """Set a list, of which clients see this; return whether they see another one than before."""
        before, whole_before = self._listings.get(method), self._whole.get(method)
        self.revision += listing.is_kept_otherwise(whole_before)
        self._whole[method] = listing
        self._listings[method] = listing.only(sifted)
        self._lacking.discard(method)
        return self._listings[method].differs(before)

    def veil(self, visible: Visibility | None) -> None:
        """Answer no list until `show` has compared all of them with these filters."""
        self._visible, self.is_veiled = visible, True

    def show(self) -> Generator[int, None, list[str]]:
        """Compare the lists with the filters, in pieces; return the notifications of what differs now."""
        visible, whole, seen = self._visible, dict[str, Listing](), dict[str, Listing]()
        while left := [method for method, one in self._whole.items() if whole.get(method) is not one]:
            method = left[0]
            listing = whole[method] = self._whole[method]
            seen[method] = listing.only((yield from visible.sift(method, listing.items)) if visible else None)
        before, self._listings, self.is_veiled = self._listings, seen, False
        return _changes(seen, before)

    def hidden(self, section: str) -> int:
        """Return how many items of the lists of a section clients do not see."""
        methods = [method for method in self._whole if LISTS[method].capability == section]
        return sum(len(self._whole[method].items) - len(self._listings[method].items) for method in methods)

    def unmatched(self, section: str) -> list[str]:
        """Return the patterns that match nothing, if all lists of the section were read to their end."""
        methods = [method for method, kind in LISTS.items() if kind.capability == section]
        whole = [self._whole.get(method) for method in methods]
        if self._visible is None or not all(map(self.was_asked, methods)):
            return []
        if any(one is not None and one.partial for one in whole):
            return []
        seen = [self._listings[method].matching for method in methods if method in self._listings]
        return self._visible.unmatched(section, reduce(or_, seen, 0))

    def changes_since(self, before: Catalogue | None) -> list[str]:
        """Return the notifications of the lists that differ from those of an earlier process, each once."""
        return _changes(self._listings, before._listings if before else {})

    def is_stale(self, method: str, now: float, heard_of: Callable[[str], bool]) -> bool:
        """Return whether a list must be read before it is answered, or could not be read before."""
        if method not in LISTS:
            return False
        listing = self._listings.get(method)
        if listing is None:
            return method not in self._lacking
        return listing.is_stale(now, heard_of(LISTS[method].capability))

    def may_have_tool(self, name: str | None) -> bool:
        """Return whether the server may have this tool: it is listed, or not all of the list was read."""
        listing = (self._whole if self.is_veiled else self._listings).get("tools/list")
        return listing is None or listing.partial or name in listing.items

    def may_repeat_tool(self, name: str | None) -> bool:
        """Return whether the list says that a second call of this tool does no harm."""
        listing = self._listings.get("tools/list")
        return listing is not None and name in listing.repeatable

    def names(self, method: str) -> Set[str]:
        """Return the names in one list; none if the server does not have it."""
        listing = self._listings.get(method)
        return listing.items.keys() if listing and not self.is_veiled else frozenset()

    def is_doubted(self, method: str) -> bool:
        """Return whether a list should not be answered for ever: it was cut off, or there are no tools.

        Nobody calls a server without tools, so that no call would ever have it started.
        """
        listing = self._whole.get(method)
        if method == "tools/list" and (listing is None or not listing.items):
            return True
        return listing is not None and listing.partial

    def answer(self, method: str, now: float) -> bytes | None:
        """Return the result of a list method or of `server/discover`; `None` if the list could not be read.

        A list that the server does not have is empty, as in the SDKs.
        """
        if method == "server/discover":
            return self._discovery()
        if self.is_veiled:
            return None
        listing = self._listings.get(method)
        if listing is None and method in self._lacking:
            listing = Listing(LISTS[method].member, {}, self.agreed.era)
        return listing.body(now, self._least_ms(method, listing)) if listing else None

    def _least_ms(self, method: str, listing: Listing) -> int:
        """Return the least `ttlMs` of a list: with 0 a client keeps no list at all.

        It is 0 where the server says so, and tells of no changes.
        """
        if LISTS[method].capability in self.agreed.tells_of_lists:
            return TOLD_TTL_MS
        return 0 if listing.ttl_s == 0 else LEAST_TTL_MS

    def _discovery(self) -> bytes:
        agreed = self.agreed
        result: dict[str, Any] = {
            "resultType": "complete",
            "supportedVersions": [agreed.version],
            "capabilities": in_effect({**self._undeclared(), **agreed.capabilities}),
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": agreed.server_info},
        }
        if agreed.instructions is not None:
            result["instructions"] = agreed.instructions
        return msgspec.json.encode(result)

    def _undeclared(self) -> dict[str, Any]:
        """Return the capabilities that it does not declare, though it has items of them."""
        return {LISTS[method].capability: {} for method, one in self._listings.items() if one.items}


def _changes(new: Mapping[str, Listing], old: Mapping[str, Listing]) -> list[str]:
    """Return the notifications of the lists that differ, each once."""
    methods = [method for method in LISTS if _differ(new.get(method), old.get(method))]
    return list(dict.fromkeys(LISTS[method].changed for method in methods))


def _differ(one: Listing | None, other: Listing | None) -> bool:
    return one is not other and (one is None or one.differs(other))
