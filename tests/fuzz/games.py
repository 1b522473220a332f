"""The fuzz as parts of the soak: games of the pure parts by seed, and the heaviest single messages.

`python -m tests.fuzz.games core 4711` plays one game again, with its traceback.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Protocol

from tests.fuzz.broker_game import BrokerGame
from tests.fuzz.heavy import GROWTH, SHAPES, STEP_S, cost, resident_bytes
from tests.fuzz.shim_game import ShimGame
from tests.soak.ground import FLAT_MIB, MIB, Line, Progress

FIRST_SEED = int(os.environ.get("FUZZ_SEED", "0"))


class Game(Protocol):
    """One game; `inputs` counts the odd messages in it."""

    inputs: int

    def play(self) -> None:
        """The whole of it."""


GAMES: dict[str, Callable[[int], Game]] = {"core": BrokerGame, "shim": ShimGame}


def core(count: int, progress: Progress) -> list[Line]:
    """Odd servers and odd clients against the broker's core."""
    return _play("core", count, progress)


def shim(count: int, progress: Progress) -> list[Line]:
    """An odd broker against the shim's automaton."""
    return _play("shim", count, progress)


def _play(name: str, count: int, progress: Progress) -> list[Line]:
    inputs = failed = half_bytes = 0
    for done in range(count):
        game = GAMES[name](FIRST_SEED + done)
        try:
            game.play()
        except Exception as fault:
            failed += 1
            again = f"python -m tests.fuzz.games {name} {FIRST_SEED + done}"
            print(f"  {type(fault).__name__}: {fault}; to play it again: {again}")
        inputs += game.inputs
        if done == count // 2:
            half_bytes = _settled_bytes()
        progress(done + 1)
    grown_mib = round(max(0, _settled_bytes() - half_bytes) / MIB, 2)
    return [
        Line("fuzz.inputs", inputs),
        Line("fuzz.failed", failed, 0),
        Line("fuzz.memory", grown_mib, FLAT_MIB, "MiB"),
    ]


def heavy(size_bytes: int, progress: Progress) -> list[Line]:
    """Each of the heaviest messages at this size."""
    gc.freeze()  # the collector runs before each message, and need not look at the rest of this process
    try:
        return _heaviest(size_bytes, progress)
    finally:
        gc.unfreeze()


def _heaviest(size_bytes: int, progress: Progress) -> list[Line]:
    longest_s = growth = 0.0
    slow = 0
    for done, (name, shape) in enumerate(SHAPES.items(), 1):
        took = cost(shape, size_bytes)
        if took.seconds > STEP_S or took.growth > GROWTH:
            print(f"  {name}: {took.seconds * 1000:.0f} ms, {took.growth:.1f} times its size")
        slow += took.seconds > STEP_S
        longest_s, growth = max(longest_s, took.seconds), max(growth, took.growth)
        progress(size_bytes * done // len(SHAPES))
    return [
        Line("fuzz.shapes", len(SHAPES)),
        Line("fuzz.slow-shapes", slow, 0, timed=True),
        Line("fuzz.longest-step", round(longest_s * 1000, 1), STEP_S * 1000, "ms", timed=True),
        Line("fuzz.growth", round(growth, 2), GROWTH),
    ]


def _settled_bytes() -> int:
    gc.collect()
    return resident_bytes()


if __name__ == "__main__":
    GAMES[sys.argv[1]](int(sys.argv[2])).play()
