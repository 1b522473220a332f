"""A reload that fails by a fault of the broker's own, or of the file system's."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from broker.hub import Hub
from broker.management import reload as module
from broker.management.reload import Reloader, ReloadOutcome
from broker.service.systemd import ServiceManager
from tests.core.world import ready


class Told(ServiceManager):
    """A service manager that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def ready(self) -> None:
        self.words.append("ready")

    def reloading(self) -> None:
        self.words.append("reloading")


def reloading(manager: ServiceManager) -> Reloader:
    """One without servers to look after."""
    world, nothing = ready(), cast(Any, None)
    return Reloader(Hub(world.engine), nothing, Path("broker.toml"), nothing, manager)


def test_a_reload_that_fails_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 5: a server has taken every thread there is, say. Nobody is left waiting for the end of it."""

    async def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
    manager = Told()

    async def twice() -> None:
        reloader = reloading(manager)
        await reloader.hangup()
        await reloader.hangup()

    trio.run(twice)
    assert [record.message for record in caplog.records] == ["config.failed"] * 2
    assert manager.words == ["reloading", "ready"] * 2


def test_a_file_system_that_hangs_holds_no_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laws 5 and 10: it is told, also to the next who asks, and one thread waits for it at most."""
    goes_on, readers = threading.Event(), []

    def hang(*_: object) -> None:
        readers.append(threading.get_ident())
        goes_on.wait()

    monkeypatch.setattr(module, "read", hang)
    monkeypatch.setattr(module, "READ_S", 0.05)
    manager = Told()

    async def twice() -> list[object]:
        reloader = reloading(manager)
        return [await reloader.reload("SIGHUP"), await reloader.reload("SIGHUP")]

    try:
        outcomes = trio.run(twice)
    finally:
        goes_on.set()
    for outcome in outcomes:
        assert isinstance(outcome, ReloadOutcome)
        assert "broker.toml: it could not be read within 0.05 s" in outcome.problems[0]
    assert len(readers) == 1
    assert manager.words == ["reloading", "ready"] * 2
