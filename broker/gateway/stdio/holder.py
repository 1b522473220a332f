"""Holds a host's conversation in the process of `connect`, where no gateway listens."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from selectors import PollSelector

from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.effects import FinishRequest, SendMessage
from broker.gateway.conversation.session import Session
from broker.gateway.stdio.relay import PAUSE_BYTES, WRITE_BYTES, HostGone, Relay, TooLong, read_of
from broker.gateway.stdio.sockets import MAX_WAITING_BYTES

LAST_S = 0.1
"""How long the cancellation of what is open may take once the host is gone."""


class Holder:
    """The conversation of the host of a relay, and its pipes in an event loop."""

    def __init__(self, relay: Relay, server: str, endpoint: str | None, stdin: int, stdout: int) -> None:
        self._state = relay.state
        self._lines = relay.host_lines
        self._to_host = relay.to_host
        self._unsent = list(relay.to_gateway)
        self._stdin, self._stdout = stdin, stdout
        self._session = Session(server, self._deliver, name="connect", endpoint=endpoint)
        self._gone = asyncio.Event()
        self._failure: TooLong | None = None

    async def run(self) -> None:
        """Serve the host until it is gone.

        Raises:
            TooLong: it sent a message that is not passed on.
        """
        loop = asyncio.get_running_loop()
        self._session.stream_opened()
        for line in [*self._state.replay(self._unsent), *self._unsent]:
            self._session.received(jsonrpc.read(line))
        self._guarded(self._start_reading)
        if stat.S_ISFIFO(os.fstat(self._stdout).st_mode):  # of which nothing is ever read but that it broke
            loop.add_reader(self._stdout, self._gone.set)
        self._flush_later()
        await self._gone.wait()
        for fd in (self._stdin, self._stdout):
            loop.remove_reader(fd)
            loop.remove_writer(fd)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._session.aclose(), LAST_S)
        if self._failure is not None:
            raise self._failure

    def _start_reading(self) -> None:
        asyncio.get_running_loop().add_reader(self._stdin, self._guarded, self._read)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (HostGone, OSError):
            self._gone.set()
        except TooLong as error:
            self._failure = error
            self._gone.set()

    def _read(self) -> None:
        for line in self._lines.feed(read_of(self._stdin)):
            if line is None:
                raise TooLong
            self._state.from_host(line)
            self._session.received(jsonrpc.read(line))

    def _deliver(self, effect: SendMessage | FinishRequest) -> None:
        if isinstance(effect, SendMessage):
            for line in self._state.from_gateway(effect.message):
                self._to_host += line + b"\n"
            self._flush_later()
            if len(self._to_host) > MAX_WAITING_BYTES:
                self._gone.set()

    def _flush_later(self) -> None:
        loop = asyncio.get_running_loop()
        if self._to_host:
            self._guarded(lambda: loop.add_writer(self._stdout, self._guarded, self._write))
        if len(self._to_host) > PAUSE_BYTES:
            loop.remove_reader(self._stdin)

    def _write(self) -> None:
        with memoryview(self._to_host) as view:
            size = os.write(self._stdout, view[:WRITE_BYTES])
        del self._to_host[:size]
        loop = asyncio.get_running_loop()
        if not self._to_host:
            loop.remove_writer(self._stdout)
        if len(self._to_host) < PAUSE_BYTES:
            self._start_reading()


def hold(relay: Relay, server: str, endpoint: str | None, stdin: int, stdout: int) -> int:
    """Hold the conversation of a relay until its host is gone; return the exit status."""

    async def serve() -> None:
        await Holder(relay, server, endpoint, stdin, stdout).run()

    loop = asyncio.SelectorEventLoop(PollSelector())  # epoll(7) takes no files, such as a log of stdout
    try:
        loop.run_until_complete(serve())
    finally:
        loop.close()
    return 0
