"""The broker is killed at any moment, and started again: never two processes of a server, none left."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path

from tests.e2e.harness import wait_until
from tests.faults.stage import marked
from tests.servers.faulty import MARK
from tests.soak.ground import Line, Progress, beside, counted, faulty

LONGEST_S = 1.2
"""The latest moment after a start; the servers are ready long before, on an idle machine."""

DESCENDANTS = {"alone": (), "child": ("child",), "setsid": ("setsid",), "double": ("double_fork",)}
"""Servers, and what each of them leaves behind at its start."""


def run(count: int, progress: Progress) -> list[Line]:
    """`count` SIGKILLs to the broker, at random moments between its start and its servers' calm."""
    dice = random.Random(count)
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(name)
        records = {server: folder / server for server in DESCENDANTS}
        marks = {server: f"{server}-{os.getpid()}" for server in DESCENDANTS}
        servers = {
            server: with_flags(
                faulty(records[server], env={MARK: marks[server]}, protocol="legacy"), descendants
            )
            for server, descendants in DESCENDANTS.items()
        }
        not_back = 0
        with counted(servers, folder) as broker:
            whole = trees(marks)
            for number in range(count):
                broker.stop(signal.SIGKILL)
                broker.start()
                if number % 5 == 4:  # now and then it comes to rest, and everything is there once
                    broker.wait_ready()
                    not_back += not came_to(marks, whole)
                else:
                    time.sleep(dice.uniform(0, LONGEST_S))
                progress(number + 1)
            broker.wait_ready()
        left = sum(trees(marks).values())
        return [
            Line("two-at-once", sum(beside(record) for record in records.values()), 0),
            Line("kills.not-whole-again", not_back, 0),
            Line("kills.left", left, 0),
        ]


def with_flags(table: dict[str, object], descendants: tuple[str, ...]) -> dict[str, object]:
    """The server, leaving these at its start."""
    args = table["args"]
    assert isinstance(args, list)
    return {**table, "args": [*args, *(f"--fork-at-start={how}" for how in descendants)]}


def trees(marks: dict[str, str]) -> dict[str, int]:
    """How many processes each server has, whoever started them."""
    return {server: len(marked(mark)) for server, mark in marks.items()}


def came_to(marks: dict[str, str], whole: dict[str, int]) -> bool:
    """Whether there was once exactly one tree of each."""
    try:
        wait_until(lambda: trees(marks) == whole)
    except AssertionError:
        return False
    return True
