"""Legacy sessions in memory: what is over is freed."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from contextlib import closing
from pathlib import Path

import pytest

from broker.gateway.byte_budget import ByteBudget
from broker.gateway.conversation.client_session import ClientSession
from broker.gateway.http.legacy_session import LegacySession
from broker.gateway.http.legacy_sessions import LegacySessions
from broker.gateway.http.state import StateFolder
from broker.gateway.settings import GatewayLimits
from broker.gateway.tokens import LOCAL


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
        await asyncio.sleep(0.01)  # those that were put away now end
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


def _kept(sessions: LegacySessions, now: float) -> LegacySession:
    session = sessions.begin(LOCAL, "one", now, time.time())
    session.session.conversation.session = ClientSession("2025-11-25", {}, {})
    sessions.keep(LOCAL, session)
    return session


def _of(ref: weakref.ref[LegacySession]) -> LegacySession:
    found = ref()
    assert found is not None
    return found
