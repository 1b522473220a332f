"""The time of one start of a server, which is longer while a package runner may be downloading."""

from __future__ import annotations

from msgspec import Struct

MORE_TIME = 10
"""The most that a start with downloads may take, in multiples of `timeout_start_sec`."""

STILL_S = 60.0
"""The time without a sign of life after which such a start is ended, once `timeout_start_sec` is over."""


LOOK_S = 5.0
"""The interval of looks at the process tree; it is shorter if `timeout_start_sec` is short."""

_LEAST_BYTES = 1024
_LEAST_SHARE = 0.02
"""The bytes, and the share of one core, that show that a tree is active."""


class Activity(Struct, frozen=True):
    """A snapshot of a process tree: its processes, their CPU time, and the bytes read and written."""

    pids: frozenset[int]
    cpu_s: float
    io_bytes: int

    def since(self, before: Activity, took_s: float) -> bool:
        """Return whether the tree was active in the `took_s` seconds since then."""
        return (
            self.pids != before.pids
            or self.io_bytes - before.io_bytes >= _LEAST_BYTES
            or self.cpu_s - before.cpu_s >= took_s * _LEAST_SHARE
        )


class Start(Struct):
    """A start under way.

    Args:
        began: the time when its process was started.
        start_s: `timeout_start_sec` at that time.
        runner: the package runner that may download first, such as `npx`.
        sign_at: the time of the last sign of life.
        spoke: whether the process wrote to its stdout, so that nothing is left to be downloaded.
    """

    began: float
    start_s: float
    runner: str | None
    sign_at: float
    spoke: bool = False

    @property
    def latest(self) -> float:
        """The end of the start in any case."""
        return self.began + self.start_s * (MORE_TIME if self.runner else 1)

    @property
    def due(self) -> float:
        """The end of the start without a further sign of life."""
        still = self.sign_at + (self.start_s if self.spoke else STILL_S)
        least = self.began + self.start_s
        return min(self.latest, max(least, still)) if self.runner else least

    @property
    def is_extended(self) -> bool:
        """Whether it has more time than `timeout_start_sec`."""
        return self.due > self.began + self.start_s

    def has_more_time(self, now: float) -> bool:
        """Return whether it goes on: a download that is active is not thrown away."""
        return self.runner is not None and self.due > now

    def alive(self, now: float, *, spoke: bool) -> None:
        """Note a sign of life; `spoke`: on the stdout."""
        if not self.spoke:
            self.sign_at, self.spoke = now, spoke

    def overdue(self, now: float, next_start_s: float) -> str:
        """Return why it is ended, with its limit; `next_start_s` is the limit of the next start."""
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
