"""`BrokerClient`: the MCP servers of a broker, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from client_shim.asyncio import rounds
from client_shim.asyncio.call import OnLog, OnProgress, OnRaw, log_reader, progress_reader
from client_shim.asyncio.channel import ListenSet
from client_shim.asyncio.membership import (
    Callbacks,
    Membership,
    OnConnection,
    OnListChanged,
    OnNotification,
    OnRawNotification,
    OnResourceUpdated,
)
from client_shim.asyncio.methods import McpMethods
from client_shim.asyncio.questions import Asker
from client_shim.errors import CallError
from client_shim.keys import Keys
from client_shim.protocol import payload
from client_shim.protocol.question_bodies import CAPABILITIES, capabilities_of
from client_shim.questions import OnQuestion, OnRawQuestion
from client_shim.results import Data
from client_shim.wire import MANAGEMENT, PROGRESS_EXTENDS, TAKES_QUESTIONS, WANTS_PROGRESS

_LOG_LEVEL = "io.modelcontextprotocol/logLevel"


class BrokerClient(McpMethods):
    """A client of the broker's servers::

        async with BrokerClient("my backend") as broker:
            tools = await broker.list_tools("time")
            result = await broker.call_tool("time", "get_current_time", {"timezone": "Asia/Tokyo"})

    Clients are cheap: all clients of an event loop share one connection, unless `connection` says otherwise.
    Python releases a client that nobody has closed when it collects the object. A client may be made
    anywhere, also before a fork. It belongs to the loop in which it is first used; in another process, or
    after the end of that loop, it connects anew.
    docs/client.md describes everything with examples.

    Args:
        name: the name of this program in the broker's `status`.
        endpoint: where the broker listens; `None`: `client_shim.transport.endpoint.default_endpoint`.
        keys: the keys for ``tcp://``, as `client_shim.keys.ClientKeys` or the path of a file that
            ``mcp-broker keys new`` has made; `None`: the file that `$MCP_BROKER_KEYS` names, if any.
        timeout: the deadline of a call without its own, in seconds; `None`: the broker's default.
        hello_timeout_s: how long a broker may take to answer the hello.
        reconnect_s: how long a call waits, within its deadline, for a broker that is gone or not there yet.
            After that time no further call waits for it.
        connection: clients that give different names have different connections. The broker limits calls,
            subscriptions and refused requests by connection: a program that serves several users gives the
            clients of each a name of their own.
        capabilities: the capabilities that are declared with every request whose `meta` has none. With a
            callback for questions they are ``{"elicitation": {}}`` by default.
        on_question: called with a `Question` of a server that asks before it goes on with a call; returns
            the answer, or raises `QuestionRefused`. See `request`.
        on_list_changed: called with server and "tools", "resources" or "prompts" when that list has changed.
        on_resource_updated: called with server and uri when a subscribed resource has changed.
        on_notification: called with server, method and params of these and of all other notifications.
        on_raw_notification: the same, with the params as bytes that are not decoded. It does not make the
            client listen to anything: see `listen`.
        on_connection: called with `False` when the broker is lost, and with `True` when it is back.

    The loop runs the callbacks for notifications one at a time; their exceptions are logged. After a
    reconnection they are called for everything that the client listens to: any of it may have changed.

    Every method that sends something connects first if that is needed, and raises:

    * `Unavailable` (a `ConnectionError`): there is no broker, or it was lost meanwhile;
    * `CallError`: the call failed, with a class for every reason; `ServerError` is the server's own error.
    """

    def __init__(
        self,
        name: str = "client",
        endpoint: str | None = None,
        *,
        keys: Keys | None = None,
        timeout: float | None = None,
        hello_timeout_s: float = 5.0,
        reconnect_s: float = 5.0,
        connection: str = "",
        capabilities: Mapping[str, Any] | None = None,
        on_question: OnQuestion | None = None,
        on_list_changed: OnListChanged | None = None,
        on_resource_updated: OnResourceUpdated | None = None,
        on_notification: OnNotification | None = None,
        on_raw_notification: OnRawNotification | None = None,
        on_connection: OnConnection | None = None,
    ) -> None:
        self.timeout = timeout
        self._capabilities = capabilities
        self._on_question = on_question
        callbacks = Callbacks(
            on_list_changed, on_resource_updated, on_notification, on_raw_notification, on_connection
        )
        self._membership = Membership(
            name, endpoint, keys, hello_timeout_s, reconnect_s, callbacks, connection
        )

    def __repr__(self) -> str:
        return f"<BrokerClient {self.name!r} {self._membership}>"

    async def __aenter__(self) -> BrokerClient:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def name(self) -> str:
        """The name of this program in the broker's `status`."""
        return self._membership.name

    @property
    def connected(self) -> bool:
        """Whether a call could be sent now."""
        return self._membership.connected

    async def connect(self) -> None:
        """Connect now. (Calls connect by themselves, and wait for a broker that is not there yet.)

        Raises:
            Unavailable: there is no broker (at once), or a lost one is not back within `reconnect_s`.
        """
        await self._membership.connect(self.timeout)

    async def aclose(self) -> None:
        """Release everything that this client holds; its calls end. Any task may call it, repeatedly."""
        self._membership.close()

    # --- calls -----------------------------------------------------------------------------------------

    async def request(
        self,
        server: str,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        on_log: OnLog | None = None,
        on_question: OnQuestion | None = None,
        progress_extends: bool = False,
        input_responses: Mapping[str, Any] | None = None,
        request_state: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make any MCP request and return its result as plain data.

        Args:
            timeout: in seconds. The broker ends the call then; the client itself does so 2 s later.
            on_progress: called with progress, total and message, and awaited if it is asynchronous. Its
                exceptions are logged.
            on_log: the same with level, data and logger of the messages that a server of 2026-07-28 logs
                during the call, from "info" up; `meta` may name another level.
            on_question: answers the questions of the call, in place of the client's own callback. It runs in
                a task of its own in a copy of this context, and is cancelled when the question is withdrawn
                or the call ends. A server of 2026-07-28 asks in its result: then the callback runs here, and
                the call is made again with the answers. Meanwhile the timeout stands still.
            progress_extends: each progress notification starts the timeout anew.
            input_responses, request_state: the answers to an `input_required` result, and its state.
            meta: the `_meta` of the request. The broker sets progress tokens and protocol versions itself.
        """
        ask = on_question or self._on_question
        meta = self._meta(server, meta, on_log is not None, ask is not None)
        asker = None if ask is None else Asker(ask, capabilities_of(meta))
        flags = _flags(on_progress is not None, progress_extends, server != MANAGEMENT and ask is not None)
        callbacks = (
            on_progress and progress_reader(on_progress),
            on_log and log_reader(on_log),
            None if asker is None else asker.answer_raw,
        )
        call = (server, method, params, flags, meta, callbacks)
        answers = {"inputResponses": input_responses, "requestState": request_state}
        given = {key: value for key, value in answers.items() if value is not None}
        timeout_s = self._timeout_s(timeout)
        if asker is None:
            return await self._make(*call, given, timeout_s)
        make = partial(self._make, *call)
        return await rounds.complete(server, method, make, given, timeout_s, asker.answer)

    async def _make(
        self,
        server: str,
        method: str,
        params: Mapping[str, Any] | None,
        flags: int,
        meta: Mapping[str, Any] | None,
        callbacks: tuple[OnRaw | None, OnRaw | None, OnRawQuestion | None],
        given: Mapping[str, Any],
        timeout_s: float | None,
    ) -> Any:
        """Make a call, with `given` beside its params; return the result as plain data."""
        all_params = {**(params or {}), **given} if given else params
        request = payload.prepare(server, method, all_params, timeout_s=timeout_s, flags=flags, meta=meta)
        result = await self._membership.call(request, *callbacks)
        return payload.decode(request.subject, result)

    async def request_raw(
        self,
        server: str,
        method: str,
        params: bytes | None = None,
        *,
        timeout: float | None = None,
        on_progress: OnRaw | None = None,
        on_log: OnRaw | None = None,
        on_question: OnRawQuestion | None = None,
        progress_extends: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Make any MCP request with encoded params; return the result as the bytes that the server sent.

        Neither is decoded here, so numbers, duplicate keys and the order of keys stay as they are. The params
        are one JSON object without a `_meta`: the broker refuses anything else. The `raw` of a `ServerError`
        is the JSON-RPC error object that the server sent.

        Args:
            on_progress, on_log: called with the params of each notification about the call, as bytes, and
                awaited if they are asynchronous.
            on_question: called with a `RawQuestion` for each question in the middle of the call; returns the
                answer in JSON. A question in the result stays there.
            timeout, progress_extends, meta: see `request`.
        """
        asks = on_question is not None or self._on_question is not None
        meta = self._meta(server, meta, on_log is not None, asks)
        if on_question is None and self._on_question is not None:
            on_question = Asker(self._on_question, capabilities_of(meta)).answer_raw
        request = payload.prepare_raw(
            server,
            method,
            params,
            timeout_s=self._timeout_s(timeout),
            flags=_flags(on_progress is not None, progress_extends, asks and server != MANAGEMENT),
            meta=meta,
        )
        return await self._membership.call(request, on_progress, on_log, on_question)

    def _timeout_s(self, given: float | None) -> float | None:
        return self.timeout if given is None else given

    def _meta(
        self, server: str, given: Mapping[str, Any] | None, logs: bool, asks: bool
    ) -> Mapping[str, Any] | None:
        ours: dict[str, Any] = {_LOG_LEVEL: "info"} if logs else {}
        capabilities = {"elicitation": {}} if self._capabilities is None and asks else self._capabilities
        if capabilities is not None and server != MANAGEMENT:
            ours[CAPABILITIES] = capabilities
        return {**ours, **(given or {})} if ours else given

    async def listen(
        self,
        servers: Iterable[str] | None = (),
        resources: Mapping[str, Iterable[str]] | None = None,
        *,
        timeout: float | None = None,
    ) -> dict[str, CallError]:
        """Set everything that this client listens to; it replaces what the client listened to before.

        It holds across restarts of servers and broker, until the next `listen`; `listen()` ends it. A server
        that cannot be heard does not affect the others, and is heard as soon as that is possible. If the call
        itself fails, nothing changes.

        Args:
            servers: the servers whose lists the client follows; `None`: all, also those configured later.
            resources: server → the uris that the client subscribes to.

        Returns:
            The servers that cannot be heard for now: `UnknownServer` if the broker has no such server,
            `MethodRefused` if the server does not announce changes of its resources.
        """
        return await self._membership.listen(ListenSet.of(servers, resources or {}), self._timeout_s(timeout))

    async def subscribe_resource(self, server: str, uri: str, *, timeout: float | None = None) -> None:
        """Subscribe to the changes of a resource, also across restarts of server and broker.

        Raises:
            UnknownServer: the broker has no such server.
            MethodRefused: the server does not announce changes of its resources.
        """
        await self._membership.subscribe(server, str(uri), True, self._timeout_s(timeout))

    async def unsubscribe_resource(self, server: str, uri: str, *, timeout: float | None = None) -> None:
        """End the subscription to a resource."""
        await self._membership.subscribe(server, str(uri), False, self._timeout_s(timeout))

    async def ping(self, *, timeout: float | None = None) -> None:
        """Return if the broker answers."""
        await self.request(MANAGEMENT, "ping", timeout=timeout)

    async def servers(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """Return the configured servers: name, state, era, protocol, tools, last_error, …"""
        return [about.raw for about in await self._list(Data, MANAGEMENT, "servers", "servers", timeout)]

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return the data that ``mcp-broker status --json`` prints."""
        status: dict[str, Any] = await self.request(MANAGEMENT, "status", timeout=timeout)
        return status


def _flags(wants_progress: bool, extends: bool, asks: bool) -> int:
    progress = WANTS_PROGRESS | PROGRESS_EXTENDS if extends else WANTS_PROGRESS if wants_progress else 0
    return progress | TAKES_QUESTIONS if asks else progress
