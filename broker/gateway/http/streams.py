"""The stream of messages that answers one HTTP request, or that a legacy client listens to.

Messages go in at once and never wait for the client; a writer takes them out as the client reads. What waits
is bounded: a client that does not keep up has its stream cut.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from broker.gateway.byte_budget import Share
from broker.gateway.http import sse

Edit = Callable[[bytes], bytes]


class Stream:
    """The messages of one request, or of a GET.

    Args:
        request: the id of the request that it answers, as JSON; empty for a GET stream.
        limit_bytes: what may wait for the client.
        replay: keeps events for a legacy client that comes back.
        edit: changes each message before it is sent.
        share: counts the bytes that wait for the client, or are on the way to it.

    Attributes:
        status: the HTTP status that a stream of one message gets.
        is_finished: whether the last message is there.
        is_cut: whether the client read too slowly.
    """

    def __init__(
        self,
        request: bytes,
        limit_bytes: int,
        replay: sse.Replay | None = None,
        edit: Edit | None = None,
        share: Share | None = None,
    ) -> None:
        self._edit = edit
        self.request = request
        self.replay = replay
        self.status = 200
        self.is_finished = False
        self.is_cut = False
        self.is_begun = False
        """Whether events were sent, so that a client can know the id of one."""
        self._reader = 0
        self._is_lost = False
        self._left_s: float | None = None
        self._on_cut: Callable[[], None] | None = None
        self._limit_bytes = limit_bytes
        self._share = share
        self._request_bytes = self._sending_bytes = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._again: list[bytes] = []
        self._wake = asyncio.Event()
        self._is_silent = True
        self._comment_due = False

    def add(self, message: bytes) -> None:
        """Add a message. One that finds the client away is kept for it, or dropped if it cannot come back."""
        if self._edit is not None:
            message = self._edit(message)
        if self.is_cut or self._left_s is not None:
            self._keep(message)
            return
        is_slow = self._waiting and self._waiting_bytes + len(message) > self._limit_bytes
        if is_slow or (self._share is not None and self._share.take(len(message))):
            self.cut()
            self._keep(message)
            return
        self._waiting.append(message)
        self._waiting_bytes += len(message)
        self._wake.set()

    def _keep(self, *messages: bytes) -> None:
        if self.replay is not None and self.is_begun:
            for message in messages:
                self.replay.add(message)

    def finish(self) -> None:
        """The last message is there."""
        self.is_finished = True
        self._give(self._request_bytes)
        self._request_bytes = 0
        self._wake.set()

    def hold(self, size: int) -> None:
        """The request has so many bytes, which are held until its last message is there."""
        self._request_bytes += size
        if self.is_finished:
            self.finish()

    def _give(self, size: int) -> None:
        if self._share is not None and size:
            self._share.give(size)

    def sent(self) -> None:
        """The client has read what was taken."""
        self._give(self._sending_bytes)
        self._sending_bytes = 0

    def cut(self) -> None:
        """End the connection: the client does not keep up, or there is no room for what is sent to it."""
        self.is_cut = True
        self._put_away()
        if self._on_cut is not None:
            self._on_cut()

    def _put_away(self) -> None:
        """Keep what waits for the replay."""
        self._keep(*self._waiting)
        self._take_waiting()
        self.sent()
        self._again.clear()
        self._wake.set()

    # -- who reads it -----------------------------------------------------------------------------------

    def attach(self, on_cut: Callable[[], None]) -> int:
        """A client reads it from now on; one that read it before no longer does.

        Args:
            on_cut: ends the client's connection.

        Returns:
            The number of this reader, for `lost`, `is_read_by` and `leave`.
        """
        before, self._on_cut = self._on_cut, on_cut
        if before is not None:
            before()
        self._reader += 1
        self._is_lost = self.is_cut = False
        self._left_s = None
        return self._reader

    def lost(self, reader: int) -> None:
        """The connection of a reader is gone."""
        if reader == self._reader:
            self._is_lost = True
        self._wake.set()

    def is_read_by(self, reader: int) -> bool:
        """Return whether this reader is there and keeps up."""
        return reader == self._reader and not self._is_lost and not self.is_cut

    def leave(self, reader: int, now: float) -> None:
        """A reader has ended. What comes from now on waits in the replay."""
        if reader == self._reader:
            self._left_s = now
            self._on_cut = None
            self._put_away()

    def come_back(self, number: int) -> bool:
        """Send again what a client has not seen that has the events up to this number.

        Return whether that is possible: an answer that was too large to keep cannot be sent again.
        """
        assert self.replay is not None
        self._put_away()
        self._again = self.replay.after(number)
        return not (self.is_finished and self.replay.lacks_end(number))

    @property
    def is_read(self) -> bool:
        """Whether somebody reads it."""
        return self._left_s is None

    def away_s(self, now: float) -> float:
        """Return for how many seconds nobody has read it; 0 while somebody does."""
        return 0.0 if self._left_s is None else now - self._left_s

    # -- what the writer takes --------------------------------------------------------------------------

    async def something(self, within_s: float | None = None) -> None:
        """Wait until there is a message or an end, or until that time is over."""
        if within_s is None:
            await self._wake.wait()
            return
        timer = asyncio.get_running_loop().call_later(within_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def only_message(self) -> bytes | None:
        """Take the one message that a finished stream has, if it has exactly one and no event was sent."""
        if self.is_finished and not self.is_begun and len(self._waiting) == 1:
            return self._take_waiting()[0]
        return None

    def _take_waiting(self) -> list[bytes]:
        messages = list(self._waiting)
        self._sending_bytes += self._waiting_bytes
        self._waiting.clear()
        self._waiting_bytes = 0
        return messages

    def take(self) -> bytes:
        """Take all that waits, as events."""
        self.is_begun = True
        self._wake.clear()
        events = self._again
        self._again = []
        make = sse.event if self.replay is None else self.replay.add
        events += [make(message) for message in self._take_waiting()]
        if events:
            self._is_silent = False
        elif self._comment_due:
            events.append(sse.COMMENT)
        self._comment_due = False
        return b"".join(events)

    @property
    def has_more(self) -> bool:
        """Whether there is something to take, or may be later."""
        return not self.is_finished or bool(self._waiting) or bool(self._again)

    def tick(self) -> None:
        """Every 15 s: send a comment where nothing was sent since the last time."""
        self._comment_due, self._is_silent = self._is_silent, True
        if self._comment_due and self.is_begun:
            self._wake.set()
