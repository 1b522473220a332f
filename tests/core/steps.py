"""How much one step of the core does: the longest of them, counted and not timed.

A step runs without a pause, so everybody waits for it. Its calls of Python's and of
built-in functions are counted: a count is the same on every machine and under every load, a time is not.
What one built-in call costs, such as the decoding of a large line, does not show in it; `longest_step`
times that.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from broker.core.effects import Effect
from tests.core.world import World

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tests.core.world import Arguments

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


def longest_step(
    world: World, event: Callable[[Unpack[Arguments], float], object], *arguments: Unpack[Arguments]
) -> tuple[float, list[Effect]]:
    """Return the processor seconds of the longest step of an event, and the effects of all its steps."""
    gc.collect()
    longest, effects = _timed(lambda: world.step(event, *arguments))
    while world.engine.backlog:
        seconds, more = _timed(lambda: world.step(world.engine.tick))
        longest, effects = max(longest, seconds), effects + more
    return longest, effects


def _timed(step: Callable[[], list[Effect]]) -> tuple[float, list[Effect]]:
    start = time.thread_time()
    effects = step()
    return time.thread_time() - start, effects
