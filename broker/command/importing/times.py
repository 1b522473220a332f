"""The time-outs of an entry, in seconds: each host counts them in its own unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

Unit = Literal["s", "ms"]

AMBIGUOUS_S = (1000, 3600)
"""A `timeout` within these may be seconds or milliseconds, where the host is not known. Nobody waits for less
than a second (so those below are seconds) nor for more than an hour (those above are milliseconds)."""

LEAST_S = 0.1
"""A shorter time is none that anybody wants: most likely it was written in another unit than its host's."""

NAMED: dict[str, tuple[str, Unit]] = {
    "startup_timeout_sec": ("timeout_start_sec", "s"),
    "startup_timeout_ms": ("timeout_start_sec", "ms"),
    "tool_timeout_sec": ("timeout", "s"),
    "read_timeout_seconds": ("timeout", "s"),
    "initTimeout": ("timeout_start_sec", "ms"),
    "connectionTimeout": ("timeout_start_sec", "ms"),
}
"""Times whose unit is known by their name: three of Codex; fast-agent, LibreChat, Continue."""

_INNER = {"request": "timeout", "startup": "timeout_start_sec"}
"""What OpenCode 2 has in `timeout`, in milliseconds."""


class Time(NamedTuple):
    """One time-out: its key and value there, the broker's key, and seconds; `None` where nobody can know."""

    key: str
    value: object
    meant: str
    seconds: float | None

    @property
    def is_number(self) -> bool:
        """Whether the value could be a time at all."""
        return isinstance(self.value, (int, float)) and not isinstance(self.value, bool)


def times_of(entry: Mapping[str, object], unit: Unit | None) -> Iterator[Time]:
    """The time-outs of an entry whose host counts `timeout` in this unit, where it is known."""
    given = entry.get("timeout")
    if isinstance(given, dict):
        for key in _INNER.keys() & given.keys():
            yield _time(f"timeout.{key}", given[key], _INNER[key], "ms")
    elif given is not None:
        yield _time("timeout", given, "timeout", unit)
    for key, (meant, its_unit) in NAMED.items():
        if entry.get(key) is not None:
            yield _time(key, entry[key], meant, its_unit)


def _time(key: str, value: object, meant: str, unit: Unit | None) -> Time:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return Time(key, value, meant, seconds_of(value, unit) if is_number else None)  # type: ignore[arg-type]


def seconds_of(value: float, unit: Unit | None) -> float | None:
    """A time in seconds; `None` where nobody can know, or it is no time."""
    least, most = AMBIGUOUS_S
    if not 0 < value < math.inf:
        return None
    if unit is not None:
        seconds = value if unit == "s" else value / 1000
        return seconds if seconds >= LEAST_S else None
    if value < least:
        return value
    return value / 1000 if value > most else None
