"""`BrokerClient`: the MCP servers of a broker, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

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
from client_shim.errors import CallError, InvalidReply
from client_shim.protocol import payload
from client_shim.results import (
    RESULT_TYPES,
    CallResult,
    Completion,
    Data,
    Prompt,
    PromptResult,
    ReadResult,
    Resource,
    ResourceTemplate,
    Tool,
)
from client_shim.text import shown
from client_shim.wire import MANAGEMENT, PROGRESS_EXTENDS, WANTS_PROGRESS

if TYPE_CHECKING:
    from typing_extensions import Unpack

D = TypeVar("D", bound=Data)

_META = "io.modelcontextprotocol/"


class Options(TypedDict, total=False):
    """What every request takes; `BrokerClient.request` says what each is."""

    timeout: float | None
    on_progress: OnProgress | None
    on_log: OnLog | None
    progress_extends: bool
    input_responses: Mapping[str, Any] | None
    request_state: str | None
    meta: Mapping[str, Any] | None


class BrokerClient:
    """A client of the broker's servers::

        async with BrokerClient("my backend") as broker:
            tools = await broker.list_tools("time")
            result = await broker.call_tool("time", "get_current_time", {"timezone": "Asia/Tokyo"})

    Make as many as is convenient: all clients of an event loop share one connection, and one that is
    forgotten without being closed is released when it is collected. One may be made anywhere, also before a
    fork; it belongs to the loop it is first used in, and finds a new connection in another process or after
    that loop. docs/client.md tells all of it with examples.

    Args:
        name: what the broker's `status` calls this program.
        endpoint: where the broker listens; `client_shim.transport.endpoint.default_endpoint` where it is not
        given. timeout: the deadline of a call that is given none, in seconds; `None` leaves it to the broker.
        hello_timeout_s: how long a broker may take to greet.
        reconnect_s: how long a call waits for a broker that is gone, or not there yet, within its own
            deadline. One that is gone for longer, and still is, is not waited for.
        capabilities: what this program can do for servers of 2026-07-28, such as ``{"elicitation": {}}``; it
            goes with every request that has none of its own in `meta`.
        on_list_changed: called with server and "tools", "resources" or "prompts" when a list is another one.
        on_resource_updated: called with server and uri when a resource changed that was subscribed to.
        on_notification: called with server, method and params of both, and of whatever else there may be.
        on_raw_notification: the same with the params as the bytes that came in, not decoded. Unlike the
            others it listens to nothing by itself: see `listen`.
        on_connection: called with `False` when the broker is lost, and with `True` when one is there again.

    All of them are called in the loop, one at a time; what they raise is logged. After a reconnection they
    are called for everything that was listened to, for it cannot be known what changed meanwhile.

    Every method that talks to the broker connects where that has not been done, and raises:

    * `Unavailable` (a `ConnectionError`): there is no broker to talk to, or it was lost meanwhile;
    * `CallError`: the call ended badly, with a class for every reason; `ServerError` is the server's own.
    """

    def __init__(
        self,
        name: str = "client",
        endpoint: str | None = None,
        *,
        timeout: float | None = None,
        hello_timeout_s: float = 5.0,
        reconnect_s: float = 5.0,
        capabilities: Mapping[str, Any] | None = None,
        on_list_changed: OnListChanged | None = None,
        on_resource_updated: OnResourceUpdated | None = None,
        on_notification: OnNotification | None = None,
        on_raw_notification: OnRawNotification | None = None,
        on_connection: OnConnection | None = None,
    ) -> None:
        self.timeout = timeout
        self._capabilities = capabilities
        callbacks = Callbacks(
            on_list_changed, on_resource_updated, on_notification, on_raw_notification, on_connection
        )
        self._membership = Membership(name, endpoint, hello_timeout_s, reconnect_s, callbacks)

    def __repr__(self) -> str:
        return f"<BrokerClient {self.name!r} {self._membership}>"

    async def __aenter__(self) -> BrokerClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def name(self) -> str:
        """What the broker's `status` calls this program."""
        return self._membership.name

    @property
    def connected(self) -> bool:
        """Whether a call could be sent this moment."""
        return self._membership.connected

    async def connect(self) -> None:
        """Connect now. Calls do it by themselves, and wait for a broker that is not there yet.

        Raises:
            Unavailable: there is no broker, said at once; or it was lost, and is not back in time.
        """
        await self._membership.connect(self.timeout)

    async def aclose(self) -> None:
        """Release what this client holds; its calls end. From any task, and as often as you like."""
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
        progress_extends: bool = False,
        input_responses: Mapping[str, Any] | None = None,
        request_state: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make any MCP request and return its result as plain data.

        Args:
            timeout: in seconds. The broker ends the call then; this side does so itself 2 s later.
            on_progress: called, and awaited where it is asynchronous, with progress, total and message.
                What it raises is logged.
            on_log: the same with level, data and logger of what a server of 2026-07-28 logs during the call,
                from "info" up; `meta` may name another level.
            progress_extends: each progress starts the time anew.
            input_responses, request_state: the answers to a result that was `input_required`, and its state.
            meta: the `_meta` of the request. Progress tokens and protocol versions are the broker's own.
        """
        answers = {"inputResponses": input_responses, "requestState": request_state}
        given = {key: value for key, value in answers.items() if value is not None}
        request = payload.prepare(
            server,
            method,
            {**(params or {}), **given} if given else params,
            timeout_s=self._timeout_s(timeout),
            flags=_flags(on_progress is not None, progress_extends),
            meta=self._meta(server, meta, on_log is not None),
        )
        result = await self._membership.call(request, progress_reader(on_progress), log_reader(on_log))
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
        progress_extends: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Make any MCP request with params that are JSON already; return the result as the bytes it came in.

        Neither is decoded here, so numbers, duplicate keys and the order of keys pass as they are. The params
        must be one JSON object without a `_meta` of its own: the broker refuses anything else. An error of
        the server is raised as `ServerError`, with the JSON-RPC error object in its `raw`.

        Args:
            on_progress, on_log: called, and awaited where they are asynchronous, with the params of each
                notification about the call, as bytes.
            timeout, progress_extends, meta: see `request`.
        """
        request = payload.prepare_raw(
            server,
            method,
            params,
            timeout_s=self._timeout_s(timeout),
            flags=_flags(on_progress is not None, progress_extends),
            meta=self._meta(server, meta, on_log is not None),
        )
        return await self._membership.call(request, on_progress, on_log)

    def _timeout_s(self, given: float | None) -> float | None:
        return self.timeout if given is None else given

    def _meta(self, server: str, given: Mapping[str, Any] | None, logs: bool) -> Mapping[str, Any] | None:
        ours: dict[str, Any] = {_META + "logLevel": "info"} if logs else {}
        if self._capabilities is not None and server != MANAGEMENT:
            ours[_META + "clientCapabilities"] = self._capabilities
        return {**ours, **(given or {})} if ours else given

    async def call_tool(
        self,
        server: str,
        tool: str,
        arguments: dict[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> CallResult:
        """Call a tool. A tool that fails returns a result with `isError`; see `request` for the options."""
        params = {"name": tool, "arguments": {} if arguments is None else arguments}
        return await self._get(CallResult, server, "tools/call", params, options)

    async def list_tools(self, server: str, *, timeout: float | None = None) -> list[Tool]:
        """The tools of a server, all of them, from the broker's catalogue where that is fresh."""
        return await self._list(Tool, server, "tools/list", "tools", timeout)

    async def list_resources(self, server: str, *, timeout: float | None = None) -> list[Resource]:
        """The resources of a server."""
        return await self._list(Resource, server, "resources/list", "resources", timeout)

    async def list_resource_templates(
        self, server: str, *, timeout: float | None = None
    ) -> list[ResourceTemplate]:
        """The resource templates of a server."""
        method = "resources/templates/list"
        return await self._list(ResourceTemplate, server, method, "resourceTemplates", timeout)

    async def list_prompts(self, server: str, *, timeout: float | None = None) -> list[Prompt]:
        """The prompts of a server."""
        return await self._list(Prompt, server, "prompts/list", "prompts", timeout)

    async def read_resource(self, server: str, uri: str, **options: Unpack[Options]) -> ReadResult:
        """What is in a resource."""
        return await self._get(ReadResult, server, "resources/read", {"uri": str(uri)}, options)

    async def get_prompt(
        self,
        server: str,
        name: str,
        arguments: dict[str, str] | None = None,
        **options: Unpack[Options],
    ) -> PromptResult:
        """A prompt, filled in with the arguments."""
        params = {"name": name, "arguments": {} if arguments is None else arguments}
        return await self._get(PromptResult, server, "prompts/get", params, options)

    async def complete(
        self,
        server: str,
        ref: dict[str, Any],
        argument: dict[str, str],
        *,
        context: dict[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> Completion:
        """Proposals for an argument of a prompt or a resource template.

        Args:
            ref: ``{"type": "ref/prompt", "name": …}`` or ``{"type": "ref/resource", "uri": …}``.
            argument: ``{"name": …, "value": what is typed so far}``.
            context: ``{"arguments": {name: value}}``, those that are filled in already.
        """
        method, params = "completion/complete", {"ref": ref, "argument": argument}
        if context is not None:
            params["context"] = context
        raw = await self.request(server, method, params, **options)
        return _wrap(Completion, _field(raw, "completion", server, method), server, method)

    async def listen(
        self,
        servers: Iterable[str] | None = (),
        resources: Mapping[str, Iterable[str]] | None = None,
        *,
        timeout: float | None = None,
    ) -> dict[str, CallError]:
        """Set all that this client listens to, in place of what it listened to before.

        It holds across restarts of servers and broker, until the next `listen`; `listen()` ends it. A server
        that cannot be heard costs the others nothing, and is heard as soon as it can be. Where the call
        itself fails, the client listens to what it listened to before.

        Args:
            servers: the servers whose lists it follows; `None` for all, also those configured later.
            resources: server → the uris whose changes it follows.

        Returns:
            The servers that cannot be heard for now: `UnknownServer` where the broker has no such server,
            `MethodRefused` where the server does not tell of its resources.
        """
        return await self._membership.listen(ListenSet.of(servers, resources or {}), self._timeout_s(timeout))

    async def subscribe_resource(self, server: str, uri: str, *, timeout: float | None = None) -> None:
        """Hear of it when this resource changes, also across restarts of server and broker.

        Raises `MethodRefused` where the server does not tell of its resources.
        """
        await self._membership.subscribe(server, str(uri), True, self._timeout_s(timeout))

    async def unsubscribe_resource(self, server: str, uri: str, *, timeout: float | None = None) -> None:
        """Hear of it no longer."""
        await self._membership.subscribe(server, str(uri), False, self._timeout_s(timeout))

    async def ping(self, *, timeout: float | None = None) -> None:
        """Return if the broker answers."""
        await self.request(MANAGEMENT, "ping", timeout=timeout)

    async def servers(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """The configured servers: name, state, era, protocol, tools, last_error, …"""
        raw = await self.request(MANAGEMENT, "servers", timeout=timeout)
        servers = _field(raw, "servers", MANAGEMENT, "servers")
        if not isinstance(servers, list) or not all(isinstance(one, dict) for one in servers):
            raise _unusable(MANAGEMENT, "servers", "`servers` is not a list of objects")
        return servers

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What ``mcp-broker status --json`` prints."""
        status: dict[str, Any] = await self.request(MANAGEMENT, "status", timeout=timeout)
        return status

    async def _list(
        self, kind: type[D], server: str, method: str, field: str, timeout: float | None
    ) -> list[D]:
        entries = _field(await self.request(server, method, timeout=timeout), field, server, method)
        if not isinstance(entries, list):
            raise _unusable(server, method, f"`{field}` is no list")
        return [_wrap(kind, entry, server, method) for entry in entries]

    async def _get(
        self, kind: type[D], server: str, method: str, params: dict[str, Any], options: Options
    ) -> D:
        raw = await self.request(server, method, params, **options)
        if isinstance(raw, dict) and (type_ := raw.get("resultType", "complete")) not in RESULT_TYPES:
            raise _unusable(server, method, f"it is of the type {shown(type_)}, which MCP does not have")
        return _wrap(kind, raw, server, method)


def _flags(wants_progress: bool, progress_extends: bool) -> int:
    return WANTS_PROGRESS * (wants_progress or progress_extends) | PROGRESS_EXTENDS * progress_extends


def _field(raw: Any, field: str, server: str, method: str) -> Any:
    if not isinstance(raw, dict) or field not in raw:
        raise _unusable(server, method, f"it has no `{field}`")
    return raw[field]


def _wrap(kind: type[D], raw: Any, server: str, method: str) -> D:
    if not isinstance(raw, dict):
        raise _unusable(server, method, f"{shown(raw)} is not an object")
    return kind(raw)


def _unusable(server: str, method: str, why: str) -> InvalidReply:
    return InvalidReply(
        f"`{method}` of server {server!r}: the result cannot be used: {why}",
        hint="this is the server's mistake: report it to its authors",
    )
