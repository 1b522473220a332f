"""Odd values: the JSON and the msgpack data that a careless or hostile peer may send.

Everything is drawn from one seeded `random.Random`, so a seed names a run.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

MAX_DEPTH = 5
LONG = 2_000

_NUMBERS = (
    b"0 -0 1 -1 1.0 1e0 12.5 1e999 -1e999 1e-999 0.1e1 9007199254740993 18446744073709551616 01 +1 .5 1. "
    b"NaN Infinity -Infinity 0x10 1_000"
).split()
_STRINGS = (
    b'"" "a" "\\u0000" "\\ud800" "\\udc00\\ud800" "\\u4f60\\u597d" "\\x41" "\\" "\n" "\r" "\t" "a\x00b" '
    b'"\xff" "\xe4\xbd" "\x1b]52;c;eA==\x07" "\xe2\x80\xae" "__proto__" "1" "1.0" "null" "notifications/x"'
).split(b" ")
_WORDS = (b"null", b"true", b"false", b"nul", b"undefined", b"", b"[]", b"{}", b"[", b"}", b"{]")
_KEYS = [
    "id",
    "jsonrpc",
    "method",
    "params",
    "result",
    "error",
    "code",
    "message",
    "data",
    "_meta",
    "progressToken",
    "progress",
    "total",
    "uri",
    "name",
    "tools",
    "nextCursor",
    "cursor",
    "capabilities",
    "protocolVersion",
    "supportedVersions",
    "serverInfo",
    "instructions",
    "notifications",
    "content",
    "type",
    "text",
    "inputSchema",
    "level",
    "requestId",
    "reason",
]


class Odd:
    """Draws odd values.

    Args:
        rng: where the choices come from.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def chance(self, one_in: int) -> bool:
        """True once in so many times."""
        return self.rng.randrange(one_in) == 0

    def json(self, depth: int = 0) -> bytes:
        """One JSON value, or something that looks like one."""
        kinds: list[Callable[[], bytes]] = [
            lambda: self.rng.choice(_NUMBERS),
            lambda: self.rng.choice(_STRINGS),
            lambda: self.rng.choice(_WORDS),
            lambda: b"%d" % self.rng.randrange(-3, 60),
            lambda: b'"%s"' % (self.rng.choice((b"x", b"\\\\", b"\xe4\xbd\xa0")) * self.rng.randrange(LONG)),
        ]
        if depth < MAX_DEPTH:
            kinds += [
                lambda: b"[%b]" % b",".join(self.json(depth + 1) for _ in range(self.rng.randrange(4))),
                lambda: self.object(depth + 1),
            ] * 2
        if self.chance(60):
            levels = self.rng.choice((50, 130, 600, 3000))
            return b"[" * levels + b"]" * self.rng.choice((levels, levels - 1))
        return self.rng.choice(kinds)()

    def object(self, depth: int = 0) -> bytes:
        """One JSON object with keys that mean something; a key may come twice."""
        keys = self.rng.choices(_KEYS, k=self.rng.randrange(5))
        return b"{%b}" % b",".join(b'"%b":%b' % (key.encode(), self.json(depth)) for key in keys)

    def members(self, usual: dict[str, bytes]) -> bytes:
        """The JSON object of these members, of which some are odd, missing, doubled or out of order."""
        members = list(usual.items())
        if not self.chance(3):
            for _ in range(self.rng.randrange(1, 3)):
                members = self._changed(members)
        text = b",".join(b'"%b":%b' % (key.encode(), value) for key, value in members)
        return self.mangled(b"{%b}" % text)

    def _changed(self, members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        if not members:
            return [(self.rng.choice(_KEYS), self.json())]
        at = self.rng.randrange(len(members))
        key, value = members[at]
        how = self.rng.randrange(9)
        if how == 0:
            return members[:at] + members[at + 1 :]
        if how == 1:
            return [*members, (key, self.json())]
        if how == 2:
            return [*members, (self.rng.choice(_KEYS), self.json())]
        if how == 3:
            return self.rng.sample(members, len(members))
        same = (b'"%b"' % value, b"%b.0" % value, b"[%b]" % value)
        odd = self.rng.choice((self.json(), self.rng.choice(_NUMBERS), self.rng.choice(_WORDS), *same))
        return [*members[:at], (key, odd), *members[at + 1 :]]

    def mangled(self, data: bytes) -> bytes:
        """The same, or with a few bytes cut, doubled, changed or put in."""
        if not data or not self.chance(6):
            return data
        at, to = sorted(self.rng.randrange(len(data) + 1) for _ in range(2))
        how = self.rng.randrange(5)
        if how == 0:
            return data[:at]
        if how == 1:
            return data[:at] + data[to:]
        if how == 2:
            return data[:to] + data[at:]
        if how == 3:
            return data[:at] + self.rng.randbytes(self.rng.randrange(1, 5)) + data[at:]
        return (
            self.rng.choice((b"\xef\xbb\xbf%b", b" \t%b", b"%b\r", b"\x1b[32m%b", b"%b%b"[:2] + b"}")) % data
        )

    def plain(self, depth: int = 0) -> Any:
        """One value that msgpack can carry."""
        simple: list[Callable[[], Any]] = [
            lambda: self.rng.choice((None, True, False, 0, 1, -1, 2**63 - 1, 2**64 - 1, -(2**63), 1e308)),
            lambda: self.rng.choice((float("inf"), float("nan"), -0.0, 1.0)),
            lambda: self.rng.choice(
                ("", "a", "\x00", "time", "\x1b[2J", "你好", "x" * self.rng.randrange(LONG))
            ),
            lambda: self.rng.randbytes(self.rng.randrange(8)),
            lambda: self.rng.randrange(60),
        ]
        if depth < MAX_DEPTH:
            simple += [
                lambda: [self.plain(depth + 1) for _ in range(self.rng.randrange(4))],
                lambda: {
                    self.rng.choice((*_KEYS, 1, None)): self.plain(depth + 1)
                    for _ in range(self.rng.randrange(4))
                },
            ]
        return self.rng.choice(simple)()
