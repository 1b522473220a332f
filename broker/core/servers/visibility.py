"""The tools, prompts and resources of a server that clients may see and use: `only` and `hide` of its table.

The rest is in no list, and a request that names it is refused as if the server did not have it. A request
that does not name its tool, prompt or resource clearly is refused too: the server might read another name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from fnmatch import translate
from operator import add

from broker.config.schema import FilterConfig, ServerConfig
from broker.core import refusals
from broker.core.calls.table import Call
from broker.core.mcp.members import Members, UnclearError, has_once, members_of, same_key, text_of
from broker.core.mcp.pieces import LONG_BYTES
from broker.core.refusals import Refusal

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
_OPERATORS = ("+", "#", "/", ".", ";", "?", "&")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_PLAIN = re.compile(r"(\*?)([^*?\[{]*)(\*?)", re.DOTALL)
"""A pattern of one text, with a `*` before it, behind it, at both ends, or without."""

_VARIABLE = re.compile(r"(\{[^{}]*\})")

Pattern = re.Pattern[str]


class _Filter:
    """The patterns of one table: for names, or for uris and templates."""

    def __init__(self, config: FilterConfig, *, uris: bool) -> None:
        self.config = config
        self._only, self._hide = _any(config.only), _any(config.hide)
        self._uris = uris
        if uris:
            self._only_uris = _any(config.only, lambda one: _with_variables(one, broad=False))
            hide = [spelling for one in config.hide for spelling in (one, *_spellings(one))]
            self._hide_uris = _any(hide, lambda one: _with_variables(one, broad=True))

    def shows(self, key: str) -> bool:
        """Return whether clients see the item with this key."""
        if not _is_comparable(key) or (self._only is not None and not self._only.match(key)):
            return False
        return self._hide is None or not self._hide.match(key)

    def allows(self, key: str) -> bool:
        """Return whether a request may name this, listed or not."""
        return self._allows_uri(key) if self._uris else self.shows(key)

    def _allows_uri(self, uri: str) -> bool:
        """Return the same of a uri. It has many spellings, and the server may take each for the same."""
        if not _is_comparable(uri) or _DOTS.search(_unquoted(uri)):
            return False
        if self._only_uris is not None and not self._only_uris.match(uri):
            return False
        hide = self._hide_uris
        return hide is None or not any(hide.match(one) for one in (uri, *_spellings(uri)))

    def unmatched(self, keys: Iterable[str]) -> list[str]:
        """Return the patterns that match none of these keys, as `only "pattern"`."""
        keys = list(keys)
        written = [
            *(("only", one) for one in self.config.only or ()),
            *(("hide", one) for one in self.config.hide),
        ]
        return [
            f'{word} "{one}"' for word, one in written if not any(map(re.compile(translate(one)).match, keys))
        ]


class Visibility:
    """The filters of one server, which has at least one."""

    def __init__(self, filters: dict[str, _Filter]) -> None:
        self._filters = filters

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Visibility) and self._tables == other._tables

    __hash__ = None  # type: ignore[assignment]

    @property
    def _tables(self) -> dict[str, FilterConfig]:
        return {section: its.config for section, its in self._filters.items()}

    def sees(self, method: str) -> Callable[[str], bool] | None:
        """Return the test of the keys of this list; `None` if all of them are seen."""
        its = self._filters.get(method.partition("/")[0])
        if its is None:
            return None
        return its.allows if method == "resources/list" else its.shows

    def allows_uri(self, uri: str) -> bool:
        """Return whether clients may read this resource and hear of it."""
        its = self._filters.get("resources")
        return its is None or its.allows(uri)

    def unmatched(self, section: str, keys: Iterable[str]) -> list[str]:
        """Return the patterns of a table that match nothing of these keys."""
        its = self._filters.get(section)
        return its.unmatched(keys) if its is not None else []

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


def visibility_of(config: ServerConfig) -> Visibility | None:
    """Return what clients see of a server; `None` if they see everything."""
    tables: dict[str, FilterConfig | None] = {section: getattr(config, section) for section in SECTIONS}
    filters = {
        section: _Filter(table, uris=section == "resources")
        for section, table in tables.items()
        if table is not None and (table.only is not None or table.hide)
    }
    return Visibility(filters) if filters else None


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


# --- patterns ----------------------------------------------------------------------------------------


def _any(patterns: Collection[str] | None, written: Callable[[str], str] = translate) -> Pattern | None:
    """Return one expression for all of these patterns; `None` if there is no such list.

    Patterns with a `*` at an end only are one piece of it for all: a list may have thousands of names.
    """
    if patterns is None:
        return None
    texts: dict[tuple[str, str], list[str]] = {}
    pieces: list[str] = []
    for one in patterns:
        if plain := _PLAIN.fullmatch(one):
            texts.setdefault((plain[1], plain[3]), []).append(re.escape(plain[2]))
        else:
            pieces.append(written(one))
    for (before, behind), these in texts.items():
        begin, end = "(?s:.*?)" if before else "", "" if behind else r"\Z"
        pieces.append(f"{begin}(?:{'|'.join(these)}){end}")
    return re.compile("|".join(pieces) or r"(?!)")


def _is_comparable(key: str) -> bool:
    return len(key) <= MAX_NAME_CHARS and "\0" not in key


def _with_variables(pattern: str, *, broad: bool) -> str:
    """Return the expression of a pattern, in which `{x}` of a template stands for its value in a uri.

    A value has no `/`, unless an operator such as `+` says that it may. `broad`: it may have anything.
    """
    parts = _VARIABLE.split(pattern)
    texts, variables = parts[::2], parts[1::2]
    values = [".*" if broad or one[1:2] in _OPERATORS else "[^/?#]*" for one in variables]
    bare = [translate(text).removeprefix("(?s:")[: -len(r")\Z")] for text in texts]
    return "(?s:" + "".join(map(add, bare, [*values, ""])) + r")\Z"


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
