"""The channels of clients of 2026-07-28: shared while they are used, kept for a moment, bounded, released.

Guards the laws "no residue" and "bounded".
"""

from __future__ import annotations

import asyncio

import pytest

from broker.gateway.http import channels
from broker.gateway.http.channels import Channels

NOBODY = "ipc:///nonexistent/broker.sock"


def test_requests_of_one_client_share_a_channel_and_the_next_one_reuses_it() -> None:
    async def run() -> None:
        made = Channels(NOBODY, 1.0)
        with made.channel(("token", "host")) as first, made.channel(("token", "host")) as second:
            assert first is second
            with made.channel(("token", "other")) as third:
                assert third is not first
        with made.channel(("token", "host")) as again:
            assert again is first
        await made.aclose()
        assert len(made) == 0

    asyncio.run(run())


def test_a_channel_that_nobody_uses_is_released_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "KEPT_S", 0.01)

    async def run() -> None:
        made = Channels(NOBODY, 1.0)
        with made.channel(("token", "host")):
            await asyncio.sleep(0.05)
            assert len(made) == 1, "it was released while it was used"
        while len(made):
            await asyncio.sleep(0.005)
        await made.aclose()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_client_that_changes_its_name_with_each_request_fills_no_memory() -> None:
    async def run() -> None:
        made = Channels(NOBODY, 1.0)
        for number in range(channels.MOST_KEPT + 50):
            with made.channel(("token", f"host {number}")):
                pass
        assert len(made) == channels.MOST_KEPT
        await made.aclose()
        assert len(made) == 0

    asyncio.run(run())
