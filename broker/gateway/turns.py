"""Shares the event loop among the holders of tokens (law 5)."""

from __future__ import annotations

import asyncio
from collections import deque

EXCHANGES_A_TURN = 8
"""The exchanges that a holder may begin in one turn of the loop: about 2 ms of the gateway's time."""


class LoopTurns:
    """Lets each holder begin some exchanges in a turn of the event loop; the rest waits, in order.

    Without it, the exchanges of many connections that are ready at once would all be served before the next
    client's.
    """

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        """holder → exchanges that it has begun in this turn"""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, holder: str) -> None:
        """Wait for a turn of this holder."""
        begun = self._begun.get(holder, 0)
        if begun < EXCHANGES_A_TURN:
            if not self._begun:
                asyncio.get_running_loop().call_soon(self._next)
            self._begun[holder] = begun + 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(holder, deque()).append(turn)
        await turn

    def _next(self) -> None:
        self._begun.clear()
        for holder, waiting in list(self._waiting.items()):
            begun = 0
            while waiting and begun < EXCHANGES_A_TURN:
                if not (turn := waiting.popleft()).done():  # else its exchange was cancelled
                    turn.set_result(None)
                    begun += 1
            if begun:
                self._begun[holder] = begun
            if not waiting:
                del self._waiting[holder]
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next)
