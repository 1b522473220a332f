"""JSON as `rogue.py` needs it: strict about what it takes, exact about what it quotes."""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without the import: every test starts this server
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Object = dict[str, Any]

_SPACE = re.compile(r"[ \t\n\r]*")
_SCANNER = json.JSONDecoder()


def encode(value: object) -> bytes:
    """One line of compact JSON in UTF-8, as the SDKs write it; lone surrogates stay escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def decode(line: bytes) -> Object:
    """The JSON object in `line`.

    Raises:
        ValueError: no UTF-8, no JSON (NaN and Infinity are none), or no object.
    """
    value = json.loads(line.decode(), parse_constant=_refuse)
    if not isinstance(value, dict):
        raise ValueError("a message is one JSON object")  # noqa: TRY004 - whoever catches it wants one type
    return value


def raw_member(text: str, name: str) -> str | None:
    """The value of a member of the JSON object `text`, as it was written; the last one of a name counts."""
    found, at = None, _skip(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = _SCANNER.raw_decode(text, at)
        start = _skip(text, text.index(":", at) + 1)
        _, end = _SCANNER.raw_decode(text, start)
        if key == name:
            found = text[start:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
