"""Work that is too long for one step of the core: one step begins it, and later steps go on with it.

A step runs without a pause, and nobody else has a turn meanwhile. So work on thousands of calls or clients,
or on a message of many megabytes, is a job: a generator that yields after each small piece. Between two
pieces anything may happen to the job's subject, so a job looks again at what it finds before it acts on it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Literal, TypeVar

from msgspec import Struct

PIECES = 128
"""Pieces of work in one step. One takes about 50 µs, most of it to mask secrets in the end of a call."""

Job = Iterator[None]

HeavyJob = Iterator[int]
"""Yields after each of its pieces how many usual ones take as long."""

JobKind = Literal[
    "died", "expire", "line", "list", "news", "pump", "refuse", "release", "requests", "rests", "sift"
]

Result = TypeVar("Result")


def result_of(work: Generator[int, None, Result]) -> Result:
    """Do all pieces of some work at once, where nobody waits for a turn; return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Result = end.value
            return result


class JobKey(Struct, frozen=True):
    """Identifies a job: its kind, the server or the connection that it is about, and its detail.

    The kind is a field of its own, so a server may have the name of a kind.
    """

    kind: JobKind
    server: str | None = None
    connection: bytes | None = None
    detail: int | str | None = None


class Backlog:
    """The unfinished jobs, in the order of their turns."""

    def __init__(self) -> None:
        self._jobs: dict[JobKey, Job | HeavyJob] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, key: JobKey) -> bool:
        return key in self._jobs

    def begin(self, key: JobKey, job: Job | HeavyJob) -> None:
        """Do the first pieces of a job now. An unfinished one with the same key does for both."""
        if key not in self._jobs:
            self._do(key, job, PIECES)

    def leave(self, key: JobKey, job: Job | HeavyJob) -> None:
        """Leave a job for the next step. An unfinished one with the same key does for both."""
        if key not in self._jobs:
            self._jobs[key] = job

    def drop(self, key: JobKey) -> bool:
        """Forget a job, whose subject is gone; return whether it was unfinished."""
        return self._jobs.pop(key, None) is not None

    def go_on(self) -> None:
        """Do the next pieces: each job gets its share of the step, or its turn in a later one."""
        left, share = PIECES, max(1, PIECES // max(1, len(self._jobs)))
        for key in list(self._jobs):
            if left > 0:
                left -= self._do(key, self._jobs.pop(key), share)

    def finish(self, server: str) -> None:
        """Do all that is left about a server, which is about to be forgotten."""
        while about_it := [key for key in self._jobs if key.server == server]:
            for key in about_it:
                self._do(key, self._jobs.pop(key), PIECES)

    def is_busy(self, server: str) -> bool:
        """Return whether something is left to do about a server."""
        return bool(self._jobs) and any(key.server == server for key in self._jobs)

    def _do(self, key: JobKey, job: Job | HeavyJob, pieces: int) -> int:
        """Do so many pieces of a job; return how many it took."""
        done = 0
        while done < pieces:
            took = next(job, self)
            if took is self:
                return done
            done += took if isinstance(took, int) else 1
        self._jobs[key] = job
        return done
