"""The tools, prompts and resources of a server that clients may see and use: `only` and `hide` of its table.

The rest is in no list, and a request that names it is refused as if the server did not have it. A request
that does not name its tool, prompt or resource clearly is refused too: the server might read another name.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from typing import NamedTuple

from broker.config.schema import ServerConfig
from broker.config.server_tables import FilterConfig
from broker.core import refusals
from broker.core.calls.table import Call
from broker.core.mcp.members import Members, UnclearError, has_once, members_of, same_key, text_of
from broker.core.mcp.pieces import LONG_BYTES
from broker.core.refusals import Refusal
from broker.core.servers.patterns import Patterns

MAX_NAME_CHARS = 4096
"""The longest name or uri that is compared with patterns. A longer one is hidden."""

SECTIONS = ("tools", "prompts", "resources")
"""The tables of patterns, each for the lists of the capability of that name."""

_NAMED = {"tools/call": ("tools", "name"), "prompts/get": ("prompts", "name")}
_REFERRED = (("prompts", "name"), ("resources", "uri"))
_GUARDED = {*_NAMED, "resources/read", "completion/complete"}

_UNQUOTED_TIMES = 8
_HEAD = re.compile(r"[^/?#]*:(?://[^/?#]*)?|")
_DOTS = re.compile(r"(?:^|[/\\])\.\.?(?:[/\\?#;]|$)")
_KEY_WORK, _CHAR_WORK, _PIECE_WORK = 50_000, 1_000, 1_000_000
"""The work of comparing a key, and of each character without the places in patterns; and that of a piece."""

_KEPT_URIS, _KEPT_CHARS = 32_768, 4 * 1024 * 1024
"""How many answers about uris are kept, and how many characters: twice what all subscriptions may have."""

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


class Sifted(NamedTuple):
    """The keys of a list that clients see, and the bits of the patterns that match any key of it."""

    seen: frozenset[str]
    matching: int


class _Filter:
    """The patterns of one table: for names, or for uris and templates."""

    def __init__(self, config: FilterConfig, *, uris: bool) -> None:
        self.config = config
        only, hide = config.only or (), config.hide
        self._names = Patterns([*only, *hide])
        ends = self._names.ends
        self._only, self._hide = sum(ends[: len(only)]), sum(ends[len(only) :])
        self._uris = uris
        if uris:
            spellings = dict.fromkeys(spelling for one in hide for spelling in (one, *_spellings(one)))
            self._only_uris = Patterns(only, "narrow")
            self._hide_uris = Patterns(list(spellings), "broad")

    @property
    def places(self) -> int:
        """The length of all patterns, by which the time of a comparison grows."""
        return self._names.places + (self._only_uris.places + 3 * self._hide_uris.places if self._uris else 0)

    def matching(self, key: str) -> int:
        """Return the bits of the patterns that match a key of a list."""
        return self._names.matching(key) if _is_comparable(key) else 0

    def shows(self, key: str) -> bool:
        """Return whether clients see the item with this key."""
        return _is_comparable(key) and self._is_shown(self._names.matching(key))

    def _is_shown(self, matching: int) -> bool:
        return not matching & self._hide and (self.config.only is None or matching & self._only != 0)

    def allows(self, key: str) -> bool:
        """Return whether a request may name this, listed or not."""
        return self._allows_uri(key) if self._uris else self.shows(key)

    def _allows_uri(self, uri: str) -> bool:
        """Return the same of a uri. It has many spellings, and the server may take each for the same."""
        if not _is_comparable(uri) or _DOTS.search(_unquoted(uri)):
            return False
        if self.config.only is not None and not self._only_uris.matching(uri):
            return False
        return not self.config.hide or not any(map(self._hide_uris.matching, {uri, *_spellings(uri)}))

    def unmatched(self, matching: int) -> list[str]:
        """Return the patterns that are not among these, as `only "pattern"`."""
        words = [
            *(("only", one) for one in self.config.only or ()),
            *(("hide", one) for one in self.config.hide),
        ]
        ends = self._names.ends
        return [f'{word} "{one}"' for (word, one), end in zip(words, ends, strict=True) if not matching & end]


class Visibility:
    """The filters of one server, which has at least one. `tables` has the patterns they were made of."""

    def __init__(self, tables: dict[str, FilterConfig]) -> None:
        self.tables = tables
        self._filters = {its: _Filter(table, uris=its == "resources") for its, table in tables.items()}
        self._allowed: dict[str, bool] = {}
        self._allowed_chars = 0

    def has(self, section: str) -> bool:
        """Return whether there is a table of patterns for this section."""
        return section in self._filters

    def sift(self, method: str, keys: Iterable[str]) -> Generator[int, None, Sifted | None]:
        """Return what clients see of a list with these keys, or `None` for everything; yield in pieces."""
        its = self._filters.get(method.partition("/")[0])
        if its is None:
            return None
        sees = its.allows if method == "resources/list" else its.shows
        seen: list[str] = []
        matching = work = 0
        for key in keys:
            matching |= its.matching(key)
            if sees(key):
                seen.append(key)
            work += _KEY_WORK + min(len(key), MAX_NAME_CHARS) * (_CHAR_WORK + its.places)
            if work >= _PIECE_WORK:
                yield work // _PIECE_WORK
                work = 0
        return Sifted(frozenset(seen), matching)

    def allows_uri(self, uri: str) -> bool:
        """Return whether clients may read this resource and hear of it.

        The answers for the uris of subscriptions are kept: all of them are looked at when one changes.
        """
        its = self._filters.get("resources")
        if its is None:
            return True
        if (allowed := self._allowed.get(uri)) is None:
            self._allowed_chars += len(uri)
            if len(self._allowed) >= _KEPT_URIS or self._allowed_chars > _KEPT_CHARS:
                self._allowed.clear()
                self._allowed_chars = len(uri)
            allowed = self._allowed[uri] = its.allows(uri)
        return allowed

    def unmatched(self, section: str, matching: int) -> list[str]:
        """Return the patterns of a table that are not among these, which match a key."""
        its = self._filters.get(section)
        return its.unmatched(matching) if its is not None else []

    def refusal(self, call: Call, body: bytes, names: Iterable[str]) -> Refusal | None:
        """Return why a call with these params is not passed on; `names` are those of the visible tools."""
        if call.method not in _GUARDED or not self._filters.keys() & _sections(call.method):
            return None
        try:
            named = _named(call, body)
        except UnclearError:
            return refusals.unclear(call.server, call.method)
        for section, name in named:
            its = self._filters.get(section)
            if its is not None and not its.allows(name):
                if section == "tools":
                    return refusals.unknown_tool(call.server, name, names)
                return refusals.unknown_item(call.server, section.removesuffix("s"), name)
        return None


def visibility_of(config: ServerConfig, before: Visibility | None = None) -> Visibility | None:
    """Return what clients see of a server, `before` if that has the same patterns; `None` for everything."""
    given: dict[str, FilterConfig | None] = {section: getattr(config, section) for section in SECTIONS}
    tables = {its: table for its, table in given.items() if table and (table.only is not None or table.hide)}
    if before is not None and before.tables == tables:
        return before
    return Visibility(tables) if tables else None


def _sections(method: str) -> set[str]:
    if method in _NAMED:
        return {_NAMED[method][0]}
    return {"resources"} if method == "resources/read" else {"prompts", "resources"}


def _named(call: Call, body: bytes) -> list[tuple[str, str]]:
    """Return what a call names: its table and its name or uri.

    Raises:
        UnclearError: the params do not name it, or not clearly.
    """
    if len(body) > LONG_BYTES:  # too long for one step; they were looked at when they came in
        if call.method not in _NAMED or call.unclear or call.name is None:
            raise UnclearError
        return [(_NAMED[call.method][0], call.name)]
    members = members_of(body)
    if call.method in _NAMED:
        section, key = _NAMED[call.method]
        return [(section, text_of(members, key))]
    if call.method == "resources/read":
        return [("resources", text_of(members, "uri"))]
    return _referred(members)


def _referred(members: Members) -> list[tuple[str, str]]:
    """Return the prompt or the resource that the `ref` of a completion names."""
    if not has_once((key for key, _ in members), "ref"):
        raise UnclearError
    ref = members_of(dict(members)["ref"])
    keys = {same_key(key) for key, _ in ref}
    return [(section, text_of(ref, key)) for section, key in _REFERRED if key in keys]


# --- names and uris ------------------------------------------------------------------------------------


def _is_comparable(key: str) -> bool:
    return len(key) <= MAX_NAME_CHARS and "\0" not in key


def _spellings(uri: str) -> tuple[str, str]:
    """Return a uri as many servers read it, with its query and without.

    Scheme and host are in small letters; escapes, doubled slashes, a last slash and a fragment are gone.
    """
    uri = _unquoted(uri)
    head = _HEAD.match(uri)
    assert head is not None
    rest = re.sub("/{2,}", "/", uri[head.end() :].partition("#")[0])
    lowered = head[0].lower()
    return lowered + rest.rstrip("/"), lowered + rest.partition("?")[0].rstrip("/")


def _unquoted(text: str) -> str:
    """Return a text without percent escapes, also where they are escaped themselves."""
    if "%" not in text:
        return text
    for _ in range(_UNQUOTED_TIMES):
        raw = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())
        before, text = text, raw.decode(errors="replace")
        if text == before:
            break
    return text
