"""Faults of the broker's own: which of them are one server's affair, and which are everybody's."""

from __future__ import annotations

from collections.abc import Iterator
from traceback import walk_tb

from broker import hub

HUB = hub.__name__


def came_through(fault: BaseException, module: str) -> bool:
    """Whether it, or one that is grouped in it, was raised in what this module does or calls.

    It is read from the traceback, so that what passes without a fault, as every line of every server does,
    pays nothing for it.
    """
    frames = (frame for leaf in _leaves(fault) for frame, _ in walk_tb(leaf.__traceback__))
    return any(frame.f_globals.get("__name__") == module for frame in frames)


def _leaves(fault: BaseException) -> Iterator[BaseException]:
    yield fault
    for one in getattr(fault, "exceptions", ()):
        yield from _leaves(one)
