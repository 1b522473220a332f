"""Converts the time-outs of an entry to seconds. Each host has its own unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

TimeUnit = Literal["s", "ms"]

AMBIGUOUS_S = (1000, 3600)
"""The range in which a `timeout` of an unknown host may be seconds or milliseconds. Time-outs below a second
or above an hour are not useful, so smaller values are seconds and larger ones milliseconds."""

LEAST_S = 0.1
"""The shortest useful time-out. A shorter one was most likely written in another unit than its host's."""

NAMED: dict[str, tuple[str, TimeUnit]] = {
    "startup_timeout_sec": ("timeout_start_sec", "s"),
    "startup_timeout_ms": ("timeout_start_sec", "ms"),
    "tool_timeout_sec": ("timeout", "s"),
    "read_timeout_seconds": ("timeout", "s"),
    "initTimeout": ("timeout_start_sec", "ms"),
    "connectionTimeout": ("timeout_start_sec", "ms"),
}
"""key whose name tells the unit → the broker's key, the unit. Of Codex, fast-agent, LibreChat, Continue."""

_INNER = {"request": "timeout", "startup": "timeout_start_sec"}
"""key within `timeout` of OpenCode 2, in milliseconds → the broker's key"""


class Time(NamedTuple):
    """A time-out: the host's key and value, the broker's key, and seconds, `None` if the unit is unclear."""

    key: str
    value: object
    meant: str
    seconds: float | None

    @property
    def is_number(self) -> bool:
        """Whether the value is a number."""
        return isinstance(self.value, (int, float)) and not isinstance(self.value, bool)


def times_of(entry: Mapping[str, object], unit: TimeUnit | None) -> Iterator[Time]:
    """Yield the time-outs of an entry. `unit` is the host's unit of `timeout`, if known."""
    given = entry.get("timeout")
    if isinstance(given, dict):
        for key in _INNER.keys() & given.keys():
            yield _time(f"timeout.{key}", given[key], _INNER[key], "ms")
    elif given is not None:
        yield _time("timeout", given, "timeout", unit)
    for key, (meant, its_unit) in NAMED.items():
        if entry.get(key) is not None:
            yield _time(key, entry[key], meant, its_unit)


def _time(key: str, value: object, meant: str, unit: TimeUnit | None) -> Time:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return Time(key, value, meant, seconds_of(value, unit) if is_number else None)  # type: ignore[arg-type]


def seconds_of(value: float, unit: TimeUnit | None) -> float | None:
    """Return a time in seconds; `None` if the unit is unclear or the time is not useful."""
    least, most = AMBIGUOUS_S
    if not 0 < value < math.inf:
        return None
    if unit is not None:
        seconds = value if unit == "s" else value / 1000
        return seconds if seconds >= LEAST_S else None
    if value < least:
        return value
    return value / 1000 if value > most else None
