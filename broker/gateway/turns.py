"""Shares the event loop among the holders of tokens (law 5)."""

from __future__ import annotations

import asyncio
from collections import deque


class LoopTurns:
    """Lets each holder begin one exchange in a turn of the event loop; the rest waits, in order.

    Without it, the exchanges of many connections that are ready at once would all be served before the next
    client's.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """holder → what waits; a holder without anything that waits has had its turn."""

    async def take(self, holder: str) -> None:
        """Wait for a turn of this holder."""
        loop = asyncio.get_running_loop()
        if (waiting := self._waiting.get(holder)) is not None:
            turn = loop.create_future()
            waiting.append(turn)
            await turn
            return
        if not self._waiting:
            loop.call_soon(self._next)
        self._waiting[holder] = deque()

    def _next(self) -> None:
        for holder, waiting in list(self._waiting.items()):
            while waiting and waiting[0].done():  # its exchange was cancelled
                waiting.popleft()
            if waiting:
                waiting.popleft().set_result(None)
            else:
                del self._waiting[holder]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
