"""The keeper of the catalogues: what it writes and when, and a disk that fails or hangs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from broker.config.schema import ServerConfig
from broker.core.mcp.methods import Era
from broker.core.servers.kept import KeptCatalogue, keep
from broker.hub import Hub
from broker.upstream.catalogue_files import NotKeptError
from broker.upstream.catalogue_keeper import FLUSH_S, LOOK_S, TRY_AGAIN_S, CatalogueKeeper
from tests.core.world import World, ready

Write = tuple[str, list[str], Era | None]


class Files:
    """The files: what was written, and a disk that may be full."""

    def __init__(self, found: dict[str, KeptCatalogue] | None = None) -> None:
        self.writes: list[Write] = []
        self.tries = 0
        self.full = False
        self._found = found or {}

    def load(self, configs: dict[str, ServerConfig]) -> dict[str, KeptCatalogue]:
        """What an earlier broker kept."""
        return self._found

    def write(self, config: ServerConfig, kept: KeptCatalogue) -> None:
        """Write, or refuse."""
        self.tries += 1
        if self.full:
            raise NotKeptError("No space left on device")
        tools = kept.lists.get("tools/list")
        self.writes.append((config.name, list(tools.items) if tools else [], kept.era))


def kept_by(
    world: World, files: Files, *steps: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the keeper look after each of these steps; the time between them does not pass in earnest."""

    async def at_once(what: Callable[..., object], *arguments: object, **_: object) -> None:
        what(*arguments)

    async def main() -> None:
        keeper = CatalogueKeeper(Hub(world.engine), cast(Any, files))
        keeper.restore()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            await trio.sleep(LOOK_S / 2)
            for step in steps:
                step()
                await trio.sleep(LOOK_S)
            nursery.cancel_scope.cancel()

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_catalogue_is_written_when_it_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for all that changes between two looks, and never again while it stays the same."""
    world, files = World(), Files()
    steps = (lambda: None, world.start, lambda: None, lambda: None)
    kept_by(world, files, *steps, monkeypatch=monkeypatch)
    assert files.writes == [("time", ["echo"], Era.LEGACY)]


def test_a_change_of_a_running_server_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """`list_changed`: the next broker has the new list."""
    world, files = World(), Files()
    world.scripts["time"].capabilities = {"tools": {"listChanged": True}}

    def change() -> None:
        world.scripts["time"].lists["tools/list"] = ["new"]
        world.processes["time"].tell("tools/list_changed")

    kept_by(world, files, world.start, change, monkeypatch=monkeypatch)
    assert [tools for _, tools, _ in files.writes] == [["echo"], ["new"]]


def test_what_was_restored_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a process has said since."""
    server = ready().engine.servers["time"]
    assert server.catalogue is not None
    world, files = World(), Files({"time": keep(server.catalogue, Era.LEGACY)})
    kept_by(world, files, lambda: None, monkeypatch=monkeypatch)
    assert (files.writes, world.engine.servers["time"].remembered) == ([], Era.LEGACY)


def test_an_era_that_failed_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next broker probes."""
    server = ready().engine.servers["time"]
    assert server.catalogue is not None
    world, files = World(), Files({"time": keep(server.catalogue, Era.LEGACY)})
    world.scripts["time"].mute = {"initialize", "server/discover"}
    kept_by(world, files, world.start, world.exit, monkeypatch=monkeypatch)
    assert files.writes == [("time", ["echo"], None)]


def test_the_lists_of_another_program_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reload the old process may go on for a while, and the config names the next one."""
    world, files = ready(), Files()
    world.engine.servers["time"].outdated = True
    kept_by(world, files, lambda: None, monkeypatch=monkeypatch)
    assert files.writes == []


def test_a_full_disk_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 9: one line, not one at every look; then it is kept after all."""
    world, files = ready(), Files()
    files.full = True

    def room() -> None:
        files.full = False

    looks = int(2 * TRY_AGAIN_S / LOOK_S)
    with caplog.at_level(logging.WARNING, "mcp-broker"):
        kept_by(world, files, *[lambda: None] * looks, room, *[lambda: None] * looks, monkeypatch=monkeypatch)
    (record,) = caplog.records
    assert (record.message, vars(record)["server"]) == ("catalogue.not_kept", "time")
    assert "No space left" in vars(record)["reason"]
    assert 2 <= files.tries <= 4
    assert files.writes == [("time", ["echo"], Era.LEGACY)]


def test_a_disk_that_hangs_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law on steps: neither the loop waits for it, nor the end of the broker."""
    entered, released = threading.Event(), threading.Event()
    world = ready()

    class Hanging(Files):
        def write(self, config: ServerConfig, kept: KeptCatalogue) -> None:
            entered.set()
            released.wait()

    async def main() -> None:
        keeper = CatalogueKeeper(Hub(world.engine), cast(Any, Hanging()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            with trio.fail_after(60):
                while not entered.is_set():
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    monkeypatch.setattr("broker.upstream.catalogue_keeper.LOOK_S", 0.001)
    try:
        trio.run(main)
        assert not released.is_set()
    finally:
        released.set()


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_the_end_of_the_broker_writes_the_last_change(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has changed since the last look is kept too, after the write that is under way, also where that
    look has passed it."""
    under_way, changed = list(names)
    world, files = World({"a": {}, "b": {}}), Files()

    async def slowly(what: Callable[..., object], *arguments: Any, **_: object) -> None:
        await trio.sleep(FLUSH_S / 2 if arguments[0].name == under_way else 0)
        what(*arguments)

    async def main() -> None:
        keeper = CatalogueKeeper(Hub(world.engine), cast(Any, files))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            world.start(under_way)
            await trio.sleep(LOOK_S + FLUSH_S / 8)
            world.start(changed)
            await keeper.flush()
            nursery.cancel_scope.cancel()

    monkeypatch.setattr(trio.to_thread, "run_sync", slowly)
    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert [name for name, _, _ in files.writes] == [under_way, changed]


def test_a_disk_that_hangs_holds_up_the_end_for_a_second(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of the broker is bounded, and the log says what was not kept."""

    async def hang(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        keeper = CatalogueKeeper(Hub(ready().engine), cast(Any, Files()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            began = trio.current_time()
            await keeper.flush()
            assert trio.current_time() == began + FLUSH_S
            nursery.cancel_scope.cancel()

    monkeypatch.setattr(trio.to_thread, "run_sync", hang)
    with caplog.at_level(logging.WARNING, "mcp-broker"):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert [record.message for record in caplog.records] == ["catalogues.not_flushed"]
