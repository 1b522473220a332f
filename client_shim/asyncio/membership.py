"""The seat of a client object: its channel in the connection of the running loop, wherever that is now."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from client_shim import log
from client_shim.asyncio.call import OnLog, OnProgress
from client_shim.asyncio.channel import LIST_CHANGED, NOT_SUBSCRIBED, UPDATED, Channel, Listener, Wants
from client_shim.asyncio.connection import Connection
from client_shim.asyncio.pool import registry
from client_shim.errors import BrokerError, ClientClosed, InvalidReply, Unavailable, from_fault
from client_shim.protocol import payload, reasons
from client_shim.protocol.payload import Ask
from client_shim.text import shown
from client_shim.transport.endpoint import default_endpoint, probe
from client_shim.version import __version__

OnListChanged = Callable[[str, str], object]
OnResourceUpdated = Callable[[str, str], object]
OnNotification = Callable[[str, str, Any], object]


class Joined(NamedTuple):
    """A channel, and the connection that it is one of."""

    connection: Connection
    channel: Channel


class Seat:
    """Joins where that is needed, calls, listens, and leaves.

    The connection holds no client: a seat that nobody holds any more is released when it is collected.

    Args:
        name: what the broker's `status` calls this program.
        endpoint: where the broker listens, `None` for `default_endpoint`, looked up when it is needed.
        hello_timeout_s: how long a broker may take to greet.
        reconnect_s: how long a call waits for a broker that was there and is gone.
        on_list_changed, on_resource_updated, on_notification: what hears of it; see `BrokerClient`.
    """

    def __init__(
        self,
        name: str,
        endpoint: str | None,
        hello_timeout_s: float,
        reconnect_s: float,
        on_list_changed: OnListChanged | None,
        on_resource_updated: OnResourceUpdated | None,
        on_notification: OnNotification | None,
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self._hello_timeout_s = hello_timeout_s
        self._reconnect_s = reconnect_s
        self._on_list_changed = on_list_changed
        self._on_resource_updated = on_resource_updated
        self._on_notification = on_notification
        self._wants = Wants(lists=on_list_changed is not None or on_notification is not None)
        self._joined: Joined | None = None
        self._release: weakref.finalize[Any, Any] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return "closed" if self._closed else repr(self._joined and self._joined.connection)

    @property
    def connected(self) -> bool:
        """Whether a call could be sent this moment."""
        joined = self._joined
        return joined is not None and joined.connection.is_ours and joined.connection.is_open

    def close(self) -> None:
        """Release what it holds; its calls end, and it is not used again."""
        self._closed = True
        self._leave("closed")

    async def call(
        self, ask: Ask, on_progress: OnProgress | None = None, on_log: OnLog | None = None
    ) -> bytes:
        """Make a call, connecting where that is needed; its result, or the error that it ends in.

        A call that its broker has not begun, because it ends or was lost, is made again at the next one.
        """
        loop = asyncio.get_running_loop()
        expires = None if ask.timeout_s is None else loop.time() + ask.timeout_s
        while True:
            connection, channel = await self.join(ask.timeout_s, ask)
            if expires is not None:
                ask = ask._replace(timeout_s=max(expires - loop.time(), 0.001))
            call = connection.call(channel, ask)
            try:
                return await call.follow(on_progress, on_log)
            except BrokerError as error:
                if not reasons.is_for_the_next(error):
                    raise
                connection.count("kept for the next broker")
            finally:
                connection.drop(call, "cancelled by the caller")
            if expires is not None:
                ask = ask._replace(timeout_s=expires - loop.time())

    async def subscribe(self, server: str, uri: str, wanted: bool, timeout_s: float | None) -> None:
        """Hear of a resource from now on, or no longer. One change at a time: each says all of it.

        Raises:
            UnknownServer, MethodRefused: this server cannot be heard. What else is listened to is kept.
        """
        _, channel = await self.join(timeout_s)
        async with channel.changing:
            change = frozenset({(server, uri)})
            before = self._wants.resources
            wants = self._wants._replace(resources=before | change if wanted else before - change)
            result = await self.call(wants.ask(timeout_s))
            refusal = payload.not_subscribed(result, server) if wanted else None
            if refusal is not None:
                await self.call(self._wants.ask(timeout_s))  # the broker has kept the wish
                raise from_fault(refusal)
            self._wants = wants
            if self._joined is not None:
                self._joined.channel.wants, self._joined.channel.listened = wants, True

    async def join(self, timeout_s: float | None, ask: Ask | None = None) -> Joined:
        """Return the channel, with an open connection, for `ask` if a call is to be made.

        Raises:
            Unavailable: there is no connection to be had in time.
            Busy: too many calls wait for one already.
        """
        joined = self._sit_down()
        connection, channel = joined
        if connection.is_open:
            return joined
        if connection.loop.time() - connection.lost_at > self._reconnect_s:
            probe(connection.endpoint)  # not every call has to wait again for a broker that stays away
        patience_s = self._reconnect_s if connection.came_up else self._reconnect_s + self._hello_timeout_s
        expires = None if timeout_s is None else connection.loop.time() + timeout_s
        try:
            await connection.ready(channel, patience_s, expires, ask)
        except Unavailable:
            if not connection.came_up and self._joined is joined:
                self._leave("no broker")  # so that the next try looks for the endpoint again
            raise
        return joined

    def _sit_down(self) -> Joined:
        """The channel in the running loop of this process."""
        if self._closed:
            raise ClientClosed(f"the client {self.name!r} was closed", hint="make another one")
        loop = asyncio.get_running_loop()
        if self._joined is not None and self._joined.connection.is_ours:
            if self._joined.connection.loop is loop:
                return self._joined
            if not self._joined.connection.loop.is_closed():
                raise RuntimeError(
                    f"the client {self.name!r} belongs to another event loop; make one for each loop"
                )
        who = {"name": self.name, "version": __version__, "pid": os.getpid()}
        endpoint = self._endpoint or default_endpoint()
        connection = registry().connection(loop, endpoint, who, self._hello_timeout_s)
        channel = connection.join(_listener(self), self._wants)
        self._joined = joined = Joined(connection, channel)
        if self._release is not None:  # of a loop that has ended, or of the parent process
            self._release.detach()
        self._release = weakref.finalize(self, connection.leave_soon, channel, "forgotten")
        self._release.atexit = False
        return joined

    def _leave(self, reason: str) -> None:
        joined, self._joined = self._joined, None
        if self._release is not None:
            self._release.detach()
        if joined is None:
            return
        connection, channel = joined
        try:
            here = asyncio.get_running_loop() is connection.loop
        except RuntimeError:
            here = False
        leave = connection.leave if here else connection.leave_soon
        leave(channel, reason)

    def _hear(self, server: str, method: str, body: bytes) -> None:
        try:
            params = payload.decode(f"`{method}` of server {server!r}", body)
        except InvalidReply as error:
            log.warn(str(error))
            return
        if method in LIST_CHANGED:
            self._tell(self._on_list_changed, server, LIST_CHANGED[method])
        elif method == UPDATED and isinstance(params, dict) and isinstance(params.get("uri"), str):
            self._tell(self._on_resource_updated, server, params["uri"])
        elif method == NOT_SUBSCRIBED and isinstance(params, dict):
            log.warn(_not_told_of(server, params.get("uri"), params.get("reason")))
        self._tell(self._on_notification, server, method, params)

    def _tell(self, callback: Callable[..., object] | None, *news: Any) -> None:
        if callback is None:
            return
        try:
            callback(*news)
        except Exception as error:
            log.warn(f"the notification callback of {self.name!r} failed: {error}", error)


def _not_told_of(server: str, uri: object, reason: object) -> str:
    what = "its lists" if uri is None else f"the resource {shown(uri, 200)}"
    why = reason if isinstance(reason, str) else shown(reason)
    return f"the broker does not tell of changes of server {server!r}, {what}: {why:.400}"


def _listener(seat: Seat) -> Callable[[], Listener | None]:
    """The connection must not keep its seats alive: that is how it learns that one was forgotten."""
    method = weakref.WeakMethod(seat._hear)
    return lambda: method()
