"""The event loop of the gateway is shared: who does much at once waits for itself, not the others (law 5)."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from broker.gateway.conversation.jsonrpc import Incoming
from broker.gateway.conversation.session import Session
from broker.gateway.http.turns import EXCHANGES_A_TURN, LoopTurns
from broker.gateway.stdio.sockets import LINES_A_TURN, LinesProtocol


async def _begin(turns: LoopTurns, holder: str, begun: list[str]) -> None:
    """Begin an exchange of a client, `HOLDER/CLIENT`."""
    name, _, client = holder.partition("/")
    if not turns.begin(name):
        await turns.wait(name, client)
    begun.append(holder)


@pytest.mark.parametrize("many", [1, 10, 200])
def test_a_holder_who_begins_much_waits_for_itself(many: int) -> None:
    async def play() -> list[str]:
        turns, begun = LoopTurns(), list[str]()
        flood = [asyncio.create_task(_begin(turns, "flood", begun)) for _ in range(many)]
        await asyncio.sleep(0)
        await asyncio.gather(*flood, *(asyncio.create_task(_begin(turns, "good", begun)) for _ in range(3)))
        return begun

    begun = asyncio.run(play())
    assert len(begun) == many + 3
    assert [at for at, one in enumerate(begun) if one == "good"][-1] < 2 * (EXCHANGES_A_TURN + 3)


@pytest.mark.parametrize("holders", [2, 3])
def test_holders_who_are_there_at_once_have_short_turns(
    holders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each begins one exchange, then the next one does: a call goes through several turns of the loop."""
    monkeypatch.setattr("broker.gateway.http.turns.SHARED_S", 3600.0)
    names = [f"holder {number}" for number in range(holders)]

    async def play() -> list[str]:
        turns, begun = LoopTurns(), list[str]()
        for name in names:  # they were there lately
            turns.begin(name)
        await asyncio.sleep(0.001)
        tasks = [asyncio.create_task(_begin(turns, name, begun)) for name in names for _ in range(50)]
        await asyncio.wait(tasks, timeout=30)
        return begun

    assert asyncio.run(play()) == names * 50


def test_a_scrape_shortens_nobodys_turns() -> None:
    """It is no other holder that the exchanges of the one would have to let in between."""

    async def play() -> int:
        turns = LoopTurns()
        for holder in ("alone", "", "alone"):
            assert turns.begin(holder)
        await asyncio.sleep(0)
        return [turns.begin("alone") for _ in range(2 * EXCHANGES_A_TURN)].index(False)

    assert asyncio.run(play()) == EXCHANGES_A_TURN


@pytest.mark.parametrize("sessions", [1, 3])
def test_the_clients_of_one_holder_go_in_turn(sessions: int) -> None:
    """One that sends little waits for one exchange of each other client, in every turn."""
    names = [f"holder/flood {number}" for number in range(sessions)]

    async def play() -> list[str]:
        turns, begun = LoopTurns(), list[str]()
        tasks = [asyncio.create_task(_begin(turns, name, begun)) for name in names for _ in range(100)]
        tasks += [asyncio.create_task(_begin(turns, "holder/good", begun)) for _ in range(3)]
        await asyncio.wait(tasks, timeout=30)
        return begun

    begun = asyncio.run(play())
    assert len(begun) == 100 * sessions + 3
    assert [at for at, one in enumerate(begun) if one == "holder/good"][-1] < EXCHANGES_A_TURN + 3 * (
        sessions + 1
    )


def test_an_exchange_that_is_cancelled_takes_no_turn() -> None:
    async def play() -> list[str]:
        turns, begun = LoopTurns(), list[str]()
        tasks = [asyncio.create_task(_begin(turns, "flood", begun)) for _ in range(EXCHANGES_A_TURN + 5)]
        await asyncio.sleep(0)
        for task in tasks[EXCHANGES_A_TURN : EXCHANGES_A_TURN + 3]:
            task.cancel()
        await asyncio.wait(tasks, timeout=30)
        return begun

    assert asyncio.run(play()) == ["flood"] * (EXCHANGES_A_TURN + 2)


class _Session:
    def __init__(self) -> None:
        self.got: list[Incoming] = []

    def received(self, message: Incoming) -> None:
        self.got.append(message)


class _Transport:
    is_paused = False

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


@pytest.mark.parametrize("pauses", [False, True])
@pytest.mark.parametrize("lines", [1, 3, 4, 5, 100])
def test_the_lines_of_a_client_are_taken_some_in_a_turn(lines: int, pauses: bool) -> None:
    """All of them, in order; a client that does not read waits with the rest."""

    async def play() -> list[int]:
        session, transport, sizes = _Session(), _Transport(), list[int]()
        client = LinesProtocol(lambda who, deliver: cast(Session, session), lambda _: None)
        client._transport = cast(asyncio.Transport, transport)
        client._session = cast(Session, session)
        client.data_received(
            b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n' % n for n in range(lines)) + b'{"jsonrpc"'
        )
        sizes.append(len(session.got))
        if pauses:
            client.pause_writing()
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(session.got) <= 2 * LINES_A_TURN  # one turn was on its way
            sizes.append(len(session.got))
            client.resume_writing()
            client.resume_writing()
        while transport.is_paused:
            await asyncio.sleep(0)
            sizes.append(len(session.got))
        client.data_received(b':"2.0","id":"last","method":"ping"}\n')
        assert [one.id for one in session.got] == [b"%d" % n for n in range(lines)] + [b'"last"']  # type: ignore[union-attr]
        return sizes

    sizes = asyncio.run(play())
    assert max(after - before for before, after in zip([0, *sizes], sizes, strict=False)) <= LINES_A_TURN
