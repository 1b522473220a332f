"""A client without an event loop, for commands and scripts: one connection, one call at a time.

It starts fast: no asyncio, and nothing of the asyncio client.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any

import zmq

from client_shim import __version__, payload
from client_shim.endpoint import default_endpoint, probe
from client_shim.errors import ClientClosed
from client_shim.events import Asked, Ended, Event, Lost, Progressed
from client_shim.link import FAREWELL_MS, Link
from client_shim.state import ClientState, Phase
from client_shim.wire import WANTS_PROGRESS

OnProgress = Callable[[float, "float | None", "str | None"], object]
_CHANNEL = 1


class BlockingClient:
    """Talk to the broker from ordinary code::

        with BlockingClient() as broker:
            print(broker.request("$broker", "status"))

    Args:
        endpoint: where the broker listens; `default_endpoint` where it is not given.
        timeout_s: the deadline of a call that is given none; `None` leaves it to the broker.
        hello_timeout_s: how long the broker may take to greet.
        name: what the broker calls this client in its `status`.

    Entering raises `Unavailable`: `NoBroker`, `NotAllowed`, `BrokerSilent`, `WrongWireVersion`, …
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        timeout_s: float | None = None,
        hello_timeout_s: float = 5.0,
        name: str = "mcp-broker",
    ) -> None:
        self.endpoint = endpoint or default_endpoint()
        self.timeout_s = timeout_s
        self._hello_timeout_s = hello_timeout_s
        self._who = {"name": name, "version": __version__, "pid": os.getpid()}
        self._link: Link | None = None

    def __enter__(self) -> BlockingClient:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def broker_version(self) -> str:
        """The version of the broker that answered the greeting."""
        return self._open_link().state.broker_version

    def connect(self) -> None:
        """Connect, greet and be welcomed; nothing happens where that is done already."""
        if self._link is not None and self._link.state.phase is Phase.OPEN:
            return
        self.close()
        probe(self.endpoint)
        state = ClientState(self._who, monotonic(), hello_timeout_s=self._hello_timeout_s)
        self._link = Link(self.endpoint, state)
        self._link.flush()
        while state.phase is not Phase.OPEN:
            for event in self._wait(self._link):
                if isinstance(event, Lost):
                    self.close()
                    raise event.error

    def close(self) -> None:
        """Say goodbye and close. Closing twice is fine."""
        link, self._link = self._link, None
        if link is not None:
            link.state.close("closed")
            link.flush()
            link.close(FAREWELL_MS)

    def request(
        self,
        server: str,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Any:
        """Make a call and wait for its end; the result as plain data.

        Raises:
            CallError: the broker or the server ended it with an error.
            Unavailable: the connection was lost meanwhile.
        """
        ask = payload.ask(
            server,
            method,
            params,
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            flags=WANTS_PROGRESS if on_progress is not None else 0,
            meta=meta,
        )
        link = self._open_link()
        id = link.state.request(_CHANNEL, ask, monotonic())
        return payload.decode(ask.subject, self._await(link, id, on_progress))

    def _open_link(self) -> Link:
        if self._link is None:
            raise ClientClosed("this client is not connected", hint="use it in a `with`, or call connect()")
        if self._link.state.phase is Phase.ENDED:
            self.connect()
        return self._link

    def _await(self, link: Link, id: int, on_progress: OnProgress | None) -> bytes:
        link.flush()
        try:
            while True:
                for event in self._wait(link):
                    if isinstance(event, Ended):
                        return _bytes_of(event)
                    if isinstance(event, Progressed) and on_progress is not None:
                        _report(event, on_progress)
        finally:
            link.state.cancel(id, "interrupted")  # does nothing where it has ended
            link.flush()

    def _wait(self, link: Link) -> list[Event]:
        """Wait until something happens, or is overdue."""
        if not link.has_work():
            self._poll(link)
        events = link.receive()
        if not link.has_work():
            events += link.state.expire(monotonic())
        for event in events:
            if isinstance(event, Asked):
                link.state.refuse(event)
        return events

    def _poll(self, link: Link) -> None:
        poller, deadline = zmq.Poller(), link.state.next_deadline()
        socket, monitor = link.sockets
        poller.register(socket, zmq.POLLIN if link.state.next_message() is None else zmq.POLLIN | zmq.POLLOUT)
        poller.register(monitor, zmq.POLLIN)
        poller.poll(None if deadline is None else max(0, int((deadline - monotonic()) * 1000) + 1))


def _bytes_of(ended: Ended) -> bytes:
    if isinstance(ended.outcome, bytes):
        return ended.outcome
    raise ended.outcome


def _report(progressed: Progressed, on_progress: OnProgress) -> None:
    if (progress := payload.progress(progressed.body)) is not None:
        on_progress(*progress)
