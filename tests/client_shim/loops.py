"""The kinds of event loop that the shim runs on."""

from __future__ import annotations

import asyncio
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

NewLoop = Callable[[], asyncio.AbstractEventLoop]


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, as that of Windows (Proactor) cannot."""

    def add_reader(self, *_: object) -> None:
        """Raise what Proactor's does."""
        raise NotImplementedError

    def remove_reader(self, *_: object) -> bool:
        """Raise what Proactor's does."""
        raise NotImplementedError


LOOPS: dict[str, NewLoop] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "no add_reader": LoopWithoutReaders,
}

WITHOUT_READERS = """
import asyncio
from asyncio.selector_events import BaseSelectorEventLoop
def not_there(*_): raise NotImplementedError
BaseSelectorEventLoop.add_reader = BaseSelectorEventLoop.remove_reader = not_there
"""
"""The same for all loops of a program, which begins with this."""


@contextmanager
def all_without_readers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same for all loops of this process."""

    def not_there(*_: Any) -> None:
        raise NotImplementedError

    with monkeypatch.context() as patch:
        patch.setattr(BaseSelectorEventLoop, "add_reader", not_there)
        patch.setattr(BaseSelectorEventLoop, "remove_reader", not_there)
        yield
