"""Shares the event loop among the holders of tokens (law 5)."""

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
    """Lets each holder begin some exchanges in a turn of the event loop; the rest waits, in order.

    Without it, the exchanges of many connections that are ready at once would all be served before the next
    client's.
    """

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        """holder → exchanges that it has begun in this turn"""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._last: str | None = None
        """The holder who came last."""
        self._shared_until = 0.0
        """Until when several holders are there, by the loop's clock."""

    async def take(self, holder: str) -> None:
        """Wait for a turn of this holder."""
        loop = asyncio.get_running_loop()
        if holder != self._last:
            if self._last is not None:
                self._shared_until = loop.time() + SHARED_S
            self._last = holder
        begun = self._begun.get(holder, 0)
        if begun < self._most(loop):
            if not self._begun:
                loop.call_soon(self._next)
            self._begun[holder] = begun + 1
            return
        turn = loop.create_future()
        self._waiting.setdefault(holder, deque()).append(turn)
        await turn

    def _most(self, loop: asyncio.AbstractEventLoop) -> int:
        """How many exchanges each holder may begin in this turn."""
        return SHARED_A_TURN if loop.time() < self._shared_until else EXCHANGES_A_TURN

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        most = self._most(loop)
        self._begun.clear()
        for holder, waiting in list(self._waiting.items()):
            begun = 0
            while waiting and begun < most:
                if not (turn := waiting.popleft()).done():  # else its exchange was cancelled
                    turn.set_result(None)
                    begun += 1
            if begun:
                self._begun[holder] = begun
            if not waiting:
                del self._waiting[holder]
        if self._begun:
            loop.call_soon(self._next)
