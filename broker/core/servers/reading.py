"""Reads one list of a server, page by page.

An unusable item is left out; an unusable cursor ends the list.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from broker.base.text import clip
from broker.base.tolerances import Oddity, Tolerated
from broker.core.mcp.agreement import shown
from broker.core.mcp.methods import Era
from broker.core.servers.catalogue import LISTS, Listing

MAX_PAGES = 1000
"""The most pages of a list: the cursors of a longer one lead nowhere."""

MAX_ITEMS = 16_384
"""The most items of a list: all of a page are read in one step."""

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""The largest page that is read: it is decoded several times, in one step."""

MAX_CURSOR_BYTES = 65_536
"""The longest cursor: it is decoded, kept and sent back."""

MAX_TTL_MS = 31_536_000_000
"""The longest `ttlMs`, a year: not every number is a time."""


_NULL = Raw(b"null")
_HINT_BYTES = 1024


class _Page(Struct):
    """A page: its hints, and the members with lists, undecoded."""

    next_cursor: Raw = msgspec.field(default=_NULL, name="nextCursor")
    ttl_ms: Raw = msgspec.field(default=_NULL, name="ttlMs")
    cache_scope: Raw = msgspec.field(default=_NULL, name="cacheScope")
    result_type: Raw = msgspec.field(default=Raw(b'"complete"'), name="resultType")
    tools: Raw = _NULL
    resources: Raw = _NULL
    templates: Raw = msgspec.field(default=_NULL, name="resourceTemplates")
    prompts: Raw = _NULL


_Items = Annotated[list[Raw], msgspec.Meta(max_length=MAX_ITEMS)]
_SHORT_BYTES = 1024 * 1024


class _Item(Struct):
    """The members of an item that the broker reads."""

    name: Raw = _NULL
    uri: Raw = _NULL
    template: Raw = msgspec.field(default=_NULL, name="uriTemplate")
    annotations: Raw = _NULL


@cache
def _many() -> msgspec.json.Decoder[Any]:
    """Return a decoder of an array of at most `MAX_ITEMS`; for a list, msgspec makes all elements first.

    The first call takes a tenth of a second; only a large page needs it.
    """
    fields = [(f"i{number}", Raw | UnsetType, UNSET) for number in range(MAX_ITEMS)]
    return msgspec.json.Decoder(
        msgspec.defstruct("_Many", fields, array_like=True, forbid_unknown_fields=True, gc=False)
    )


class _Annotations(Struct):
    read_only: bool = msgspec.field(default=False, name="readOnlyHint")
    idempotent: bool = msgspec.field(default=False, name="idempotentHint")


