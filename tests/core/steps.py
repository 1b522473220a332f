"""How much one step of the core does: the longest of them, counted and not timed.

A step runs without a pause, so everybody waits for it. Its calls of Python's and of
built-in functions are counted: a count is the same on every machine and under every load, a time is not.
What one built-in call costs, such as the decoding of a large line, does not show in it; `cpu_s` times that.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.core.world import World

CALLS_A_STEP = 100_000
"""No step makes more. With what it does, one takes about 0.1 µs: together that is a fifth of `LONGEST_S`."""

LONGEST_S = 0.05
"""No step takes longer (law 5)."""


class Counted:
    """Counts the steps of a world's engine.

    Args:
        world: what is looked at from now on.
    """

    def __init__(self, world: World) -> None:
        self.most = 0
        """The calls of the longest step."""
        self.steps = 0
        world.step = self._counted(world.step)  # type: ignore[assignment,method-assign]

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            made = 0

            def count(frame: object, event: str, arg: object) -> None:
                nonlocal made
                made += event in ("call", "c_call")

            before = sys.getprofile()
            sys.setprofile(count)
            try:
                return step(*args)
            finally:
                sys.setprofile(before)
                self.most, self.steps = max(self.most, made), self.steps + 1

        return run


def cpu_s(work: Callable[[], object], times: int = 3) -> float:
    """The processor time that it takes, in seconds: the least of several times, as others disturb it."""
    took = []
    gc.collect()
    for _ in range(times):
        start = time.thread_time()
        work()
        took.append(time.thread_time() - start)
    return min(took)
