"""The kinds of event loop that the shim runs on.

`make loop-test` runs the tests of the shim over the last kind only: PYTHONPATH has WITHOUT_READERS from the
start, for all loops of the tests and of the programs that they start. In `make test` the fixture `loops` does
so for single tests.
"""

from __future__ import annotations

import asyncio
import os
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

NewLoop = Callable[[], asyncio.AbstractEventLoop]

WITHOUT_READERS = Path(__file__).parent / "without_add_reader"
"""Python programs that have this folder in PYTHONPATH have no other loops."""


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, as that of Windows (Proactor) cannot."""

    def add_reader(self, *_: object) -> None:
        """Raise what Proactor's loop raises."""
        raise NotImplementedError

    def remove_reader(self, *_: object) -> bool:
        """Raise what Proactor's loop raises."""
        raise NotImplementedError


def python_path(*folders: Path | str) -> str:
    """Return a PYTHONPATH of these folders for a program that shall have the loops of this test."""
    loops = [str(WITHOUT_READERS)] if programs_are_without_readers() else []
    return os.pathsep.join([*map(str, folders), *loops])


def programs_are_without_readers() -> bool:
    """Return whether the loops of the programs that this test starts have no `add_reader`."""
    return str(WITHOUT_READERS) in os.environ.get("PYTHONPATH", "").split(os.pathsep)


@contextmanager
def all_without_readers() -> Iterator[None]:
    """Take `add_reader` from the loops of this process, and of the programs that it starts meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("add_reader", "remove_reader"):
            patch.setattr(BaseSelectorEventLoop, name, getattr(LoopWithoutReaders, name))
        patch.setenv("PYTHONPATH", str(WITHOUT_READERS), prepend=os.pathsep)
        yield


LOOPS: dict[str, NewLoop] = {"no add_reader": LoopWithoutReaders}
if not programs_are_without_readers():
    LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop, **LOOPS}
