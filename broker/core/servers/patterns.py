"""Shell patterns, all of which are compared with a text in one pass over it, whatever the patterns are.

A regular expression with several `*` goes back over a text again and again, and servers choose their texts.
Here each place in a pattern is one bit of a number, which has the places that the text so far may lead to.
A character of the text moves each of them to the next place, or keeps it at a `*`: the algorithm Shift-And
for patterns with gaps. A text costs its length, times the length of the patterns in machine words.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import translate
from itertools import accumulate
from typing import Literal

Variables = Literal["none", "narrow", "broad"]
"""What `{x}` in a pattern stands for: itself, the value of a variable of a uri template, or any text."""

_OPERATORS = ("+", "#", "/", ".", ";", "?", "&")
_VARIABLE = re.compile(r"(\{[^{}]*\})")
_TOKEN = re.compile(r"\*+|\[(?=(!?\]?))\1[^\]]*\]|.", re.DOTALL)
_ANY, _VALUE = "?", "[!/?#]"
"""The characters of a gap: any, or those of the value of a variable."""

_END = 0x110000


class Patterns:
    """Some patterns. `ends` has the bit of each, in their order."""

    def __init__(self, patterns: Sequence[str], variables: Variables = "none") -> None:
        self.ends: list[int] = []
        self._starts = place = 0
        # Where the characters that move to a place, or stay at it, begin and end: these bits change there.
        moves, stays = defaultdict[int, int](int, {0: 0}), defaultdict[int, int](int, {0: 0})
        for one in patterns:
            self._starts |= 1 << place
            within, changes = 0, defaultdict[tuple[bool, int], int](int)  # short numbers, of this pattern
            for token, is_gap in _tokens(one, variables):
                within += not is_gap
                for edge in _edges(token):
                    changes[is_gap, edge] ^= 1 << within
            for (is_gap, edge), bits in changes.items():
                (stays if is_gap else moves)[edge] ^= bits << place
            place += within
            self.ends.append(1 << place)
            place += 1
        self.places = place
        self._all_ends = sum(self.ends)
        self._points = sorted(moves.keys() | stays.keys())
        xor = int.__xor__
        moved = accumulate((moves.get(point, 0) for point in self._points), xor)
        stayed = accumulate((stays.get(point, 0) for point in self._points), xor)
        self._masks = list(zip(moved, stayed, strict=True))
        self._ascii = {char: self._masks_of(char) for char in map(chr, range(128))}

    def matching(self, text: str) -> int:
        """Return the bits of the patterns that match this text."""
        places, ascii_masks = self._starts, self._ascii
        for char in text:
            moves, stays = ascii_masks.get(char) or self._masks_of(char)
            places = places << 1 & moves | places & stays
            if not places:
                return 0
        return places & self._all_ends

    def _masks_of(self, char: str) -> tuple[int, int]:
        return self._masks[bisect_right(self._points, ord(char)) - 1]


def _tokens(pattern: str, variables: Variables) -> Iterator[tuple[str, bool]]:
    """Yield the characters and sets of a pattern, and with `True` the characters of each of its gaps."""
    gap = ""
    for number, part in enumerate(_VARIABLE.split(pattern) if variables != "none" else [pattern]):
        if number % 2:
            is_any = variables == "broad" or part[1:2] in _OPERATORS
            tokens = [(_ANY if is_any else _VALUE, True)]
        else:
            found = (one[0] for one in _TOKEN.finditer(part))
            tokens = [(_ANY, True) if one[0] == "*" else (one, False) for one in found]
        for token, is_gap in tokens:
            if is_gap:  # gaps beside one another are one
                gap = _ANY if _ANY in (gap, token) else token
                continue
            if gap:
                yield gap, True
            gap = ""
            yield token, False
    if gap:
        yield gap, True


def _edges(token: str) -> Iterator[int]:
    """Yield where the characters that a token matches begin and end, in their order."""
    if token == "?":
        yield from (0, _END)
    elif len(token) == 1:
        yield from (ord(token), ord(token) + 1)
    else:
        matches, was_in = re.compile(translate(token)).match, False
        points = sorted({0, *(point for char in token for point in (ord(char), ord(char) + 1))} - {_END})
        for point in points:
            is_in = matches(chr(point)) is not None
            if is_in != was_in:
                yield point
            was_in = is_in
        if was_in:
            yield _END
