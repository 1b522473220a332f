"""Tells whether a fault of the broker itself concerns one server or all of them."""

from __future__ import annotations

from collections.abc import Iterator
from traceback import walk_tb

from broker import hub

HUB = hub.__name__


def came_through(fault: BaseException, module: str) -> bool:
    """Return whether the fault, or one in its group, was raised by a call through this module.

    The traceback tells. A type of its own for such faults would need a handler at every door of the hub, on
    the path of every line.
    """
    frames = (frame for leaf in _leaves(fault) for frame, _ in walk_tb(leaf.__traceback__))
    return any(frame.f_globals.get("__name__") == module for frame in frames)


def _leaves(fault: BaseException) -> Iterator[BaseException]:
    yield fault
    for one in getattr(fault, "exceptions", ()):
        yield from _leaves(one)
