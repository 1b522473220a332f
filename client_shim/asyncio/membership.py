"""The membership of a client object: its channel in the connection of the running loop."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from client_shim import log
from client_shim.asyncio.call import OnRaw
from client_shim.asyncio.channel import LIST_CHANGED, NOT_SUBSCRIBED, UPDATED, Channel, ListenSet
from client_shim.asyncio.connection import BrokerConnection
from client_shim.asyncio.pool import connection_pool
from client_shim.errors import (
    BrokerError,
    BrokerLost,
    CallError,
    ClientClosed,
    InvalidReply,
    ShuttingDown,
    from_fault,
)
from client_shim.keys import Keys, keys_source
from client_shim.protocol import payload, reasons
from client_shim.protocol.backoff import NEVER
from client_shim.protocol.payload import PreparedRequest
from client_shim.questions import OnRawQuestion
from client_shim.text import shown
from client_shim.transport.address import BrokerAddress
from client_shim.transport.endpoint import default_endpoint, may_block
from client_shim.version import __version__

OnListChanged = Callable[[str, str], object]
OnResourceUpdated = Callable[[str, str], object]
OnNotification = Callable[[str, str, Any], object]
OnRawNotification = Callable[[str, str, bytes], object]
OnConnection = Callable[[bool], object]


class Callbacks(NamedTuple):
    """The callbacks of a client object; `BrokerClient` describes each."""

    on_list_changed: OnListChanged | None = None
    on_resource_updated: OnResourceUpdated | None = None
    on_notification: OnNotification | None = None
    on_raw_notification: OnRawNotification | None = None
    on_connection: OnConnection | None = None

    @property
    def listens_to_lists(self) -> bool:
        """Whether one of them makes the client listen to the lists of all servers."""
        return self.on_list_changed is not None or self.on_notification is not None

    @property
    def is_decoded(self) -> bool:
        """Whether params must be decoded: for a callback, or for the log if there is no raw callback."""
        decoded = (self.on_list_changed, self.on_resource_updated, self.on_notification)
        return self.on_raw_notification is None or any(callback is not None for callback in decoded)


class Joined(NamedTuple):
    """A channel and its connection."""

    connection: BrokerConnection
    channel: Channel


class Membership:
    """Joins a connection when one is needed, makes calls, listens, and leaves.

    The connection keeps no reference to it: one that nothing else refers to is released when it is collected.

    Args:
        name: the name of this program in the broker's `status`.
        endpoint: where the broker listens; `None`: `default_endpoint`, looked up when it is needed.
        keys: the keys for ``tcp://``, or their file; `None`: the file that `MCP_BROKER_KEYS` names.
        hello_timeout_s: how long a broker may take to answer the hello.
        reconnect_s: how long a call waits for a broker that is gone or not there yet.
        connection: the name of the connection that it shares with other clients.
    """

    def __init__(
        self,
        name: str,
        endpoint: str | None,
        keys: Keys | None,
        hello_timeout_s: float,
        reconnect_s: float,
        callbacks: Callbacks,
        connection: str = "",
    ) -> None:
        self.name = name
        self._connection_name = connection
        self._endpoint, self._keys = endpoint, keys
        self._hello_timeout_s = hello_timeout_s
        self._reconnect_s = reconnect_s
        self._callbacks = callbacks
        self._listen_set = ListenSet(servers=None if callbacks.listens_to_lists else frozenset())
        self._joined: Joined | None = None
        self._release: weakref.finalize[Any, Any] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return "closed" if self._closed else repr(self._joined and self._joined.connection)

    @property
    def connected(self) -> bool:
        """Whether a call could be sent now."""
        joined = self._joined
        return joined is not None and joined.connection.is_ours and joined.connection.is_open

    def close(self) -> None:
        """Release everything that it holds; its calls end."""
        self._closed = True
        self._leave("closed")

    async def connect(self, timeout_s: float | None) -> None:
        """Connect now.

        Raises:
            Unavailable: there is no broker, or a lost one is not back in time.
        """
        await self._join(_expires(timeout_s), only_try=True)

    async def call(
        self,
        request: PreparedRequest,
        on_progress: OnRaw | None = None,
        on_log: OnRaw | None = None,
        on_question: OnRawQuestion | None = None,
    ) -> bytes:
        """Make a call, and connect first if that is needed; return its result, or raise its error.

        A call that the broker has not begun before it ended is made again at the next broker. So is, once, a
        call that only reads. A call whose server has had an answer to a question is never made again.
        """
        now = asyncio.get_running_loop().time
        expires = NEVER if request.timeout_s is None else now() + request.timeout_s
        was_lost = False
        while True:
            connection, channel = await self._join(expires, request)
            if expires < NEVER:
                request = request._replace(timeout_s=max(expires - now(), 0.001))
            call = connection.call(channel, request, on_question)
            try:
                return await call.follow(on_progress, on_log)
            except BrokerError as error:
                if call.was_answered:
                    raise
                if not reasons.is_for_the_next(error):
                    if was_lost or not (request.only_reads and isinstance(error, (BrokerLost, ShuttingDown))):
                        raise
                    was_lost = True
                connection.count("kept for the next broker")
            finally:
                connection.drop(call, "cancelled by the caller")

    async def listen(self, listen_set: ListenSet, timeout_s: float | None) -> dict[str, CallError]:
        """Replace what it listens to; return the servers that cannot be heard for now, with the reasons."""
        _, channel = await self._join(_expires(timeout_s))
        async with channel.changing:
            refused = await self._listen(listen_set, timeout_s)
            self._keep(listen_set)
            return refused

    async def subscribe(self, server: str, uri: str, wanted: bool, timeout_s: float | None) -> None:
        """Add a resource to what it listens to, or remove it.

        Raises:
            UnknownServer, MethodRefused: this server cannot be heard; nothing changes.
        """
        _, channel = await self._join(_expires(timeout_s))
        async with channel.changing:
            before, change = self._listen_set, frozenset({(server, uri)})
            resources = before.resources | change if wanted else before.resources - change
            listen_set = before._replace(resources=resources)
            refused = await self._listen(listen_set, timeout_s)
            if wanted and server in refused:
                await self._listen(before, timeout_s)  # the broker has kept the subscription
                raise refused[server]
            self._keep(listen_set)

    async def _listen(self, listen_set: ListenSet, timeout_s: float | None) -> dict[str, CallError]:
        """Send one `listen`; the caller holds `Channel.changing`, for each replaces the one before."""
        result = await self.call(listen_set.request(timeout_s))
        return {server: from_fault(fault) for server, fault in payload.not_subscribed(result).items()}

    def _keep(self, listen_set: ListenSet) -> None:
        """Store what to listen to after each reconnection."""
        self._listen_set = listen_set
        if self._joined is not None:
            channel = self._joined.channel
            channel.listen_set, channel.listened = listen_set, True

    async def _join(
        self, expires: float, request: PreparedRequest | None = None, *, only_try: bool = False
    ) -> Joined:
        """Return the channel, with an open connection.

        Args:
            expires: the deadline, by the loop's clock.
            request: the request that waits for the connection, if any.
            only_try: do not wait for a broker that was never reached.

        Raises:
            Unavailable: there is no connection in time.
            Busy: too many calls wait for one already.
        """
        now = asyncio.get_running_loop().time
        began = now()
        joined = self._attach()
        is_away = began >= joined.connection.backoff.gone_at + self._reconnect_s
        if is_away:
            joined.connection.look()  # so that not every call waits for a broker that stays away
        only_one = is_away and may_block(joined.connection.endpoint)
        while not joined.connection.is_open:
            connection, channel = joined
            backoff = connection.backoff
            until = backoff.wait_until(began, self._reconnect_s, expires)
            if until <= now():
                raise connection.why_not()
            error = await connection.wait(channel, until, request)
            if error and (
                only_one
                or reasons.is_hopeless(error, backoff.was_reached)
                or (only_try and not backoff.was_reached)
            ):
                try:
                    raise error
                finally:
                    del error  # its traceback refers to this frame, which would be a cycle
            if connection.closed_by is not None and self._joined is joined:
                raise _closed(f"this client was closed ({connection.closed_by})")
            joined = self._attach()
        return joined

    def _attach(self) -> Joined:
        """Return the channel in the running loop of this process; open one if that is needed."""
        if self._closed:
            raise _closed(f"the client {self.name!r} was closed")
        loop, joined = asyncio.get_running_loop(), self._joined
        if joined is not None and joined.connection.is_ours:
            if joined.connection.loop is loop:
                if joined.connection.backoff.was_reached or self._is_in_place(joined.connection):
                    return joined
                self._leave("the broker may be elsewhere")
            elif not joined.connection.loop.is_closed():
                raise RuntimeError(
                    f"the client {self.name!r} belongs to another event loop; make one for each loop"
                )
        who = {"name": self.name, "version": __version__, "pid": os.getpid()}
        connection = connection_pool().connection(
            loop, self._address(), who, self._hello_timeout_s, self._connection_name
        )
        channel = connection.open_channel(weakref.ref(self), self._listen_set)
        self._joined = joined = Joined(connection, channel)
        if self._release is not None:  # from a loop that has ended, or from the parent process
            self._release.detach()
        self._release = weakref.finalize(self, connection.close_channel_soon, channel, "forgotten")
        self._release.atexit = False
        return joined

    def _is_in_place(self, connection: BrokerConnection) -> bool:
        """Return whether the address is still right: the default depends on which sockets exist."""
        return connection.address == self._address()

    def _address(self) -> BrokerAddress:
        endpoint = self._endpoint or default_endpoint()
        return BrokerAddress(endpoint, keys_source(endpoint, self._keys))

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
        close_channel = connection.close_channel if here else connection.close_channel_soon
        close_channel(channel, reason)

    def notified(self, server: str, method: str, params: bytes) -> None:
        """Call the callbacks for a notification of a server."""
        callbacks = self._callbacks
        self._tell(callbacks.on_raw_notification, server, method, params)
        if not callbacks.is_decoded:
            return
        try:
            plain = payload.decode(f"`{method}` of server {server!r}", params)
        except InvalidReply as error:
            log.warn(str(error))
            return
        if method in LIST_CHANGED:
            self._tell(callbacks.on_list_changed, server, LIST_CHANGED[method])
        elif method == UPDATED and isinstance(plain, dict) and isinstance(plain.get("uri"), str):
            self._tell(callbacks.on_resource_updated, server, plain["uri"])
        elif method == NOT_SUBSCRIBED and isinstance(plain, dict):
            log.warn(_not_told_of(server, plain.get("uri"), plain.get("reason")))
        self._tell(callbacks.on_notification, server, method, plain)

    def connection_changed(self, connected: bool) -> None:
        """Call the callback for the loss of the broker, or for its return."""
        self._tell(self._callbacks.on_connection, connected)

    def _tell(self, callback: Callable[..., object] | None, *news: Any) -> None:
        if callback is None:
            return
        try:
            callback(*news)
        except Exception as error:
            log.warn(f"the notification callback of {self.name!r} failed: {error}", error)


def _expires(timeout_s: float | None) -> float:
    return NEVER if timeout_s is None else asyncio.get_running_loop().time() + timeout_s


def _closed(what: str) -> ClientClosed:
    return ClientClosed(what, hint="make another one")


def _not_told_of(server: str, uri: object, reason: object) -> str:
    what = "its lists" if uri is None else f"the resource {shown(uri, 200)}"
    why = reason if isinstance(reason, str) else shown(reason)
    return f"the broker does not tell of changes of server {server!r}, {what}: {why:.400}"
