"""Samples of processes and memory over the last hours, for the plot of the status page."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

EVERY_S = 30.0
"""The time between two samples, in seconds."""

MAX_SAMPLES = 720
"""The samples kept: six hours. A new one replaces the oldest."""

MAX_SERVERS = 64
"""The servers in one sample. The memory of a full history stays below 10 MiB."""


class Usage(NamedTuple):
    """What one server's process tree used at the time of a sample."""

    processes: int
    rss_bytes: int


class Sample(NamedTuple):
    """One look at the broker.

    Attributes:
        at_s: seconds since the epoch.
        servers: server name → usage; `None` if the broker did not answer.
    """

    at_s: float
    servers: Mapping[str, Usage] | None


class History:
    """A bounded series of samples, the oldest first."""

    def __init__(self, max_samples: int = MAX_SAMPLES, max_servers: int = MAX_SERVERS) -> None:
        self._samples: deque[Sample] = deque(maxlen=max_samples)
        self._max_servers = max_servers

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, at_s: float, servers: Sequence[Mapping[str, Any]] | None) -> None:
        """Add a sample from the `servers` of the broker's status; `None` if the broker did not answer."""
        usage = None
        if servers is not None:
            usage = {
                server["name"]: Usage(server["processes"], server["rss_bytes"])
                for server in servers[: self._max_servers]
            }
        self._samples.append(Sample(at_s, usage))

    def series(self, may_see: Callable[[str], bool]) -> dict[str, list[float] | list[int | None]]:
        """Return the sums over the servers that `may_see` admits, one column for each axis of the plot."""
        times: list[float] = []
        processes: list[int | None] = []
        memory: list[int | None] = []
        for at_s, servers in self._samples:
            seen = None if servers is None else [one for name, one in servers.items() if may_see(name)]
            times.append(round(at_s, 1))
            processes.append(None if seen is None else sum(one.processes for one in seen))
            memory.append(None if seen is None else sum(one.rss_bytes for one in seen))
        return {"at_s": times, "processes": processes, "rss_bytes": memory}
