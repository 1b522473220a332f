"""One start of a server: how long it may take, and how much longer while it may be downloading."""

from __future__ import annotations

from msgspec import Struct

MORE_TIME = 10
"""A start that installs something first may take so many times `timeout_start_sec`."""

STILL_S = 60.0
"""Such a start is ended, once `timeout_start_sec` is over, when it has shown no sign of life for so long."""


LOOK_S = 5.0
"""How often the tree of such a start is looked at; more often where `timeout_start_sec` is short."""

_LEAST_BYTES = 1024
_LEAST_SHARE = 0.02
"""Bytes, and the share of one core, from which on a tree does something: one that only waits takes less."""


class Activity(Struct, frozen=True):
    """What a process tree had done at one moment: its processes, their CPU time, what they read and wrote."""

    pids: frozenset[int]
    cpu_s: float
    io_bytes: int

    def since(self, before: Activity, took_s: float) -> bool:
        """Whether it has done something in the `took_s` seconds since then."""
        return (
            self.pids != before.pids
            or self.io_bytes - before.io_bytes >= _LEAST_BYTES
            or self.cpu_s - before.cpu_s >= took_s * _LEAST_SHARE
        )


class Start(Struct):
    """A start under way, by the values that it began with.

    Args:
        began: when its process was there.
        start_s: `timeout_start_sec` at that time.
        runner: what may be downloading before the server runs, such as `npx`.
        sign_at: when it last showed that it lives.
        spoke: whether it wrote to its stdout since, so that nothing is downloaded any more.
    """

    began: float
    start_s: float
    runner: str | None
    sign_at: float
    spoke: bool = False

    @property
    def latest(self) -> float:
        """When it is ended, whatever it shows."""
        return self.began + self.start_s * (MORE_TIME if self.runner else 1)

    @property
    def due(self) -> float:
        """When it is ended if it shows no further sign of life. A server that has spoken has its own time."""
        still = self.sign_at + (self.start_s if self.spoke else STILL_S)
        least = self.began + self.start_s
        return min(self.latest, max(least, still)) if self.runner else least

    @property
    def is_extended(self) -> bool:
        """Whether it has been given more than `timeout_start_sec`."""
        return self.due > self.began + self.start_s

    def has_more_time(self, now: float) -> bool:
        """Whether it goes on although a deadline has come: what is being downloaded is not thrown away."""
        return self.runner is not None and self.due > now

    def alive(self, now: float, *, spoke: bool) -> None:
        """It has shown a sign of life; `spoke`: on its stdout."""
        if not self.spoke:
            self.sign_at, self.spoke = now, spoke

    def overdue(self, now: float, next_start_s: float) -> str:
        """Why it is ended, with the value that it had; `next_start_s` is that of the next start."""
        key = f"timeout_start_sec = {self.start_s:g}"
        mend = "raise it if the server needs longer"
        if next_start_s != self.start_s:
            mend = f"its next start has {next_start_s:g} s"
        took_s = max(now, self.due) - self.began
        if not self.is_extended:
            return f"it was not ready within {self.start_s:g} s ({key}; {mend})"
        why = f"{MORE_TIME} times that is the most" if now >= self.latest else "it had stood still"
        facts = f"{key}, more for downloads of `{self.runner}`, {why}; {mend}"
        return f"it was not ready within {took_s:.0f} s ({facts})"
