"""How deep JSON nests, found by its brackets alone: nothing is parsed, and no value is made of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate

MAX_DEPTH = 512
"""How deep arrays and objects may nest. Parsers along the way give up between 200 and 1,000."""

_LONG = 4096
_STEPS_AT_ONCE = 8192
_STRIDE = 512
"""In wide JSON at most half of so many steps go up, so that it is enough to count those."""

_PASSES = 4
_MOST_STEPS = 1_048_576
"""So many that rise nearly too high are looked through one by one; more of them are too deep, too."""

_UP, _PAIR = b"\x01", b"\x01\xff"

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def is_deep(text: bytes) -> bool:
    """Whether valid JSON nests deeper than `MAX_DEPTH`; it is only looked into where it could."""
    if _openings(text, b"[") + _openings(text, b"{") <= MAX_DEPTH:
        return False
    depth = looked_through = 0
    for steps in _steps(text):
        for at in range(0, len(steps), _STRIDE):
            ups = steps.count(_UP, at, at + _STRIDE)
            stride = min(_STRIDE, len(steps) - at)
            if depth + ups > MAX_DEPTH and not _stays_below(steps[at : at + stride], MAX_DEPTH - depth):
                looked_through += stride
                rises = max(accumulate(array("b", steps[at : at + stride])))
                if depth + rises > MAX_DEPTH or looked_through > _MOST_STEPS:
                    return True
            depth += 2 * ups - stride
    return False


def _stays_below(steps: bytes, most: int) -> bool:
    """Whether it is plain that these steps rise no higher. Empty pairs go first, one level at a time."""
    for gone in range(_PASSES):
        if gone + steps.count(_UP) <= most:
            return True
        steps = steps.replace(_PAIR, b"")
    return False


def depth_at_end(text: bytes) -> int:
    """How many brackets are open at its end."""
    return sum(2 * steps.count(b"\x01") - len(steps) for steps in _steps(text))


def _steps(text: bytes) -> Iterator[bytes]:
    """The brackets of JSON as steps of +1 and -1, a part of them at a time.

    What is inside of strings goes first: without escaped quotes, every second piece between quotes is a
    string. Two quotes side by side say nothing: a string is empty there, or one ends and another begins.
    """
    if b"\\" in text:  # to look for two bytes takes ten times as long as for one
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    plain = text.translate(None, _NOT_STRUCTURE)
    if b'"' in plain:
        plain = plain.replace(b'""', b"")
    inside = 0
    for at in range(0, len(plain), _STEPS_AT_ONCE):
        pieces = plain[at : at + _STEPS_AT_ONCE].split(b'"')
        yield b"".join(pieces[inside::2]).translate(_STEPS)
        inside = (inside + len(pieces) - 1) % 2


def _openings(text: bytes, bracket: bytes) -> int:
    """How many there are, as far as that matters. In a long text `find` is far faster than `count`."""
    if len(text) < _LONG:
        return text.count(bracket)
    found, at = 0, text.find(bracket)
    while at >= 0 and found <= MAX_DEPTH:
        found, at = found + 1, text.find(bracket, at + 1)
    return found
