"""The members of a JSON object, each as often as it comes.

Parsers differ in what they make of a key that comes twice, and some take `Name` for `name`. Where the broker
decides by a member, it must be certain that the server reads the same one.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import msgspec
from msgspec import Raw

MAX_MEMBERS = 64
"""The most members of an object that are looked at: the params of MCP's methods have a few."""


Members = list[tuple[str, Raw]]
"""The members of an object, in their order."""


class UnclearError(Exception):
    """The object does not have the member exactly once, or has too many members."""


class _Key:
    """A key that equals no other one, so that a decoder of a `dict` keeps both of two equal keys."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def members_of(text: bytes | Raw) -> Members:
    """Return the members of a valid JSON object.

    Raises:
        UnclearError: it is no object, or has more than `MAX_MEMBERS`.
    """
    try:
        return _decode(text, [])
    except msgspec.MsgspecError as error:
        raise UnclearError from error


def keys_of(text: bytes) -> list[str]:
    """Return the keys of a valid JSON object, as often as they come, and at most `MAX_MEMBERS` + 1."""
    seen: list[str] = []
    with suppress(UnclearError):
        _decode(text, seen)
    return seen


def _decode(text: bytes | Raw, seen: list[str]) -> Members:
    def key(_: object, written: str) -> _Key:
        seen.append(written)
        if len(seen) > MAX_MEMBERS:
            raise UnclearError
        return _Key(written)

    found = msgspec.json.decode(text, type=dict[_Key, Raw], dec_hook=key)
    return [(one.text, value) for one, value in found.items()]


def same_key(written: str) -> str:
    """Return what a careless parser may compare of a key: without case, and up to a NUL."""
    return written.partition("\0")[0].casefold()


def has_once(keys: Iterable[str], name: str) -> bool:
    """Return whether exactly one of these keys can be taken for this one, and is spelled so."""
    return [written for written in keys if same_key(written) == name] == [name]


def text_of(members: Members, name: str) -> str:
    """Return the string that a member has.

    Raises:
        UnclearError: it is not there exactly once, or is no string.
    """
    if not has_once((key for key, _ in members), name):
        raise UnclearError
    try:
        return msgspec.json.decode(dict(members)[name], type=str)
    except msgspec.MsgspecError as error:
        raise UnclearError from error