class Reading:
    """The reading of one list. `odd` has what was left out of it."""

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
        self._repeated = 0
        self._bad = 0
        self._bad_reason = ""
        self._end: Tolerated | None = None
        self._has_member = True
        self._after_empty = False

    @property
    def begun(self) -> bool:
        """Whether a page has been read."""
        return bool(self._ttls)

    @property
    def is_empty(self) -> bool:
        """Whether no item was read."""
        return not self._items

    @property
    def odd(self) -> list[Tolerated]:
        """The oddities of the list that were tolerated."""
        found = [] if self._end is None else [self._end]
        if not self._has_member:
            found.append(self._tolerated(Oddity.NO_LIST, member=self._kind.member))
        if self._bad:
            found.append(self._tolerated(Oddity.BAD_ITEM, count=self._bad, reason=clip(self._bad_reason)))
        if self._repeated and self._end is None:
            found.append(self._tolerated(Oddity.SAME_NAME, count=self._repeated))
        return found

    def _tolerated(self, oddity: Oddity, **facts: str | int) -> Tolerated:
        return Tolerated(oddity, {"list": self.method, **facts})

    def page(self, result: memoryview, now: float) -> bytes | None:
        """Take in a page; return the params of the request for the next one, or `None` at the end.

        Raises:
            ValueError: it is no page of a list, or a too large one.
        """
        if len(result) > MAX_PAGE_BYTES:
            raise ValueError(f"a page of it has {len(result)} bytes and may have {MAX_PAGE_BYTES}")
        hints = msgspec.json.decode(result, type=_Page)
        result_type = _hint(hints.result_type)
        if isinstance(result_type, str) and result_type != "complete":
            raise ValueError(f"a list cannot be a result of the type {result_type!r:.40}")
        items = self._member(hints)
        ttl_ms = _hint(hints.ttl_ms)
        ttl_s = max(0, min(ttl_ms, MAX_TTL_MS)) / 1000 if type(ttl_ms) in (int, float) else None
        self._ttls.append(ttl_s)
        self._fresh_until = min(self._fresh_until, now + (ttl_s or 0.0))
        if _hint(hints.cache_scope) != "public":
            self._scope = "private"
        known = len(self._items)
        self._take(items)
        if self._end is not None:
            return None
        if items and len(self._items) == known and self._cursors and not self._bad:
            self._ends(Oddity.PAGE_AGAIN, hints.next_cursor)
            return None
        return self._next(hints.next_cursor)

    def _member(self, page: _Page) -> list[Raw]:
        member = _of(page, self._kind.member)
        if memoryview(member)[0] == ord("n"):
            self._has_member = False
            return []
        if memoryview(member)[0] != ord("["):
            raise ValueError(f"its `{self._kind.member}` is no list")
        if len(memoryview(member)) <= _SHORT_BYTES:
            return msgspec.json.decode(member, type=_Items)
        return [raw for raw in structs.astuple(_many().decode(member)) if raw is not UNSET]

    def _take(self, items: Iterable[Raw]) -> None:
        for raw in items:
            self._bytes += len(memoryview(raw))
            if self._bytes > self._max_bytes:
                self._end_at(f"{self._max_bytes} bytes (limits.max_message_bytes)")
            elif len(self._items) == MAX_ITEMS:
                self._end_at(f"{MAX_ITEMS} items")
            if self._end is not None:
                return
            try:
                item = msgspec.json.decode(raw, type=_Item)
                key = msgspec.json.decode(_of(item, self._kind.key), type=str)
            except msgspec.MsgspecError:
                self._bad += 1
                self._bad_reason = self._bad_reason or f"no `{self._kind.key}` in {shown(raw)}"
                continue
            if key in self._items:
                self._repeated += 1
            else:
                self._items[key] = bytes(raw)
                self._repeatable |= {key} if _may_be_repeated(item.annotations) else set()

    def _end_at(self, most: str) -> None:
        self._end = self._tolerated(Oddity.TOO_LONG, most=most, count=len(self._items))

    def _next(self, raw: Raw) -> bytes | None:
        if memoryview(raw) == memoryview(b"null"):
            return None
        if memoryview(raw)[0] != ord('"'):
            self._ends(Oddity.BAD_CURSOR, raw)
            return None
        if len(memoryview(raw)) > MAX_CURSOR_BYTES:
            self._end_at(f"{MAX_CURSOR_BYTES} bytes of a cursor")
            return None
        cursor = msgspec.json.decode(raw, type=str)
        if cursor in self._cursors:
            self._ends(Oddity.CURSOR_AGAIN, raw)
            return None
        self._bytes += len(cursor)  # all cursors are kept
        if self._bytes > self._max_bytes:
            self._end_at(f"{self._max_bytes} bytes (limits.max_message_bytes)")
        elif len(self._cursors) == MAX_PAGES:
            self._end_at(f"{MAX_PAGES} pages")
        if self._end is not None:
            return None
        self._cursors.add(cursor)
        self._after_empty = not cursor
        return msgspec.json.encode({"cursor": cursor})

    def _ends(self, oddity: Oddity, cursor: Raw) -> None:
        """End the list at an unusable cursor."""
        if self._after_empty:
            self.end_before_empty()
        elif memoryview(cursor) != memoryview(b"null"):
            self._end = self._tolerated(oddity, count=len(self._items))

    def end_before_empty(self) -> bool:
        """End the list if its last `nextCursor` was "", as servers write there; return whether it was."""
        if self._after_empty:
            self._end = self._tolerated(Oddity.EMPTY_CURSOR)
        return self._after_empty

    def listing(self, era: Era, *, partial: bool = False) -> Listing:
        """Return the list as far as it was read, in the server's order."""
        member, repeatable = self._kind.member, frozenset(self._repeatable)
        partial = partial or (self._end is not None and self._end.oddity is not Oddity.EMPTY_CURSOR)
        if era is Era.LEGACY:
            return Listing(member, self._items, repeatable=repeatable, partial=partial)
        known = [ttl_s for ttl_s in self._ttls if ttl_s is not None]
        ttl_s = min(ttl_s or 0.0 for ttl_s in self._ttls) if known else None
        return Listing(member, self._items, era, self._scope, ttl_s, self._fresh_until, repeatable, partial)


_NAMES = {"resourceTemplates": "templates", "uriTemplate": "template"}
"""Members of a page or an item → their fields here, where the names differ."""


def _of(read: _Page | _Item, name: str) -> Raw:
    found: Raw = getattr(read, _NAMES.get(name, name))
    return found


def _hint(raw: Raw) -> Any:
    """Return a hint of a page: a word or a number. Anything long is neither, and is not decoded."""
    text = memoryview(raw)
    return msgspec.json.decode(text) if len(text) <= _HINT_BYTES else None


def _may_be_repeated(annotations: Raw) -> bool:
    """Return whether the annotations of a tool say that a second call does no harm."""
    try:
        hints = msgspec.json.decode(annotations, type=_Annotations)
    except msgspec.MsgspecError:
        return False
    return hints.read_only or hints.idempotent
