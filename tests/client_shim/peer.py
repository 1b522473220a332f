"""The other end of a client: a ROUTER that a test moves by hand, to do what no good broker would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import zmq

from client_shim import wire
from client_shim.asyncio.connection import BrokerConnection
from client_shim.asyncio.pool import connection_pool

PATIENCE_S = 10
LIMITS = {"max_message_bytes": 1_000_000, "credit_bytes": 1_000_000}
T = TypeVar("T")
P = TypeVar("P", bound="Peer")


class Heard(NamedTuple):
    """A message of a client: on which connection, and what."""

    who: bytes
    message: Any
    body: bytes | None


class Peer:
    """A bound ROUTER. Leaving the `with` closes it, as the death of a broker would."""

    def __init__(self, endpoint: str, instance: str = "i1") -> None:
        self.instance = instance
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.LINGER, 2000)
        self._router.setsockopt(zmq.IPV6, "[" in endpoint)
        self._configure()
        self._router.bind(endpoint)
        self.endpoint = str(self._router.getsockopt_string(zmq.LAST_ENDPOINT))
        """Where it listens, with the port that it has got."""

    def _configure(self) -> None:
        """Set further options."""

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End, when all that was said has left."""
        self._router.close()
        self._context.term()

    def send(self, who: bytes, message: wire.Message, body: bytes | None = None) -> None:
        """Say something to a client."""
        header = wire.encode(message)
        self._router.send_multipart([who, header] if body is None else [who, header, body])

    def reaches(self, who: bytes) -> bool:
        """Whether this connection still stands."""
        try:
            self.send(who, wire.Fault(0, 0, "ping", "are you there?", {}))
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True

    def welcome(self, who: bytes) -> None:
        """Answer a hello."""
        self.send(who, wire.Welcome(0, 0, self.instance, "0", LIMITS))

    def result(self, heard: Heard, body: bytes = b"{}") -> None:
        """Answer a request."""
        self.send(heard.who, wire.Result(heard.message.channel, heard.message.id), body)

    def has_mail(self) -> bool:
        """Whether a message is there."""
        return bool(self._router.poll(0))

    def receive(self) -> Heard:
        """The next message, for a peer in a thread of its own."""
        assert self._router.poll(PATIENCE_S * 1000), "the client says nothing"
        return self._take()

    async def heard(self) -> Heard:
        """The next message, for a peer in the loop of its client."""
        await until(lambda: bool(self._router.poll(0)))
        return self._take()

    async def greet(self) -> bytes:
        """Take a hello and answer it; the connection."""
        who, message, _ = await self.heard()
        assert isinstance(message, wire.Hello), message
        self.welcome(who)
        return who

    def _take(self) -> Heard:
        who, header, *body = self._router.recv_multipart()
        return Heard(who, wire.decode(header), body[0] if body else None)


def connections_of(owner: asyncio.AbstractEventLoop | str | None = None) -> list[BrokerConnection]:
    """Return the shim's connections of one loop, or to one endpoint; by default of the running loop.

    What other tests of this process have left is not counted.
    """
    owner = owner or asyncio.get_running_loop()
    return [one for one in connection_pool().connections if owner in (one.loop, one.endpoint)]


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that nobody tells."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.001)


async def while_greeting(peer: Peer, work: Awaitable[object]) -> bytes:
    """Do something that makes a connection; the connection, as the peer knows it."""
    task = asyncio.ensure_future(work)
    who = await peer.greet()
    await task
    return who


def run(main: Coroutine[Any, Any, T], new_loop: Callable[[], asyncio.AbstractEventLoop]) -> T:
    """`asyncio.run`, on any kind of loop and with an end."""
    loop = new_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(main, 4 * PATIENCE_S))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
