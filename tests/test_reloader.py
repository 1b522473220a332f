"""A reload that fails by a fault of the broker's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import trio

from broker.hub import Hub
from broker.notify import Manager
from broker.reloader import Reloader
from tests.core.world import ready


class Told(Manager):
    """A service manager that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def ready(self) -> None:
        self.words.append("ready")

    def reloading(self) -> None:
        self.words.append("reloading")


def test_a_reload_that_fails_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 5: a server has taken every thread there is, say. Nobody is left waiting for the end of it."""

    async def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
    world, manager = ready(), Told()

    async def twice() -> None:
        hub = Hub(world.config, world.mux)
        nothing = cast(Any, None)
        reloader = Reloader(hub, nothing, Path("broker.toml"), nothing, manager)
        await reloader.hangup()
        await reloader.hangup()

    trio.run(twice)
    assert [record.message for record in caplog.records] == ["config.failed"] * 2
    assert manager.words == ["reloading", "ready"] * 2
