"""Legacy sessions in memory: what is over is freed."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Iterator, MutableMapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.gateway.byte_budget import ByteBudget
from broker.gateway.conversation.client_session import ClientSession
from broker.gateway.conversation.effects import SendMessage
from broker.gateway.conversation.jsonrpc import ClientResponse
from broker.gateway.http.app import HttpDoor
from broker.gateway.http.catalogue import ServerNames
from broker.gateway.http.legacy_session import LegacySession
from broker.gateway.http.legacy_sessions import LegacySessions
from broker.gateway.http.page.view import PAGE
from broker.gateway.http.state import StateFolder
from broker.gateway.http.turns import LoopTurns
from broker.gateway.settings import GatewayLimits, Settings
from broker.gateway.tokens import LOCAL
from tests.client_shim.peer import until


@pytest.mark.parametrize("deleted", [True, False])
def test_the_memory_of_sessions_that_are_over_does_not_wait_for_the_collector(
    tmp_path: Path, deleted: bool
) -> None:
    """Law 6: the gateway lets the collector run seldom, and a session refers to itself."""

    async def run(sessions: LegacySessions) -> None:
        now = asyncio.get_running_loop().time()
        over = [weakref.ref(_kept(sessions, now)) for _ in range(3)]
        if deleted:
            for ref in over:
                await sessions.end(LOCAL, _of(ref), time.time())
        sessions.sweep(now + 3600)
        await until(lambda: not sessions._closing)  # those that were put away now end
        sessions.sweep(now + 3601)
        assert [ref() for ref in over] == [None] * 3
        await sessions.aclose()

    with closing(StateFolder.open(tmp_path / "state", 3600, time.time())) as state:
        sessions = LegacySessions(state, GatewayLimits(), ByteBudget(1, 1), f"ipc://{tmp_path}/no.sock")
        gc.disable()
        try:
            asyncio.run(run(sessions))
        finally:
            gc.enable()


@pytest.mark.parametrize("path", ["/metrics", "/healthz", PAGE])
def test_figures_without_a_token_take_a_turn_and_no_look_at_each_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Law 5: whoever reaches the port can ask for them without end."""
    holders: list[str] = []
    sent: list[MutableMapping[str, Any]] = []

    def begin(_: LoopTurns, holder: str) -> bool:
        holders.append(holder)
        return True

    def looked(_: LegacySessions) -> Iterator[LegacySession]:
        raise AssertionError("it looks at each session")

    async def names(_: ServerNames) -> list[str]:
        return ["one"]

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def run(state: StateFolder) -> None:
        door = HttpDoor(Settings(), state)
        connection = SimpleNamespace(answer=lambda *_: False, on_lost=None)
        told = {"needs_token": True, "connection": connection}
        asked = {"type": "http", "method": "GET", "raw_path": path.encode(), "state": told}
        await door({**asked, "headers": [(b"host", b"localhost")]}, receive, send)

    monkeypatch.setattr(LoopTurns, "begin", begin)
    monkeypatch.setattr(LegacySessions, "__iter__", looked)
    monkeypatch.setattr(ServerNames, "names", names)
    with closing(StateFolder.open(tmp_path / "state", 3600, time.time())) as state:
        asyncio.run(run(state))
    assert ([event["status"] for event in sent[:1]], holders) == ([200], [""])


def test_what_was_of_no_use_is_counted_also_once_its_session_is_over(tmp_path: Path) -> None:
    """Law 9; a counter never goes back."""

    async def run(sessions: LegacySessions) -> None:
        session = _kept(sessions, asyncio.get_running_loop().time())
        session.tell(ClientResponse(b"1", b"{}", None))
        session.deliver(SendMessage(b"{}"))
        counted = {"stray answer": 1, "nobody listens": 1}
        assert sessions.dropped == counted
        await sessions.end(LOCAL, session, time.time())
        assert sessions.dropped == counted
        await sessions.aclose()

    with closing(StateFolder.open(tmp_path / "state", 3600, time.time())) as state:
        sessions = LegacySessions(state, GatewayLimits(), ByteBudget(1, 1), f"ipc://{tmp_path}/no.sock")
        asyncio.run(run(sessions))


def _kept(sessions: LegacySessions, now: float) -> LegacySession:
    session = sessions.begin(LOCAL, "one", now, time.time())
    session.session.conversation.session = ClientSession("2025-11-25", {}, {})
    sessions.keep(LOCAL, session)
    return session


def _of(ref: weakref.ref[LegacySession]) -> LegacySession:
    found = ref()
    assert found is not None
    return found
