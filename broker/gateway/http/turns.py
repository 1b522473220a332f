"""Shares the event loop among the holders of tokens, and among the clients of each (law 5)."""

from __future__ import annotations

import asyncio
from collections import deque

EXCHANGES_A_TURN = 8
"""The exchanges that a holder may begin in one turn of the loop while no other one is there."""

SHARED_A_TURN = 1
"""The same while there are others: a call goes through four turns, and each has to be short. It costs the
holder who floods a fifth of its throughput."""

SHARED_S = 1.0
"""How long a holder counts as there after it began an exchange."""


class LoopTurns:
    """Lets each holder begin some exchanges in a turn of the event loop; the rest waits.

    Without it, the exchanges of many connections that are ready at once would all be served before the next
    client's. The holders have their turns side by side. Of one holder, the clients go in turn, and the
    exchanges of a client in order: so a session that sends much waits for itself, and a holder gains nothing
    by many sessions.
    """

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        """holder → exchanges that it has begun in this turn"""
        self._waiting: dict[str, dict[str, deque[asyncio.Future[None]]]] = {}
        """holder → client → what waits for a turn; the client that is next comes first"""
        self._last: str | None = None
        """The holder who came last."""
        self._shared_until = 0.0
        """Until when several holders are there, by the loop's clock."""

    def begin(self, holder: str) -> bool:
        """Return whether this holder may begin an exchange now. It is counted; else `wait` for a turn.

        Exchanges without a token (of the holder "") are few, as a scrape is: they shorten nobody's turns.
        """
        loop = asyncio.get_running_loop()
        if holder not in ("", self._last):
            if self._last is not None:
                self._shared_until = loop.time() + SHARED_S
            self._last = holder
        begun = self._begun.get(holder, 0)
        if begun >= self._most(loop):
            return False
        if not self._begun:
            loop.call_soon(self._next)
        self._begun[holder] = begun + 1
        return True

    async def wait(self, holder: str, client: str) -> None:
        """Wait for a turn of this holder's client."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(holder, {}).setdefault(client, deque()).append(turn)
        await turn

    def _most(self, loop: asyncio.AbstractEventLoop) -> int:
        """How many exchanges each holder may begin in this turn."""
        return SHARED_A_TURN if loop.time() < self._shared_until else EXCHANGES_A_TURN

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        most = self._most(loop)
        self._begun.clear()
        for holder, clients in list(self._waiting.items()):
            if begun := _begin_some(clients, most):
                self._begun[holder] = begun
            if not clients:
                del self._waiting[holder]
        if self._begun:
            loop.call_soon(self._next)


def _begin_some(clients: dict[str, deque[asyncio.Future[None]]], most: int) -> int:
    """Begin so many exchanges of a holder, of each client in turn. Return how many there were."""
    begun = 0
    while clients and begun < most:
        client = next(iter(clients))
        waiting = clients.pop(client)
        turn = waiting.popleft()
        if waiting:
            clients[client] = waiting
        if not turn.done():  # else its exchange was cancelled
            turn.set_result(None)
            begun += 1
    return begun
