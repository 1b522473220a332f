"""Where lines break: between words and Chinese characters, but not before punctuation that closes.

rich breaks lines at spaces only. Chinese has none, so rich would cut a sentence anywhere, even in a command.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_OPENING = "（《〈“‘「『【"
_CLOSING = "，。；：、！？）》〉”’」』】"
_UNIT = re.compile(
    rf"\s*[{_OPENING}]*(?:[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}{_OPENING}{_CLOSING}]+)?[{_CLOSING}]*(?:\s+(?=\S)|\s*\Z)?"
)


def breaks(line: str, width: int) -> list[int]:
    """Return the offsets at which a line is broken, so that each part has at most `width` columns.

    A word that is longer than that is cut. Spaces at the end of a part do not count.
    """
    offsets: list[int] = []
    at = used = 0
    for unit in _units(line):
        needed = display_width(unit.rstrip())
        if used and used + needed > width:
            offsets.append(at)
            used = 0
        if needed > width:
            for offset, char in enumerate(unit.rstrip()):
                if used and used + display_width(char) > width:
                    offsets.append(at + offset)
                    used = 0
                used += display_width(char)
            used += display_width(unit) - needed
        else:
            used += display_width(unit)
        at += len(unit)
    return offsets


def _units(line: str) -> Iterator[str]:
    return (match[0] for match in _UNIT.finditer(line) if match[0])


def display_width(text: str) -> int:
    """Return the terminal columns of a text: Chinese characters take two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def _width_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
