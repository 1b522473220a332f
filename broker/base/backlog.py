"""Work that is too long for one step of the core: one step begins it, and later steps go on with it.

A step runs without a pause, and nobody else has a turn meanwhile. So what may concern thousands of calls or
clients is a job: a generator that yields after each small piece. Between two pieces anything may happen to
what the job is about, so a job looks again at what it finds before it acts on it.
"""

from __future__ import annotations

from collections.abc import Iterator

PIECES = 128
"""Pieces of work in one step. One takes about 50 µs, most of it to mask secrets in what a call ends with."""

Job = Iterator[None]
Key = tuple[object, ...]
"""What a job does, and what it is about: a server's name, if it is about one."""


class Backlog:
    """The jobs that are not finished."""

    def __init__(self) -> None:
        self._jobs: dict[Key, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, key: Key) -> bool:
        return key in self._jobs

    def begin(self, key: Key, job: Job) -> None:
        """Do the first pieces of a job now. An unfinished one with the same key does for both."""
        if key not in self._jobs:
            self._do(key, job, PIECES)

    def leave(self, key: Key, job: Job) -> None:
        """Leave a job for the next step. An unfinished one with the same key does for both."""
        if key not in self._jobs:
            self._jobs[key] = job

    def go_on(self) -> None:
        """Do the next pieces: each job gets its share of the step."""
        share = max(1, PIECES // max(1, len(self._jobs)))
        for key in list(self._jobs):
            self._do(key, self._jobs.pop(key), share)

    def finish(self, about: str) -> None:
        """Do all that is left about a server: it is about to be forgotten."""
        while about_it := [key for key in self._jobs if about in key]:
            for key in about_it:
                self._do(key, self._jobs.pop(key), PIECES)

    def is_busy(self, about: str) -> bool:
        """Whether something is left to do about a server."""
        return bool(self._jobs) and any(about in key for key in self._jobs)

    def _do(self, key: Key, job: Job, pieces: int) -> None:
        for _ in range(pieces):
            if next(job, self) is self:
                return
        self._jobs[key] = job
