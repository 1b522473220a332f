"""The catalogue: what a server offers, read once and answered from memory.

Each list is read page by page when the server opens, and again when it says that it changed; a
client gets one page, in an order that does not depend on the server's mood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Raw, Struct

from broker.core.handshake import Agreed
from broker.core.methods import Era, in_effect

MAX_PAGES = 1000
"""A list that goes on for longer is cut: its cursors lead nowhere."""

MAX_ITEMS = 16_384
"""A longer list is refused: each item is looked at, and nobody else has a turn in between."""

MAX_TTL_MS = 31_536_000_000
"""A year. A list that is said to last for longer is taken to last so long: not every number is a time."""


class ListKind(Struct, frozen=True):
    """How one list method names its result, its items, and the capability it belongs to."""

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
    """The list methods that a server with these capabilities has."""
    return [method for method, kind in LISTS.items() if kind.capability in capabilities]


def changed_lists(notification: str) -> list[str]:
    """The list methods that a `list_changed` notification is about; none if it is another one."""
    return [method for method, kind in LISTS.items() if kind.changed == notification]


_NULL = Raw(b"null")
_HINT_BYTES = 1024


class _Page(Struct):
    next_cursor: str | None = msgspec.field(default=None, name="nextCursor")
    ttl_ms: Raw = msgspec.field(default=_NULL, name="ttlMs")
    cache_scope: Raw = msgspec.field(default=_NULL, name="cacheScope")
    result_type: Raw = msgspec.field(default=Raw(b'"complete"'), name="resultType")


_Items = Annotated[list[Raw], msgspec.Meta(max_length=MAX_ITEMS)]


class _Annotations(Struct):
    read_only: bool = msgspec.field(default=False, name="readOnlyHint")
    idempotent: bool = msgspec.field(default=False, name="idempotentHint")


class Listing(Struct, frozen=True):
    """One list: the names in it, its items as bytes, and how long it is good for.

    `repeatable` are the tools among them that say of themselves that a second call does no harm. `ttl_s` is
    what the server says, `None` where it says nothing; `fresh_until` counts it from the reading.
    """

    names: frozenset[str]
    items: bytes
    era: Era = Era.LEGACY
    scope: Literal["public", "private"] = "private"
    ttl_s: float | None = None
    fresh_until: float = math.inf
    repeatable: frozenset[str] = frozenset()

    def is_stale(self, now: float, heard_of: bool) -> bool:
        """Whether it must be read again before it is answered.

        A `ttlMs` of 0 says that nothing is known about how long it lasts: then it is good for as long as the
        server is `heard_of` when it changes.
        """
        if self.ttl_s is None or (self.ttl_s == 0 and heard_of):
            return False
        return now >= self.fresh_until

    def body(self, now: float) -> bytes:
        """The result of the list method. What is left of its time is what a client may keep it for."""
        if self.era is Era.LEGACY:
            return b"{%b}" % self.items
        left_ms = 0 if not self.ttl_s else max(0, int((self.fresh_until - now) * 1000))
        hints = b'{"resultType":"complete","ttlMs":%d,"cacheScope":"%b",%b}'
        return hints % (left_ms, self.scope.encode(), self.items)


class Reading:
    """Reading one list, page by page."""

    def __init__(self, method: str, max_bytes: int) -> None:
        self.method = method
        self._kind = LISTS[method]
        self._max_bytes = max_bytes
        self._items: dict[str, bytes] = {}
        self._repeatable: set[str] = set()
        self._cursors: set[str] = set()
        self._bytes = 0
        self._ttls: list[float | None] = []
        self._fresh_until = math.inf
        self._scope: Literal["public", "private"] = "public"
        self.repeated = 0

    def page(self, result: memoryview, now: float) -> bytes | None:
        """Take one page in; the params of the request for the next, or `None` at the end.

        Raises:
            ValueError: the page does not follow the protocol, or the list has no end.
        """
        hints = msgspec.json.decode(result, type=_Page)
        if (result_type := _hint(hints.result_type)) != "complete":
            raise ValueError(f"a list cannot be a result of the type {result_type!r:.40}")
        for item in msgspec.json.decode(result, type=dict[str, Raw]).items():
            if item[0] == self._kind.member:
                self._take(msgspec.json.decode(item[1], type=_Items))
        ttl_ms = _hint(hints.ttl_ms)
        ttl_s = max(0, min(ttl_ms, MAX_TTL_MS)) / 1000 if type(ttl_ms) in (int, float) else None
        self._ttls.append(ttl_s)
        self._fresh_until = min(self._fresh_until, now + (ttl_s or 0.0))
        if _hint(hints.cache_scope) != "public":
            self._scope = "private"
        self._bytes += len(hints.next_cursor or "")  # all of them are kept
        if self._bytes > self._max_bytes:
            raise ValueError(f"the list is above {self._max_bytes} bytes (limits.max_message_bytes)")
        return self._next(hints.next_cursor)

    def _take(self, items: Iterable[Raw]) -> None:
        for raw in items:
            item = msgspec.json.decode(raw, type=dict[str, Raw])
            name = item.get(self._kind.key)
            if name is None:
                raise ValueError(f"an item has no `{self._kind.key}`")
            key = msgspec.json.decode(name, type=str)
            if key in self._items:
                self.repeated += 1
            else:
                self._items[key] = bytes(raw)
                self._repeatable |= {key} if _may_be_repeated(item.get("annotations")) else set()
            self._bytes += len(bytes(raw))
        if len(self._items) > MAX_ITEMS:
            raise ValueError(f"the list has more than {MAX_ITEMS} items")

    def _next(self, cursor: str | None) -> bytes | None:
        if cursor is None:
            return None
        if cursor in self._cursors or len(self._cursors) == MAX_PAGES:
            raise ValueError("its cursors have no end")
        self._cursors.add(cursor)
        return msgspec.json.encode({"cursor": cursor})

    def listing(self, era: Era) -> Listing:
        """The whole list, sorted by what names its items."""
        joined = b",".join(self._items[key] for key in sorted(self._items))
        items = b'"%b":[%b]' % (self._kind.member.encode(), joined)
        names, repeatable = frozenset(self._items), frozenset(self._repeatable)
        if era is Era.LEGACY:
            return Listing(names, items, repeatable=repeatable)
        known = [ttl_s for ttl_s in self._ttls if ttl_s is not None]
        ttl_s = min(ttl_s or 0.0 for ttl_s in self._ttls) if known else None
        return Listing(names, items, era, self._scope, ttl_s, self._fresh_until, repeatable)


def _hint(raw: Raw) -> Any:
    """What a server says of a list: a word or a number. Anything long is neither, and is not taken apart."""
    text = memoryview(raw)
    return msgspec.json.decode(text) if len(text) <= _HINT_BYTES else None


def _may_be_repeated(annotations: Raw | None) -> bool:
    """Whether a second call of a tool with these annotations does no harm. What cannot be read says no."""
    try:
        hints = msgspec.json.decode(annotations or b"{}", type=_Annotations)
    except msgspec.MsgspecError:
        return False
    return hints.read_only or hints.idempotent


class Catalogue:
    """All lists of one server, and what it said of itself."""

    def __init__(self, agreed: Agreed) -> None:
        self.agreed = agreed
        self._listings: dict[str, Listing] = {}

    def put(self, method: str, listing: Listing) -> bool:
        """Set a list; whether it differs from what was there."""
        before = self._listings.get(method)
        self._listings[method] = listing
        return before is None or before.items != listing.items

    def changes_since(self, before: Catalogue | None) -> list[str]:
        """The notifications of the lists that differ from those of an earlier process, each once."""
        old = before._listings if before else {}
        methods = [method for method in LISTS if _items(self._listings, method) != _items(old, method)]
        return list(dict.fromkeys(LISTS[method].changed for method in methods))

    def is_stale(self, method: str, now: float, heard_of: Callable[[str], bool]) -> bool:
        """Whether a list must be read before it is answered; so must one that could not be read before."""
        if method not in LISTS:
            return False
        listing, capability = self._listings.get(method), LISTS[method].capability
        if listing is None:
            return capability in self.agreed.capabilities
        return listing.is_stale(now, heard_of(capability))

    def may_have_tool(self, name: str | None) -> bool:
        """Whether a call of this tool makes sense: it is listed, or the list could not be read."""
        listing = self._listings.get("tools/list")
        unread = listing is None and "tools" in self.agreed.capabilities
        return unread or (listing is not None and name in listing.names)

    def may_repeat_tool(self, name: str | None) -> bool:
        """Whether the list says of this tool that a second call of it does no harm."""
        listing = self._listings.get("tools/list")
        return listing is not None and name in listing.repeatable

    def names(self, method: str) -> frozenset[str]:
        """The names in one list; none where the server has no such list."""
        listing = self._listings.get(method)
        return listing.names if listing else frozenset()

    def answer(self, method: str, now: float) -> bytes | None:
        """The result of a list method or of `server/discover`; `None` where the server has no such list."""
        if method == "server/discover":
            return self._discovery()
        listing = self._listings.get(method)
        return listing.body(now) if listing else None

    def _discovery(self) -> bytes:
        agreed = self.agreed
        result: dict[str, Any] = {
            "resultType": "complete",
            "supportedVersions": [agreed.version],
            "capabilities": in_effect(agreed.capabilities),
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": agreed.server_info},
        }
        if agreed.instructions is not None:
            result["instructions"] = agreed.instructions
        return msgspec.json.encode(result)


def _items(listings: Mapping[str, Listing], method: str) -> bytes | None:
    listing = listings.get(method)
    return listing.items if listing else None
