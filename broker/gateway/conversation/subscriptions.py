"""What a client wants to hear of its server unasked: by the methods of either era."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Raw, Struct, field, structs

from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.effects import Effect, RequestId, SendMessage
from broker.gateway.conversation.eras import SUBSCRIPTION_ID
from broker.gateway.conversation.jsonrpc import encode

UPDATED = "notifications/resources/updated"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"

MAX_URIS = 1024
"""Resources that one client may subscribe to."""

MAX_URI_BYTES = 2048

_PARTS = frozenset("/?#")
"""What parts of a uri begin with."""


class Filter(Struct, frozen=True):
    """The `notifications` of a `subscriptions/listen`: the lists and the resources that it is about."""

    tools: bool = field(default=False, name="toolsListChanged")
    prompts: bool = field(default=False, name="promptsListChanged")
    resources: bool = field(default=False, name="resourcesListChanged")
    uris: tuple[str, ...] = field(default=(), name="resourceSubscriptions")

    @property
    def has_lists(self) -> bool:
        """Whether it is about any list."""
        return self.tools or self.prompts or self.resources

    def wants(self, method: str, uri: str | None) -> bool:
        """Return whether a notification is one of those."""
        if method == UPDATED:
            return uri is not None and any(_is_part(uri, one) for one in self.uris)
        kind = method.removeprefix("notifications/").removesuffix("/list_changed")
        return {"tools": self.tools, "prompts": self.prompts, "resources": self.resources}.get(kind, False)

    def acknowledged(self, tells_of_resources: bool) -> dict[str, Any]:
        """Return the part that is honoured, as the acknowledgment names it."""
        lists = {
            "toolsListChanged": self.tools,
            "promptsListChanged": self.prompts,
            "resourcesListChanged": self.resources,
        }
        honoured: dict[str, Any] = {name: True for name, wanted in lists.items() if wanted}
        if self.uris and tells_of_resources:
            honoured["resourceSubscriptions"] = list(self.uris)
        return honoured


class _Listen(Struct):
    notifications: Filter


class _Uri(Struct):
    uri: str


def filter_of(params: bytes | None) -> Filter:
    """Read the params of `subscriptions/listen`.

    Raises:
        ValueError: they are not those, or name too much.
    """
    try:
        wanted = msgspec.json.decode(params or b"{}", type=_Listen).notifications
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"`notifications` cannot be read: {error}") from None
    for uri in wanted.uris:
        _check_uri(uri)
    return wanted


def uri_of(params: bytes | None) -> str:
    """Read the uri of `resources/subscribe`, or of a notification.

    Raises:
        ValueError: it is missing or too long.
    """
    try:
        uri = msgspec.json.decode(params or b"{}", type=_Uri).uri
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"`uri` cannot be read: {error}") from None
    return _check_uri(uri)


def _check_uri(uri: str) -> str:
    if len(uri.encode()) > MAX_URI_BYTES:
        raise ValueError(f"a uri to subscribe to may be {MAX_URI_BYTES} bytes long")
    return uri


def _is_part(uri: str, subscribed: str) -> bool:
    """A server may tell of a part of the resource that was subscribed to."""
    size = len(subscribed)
    return uri.startswith(subscribed) and (
        len(uri) == size or not _PARTS.isdisjoint(uri[size - 1 : size + 1])
    )


def tagged(params: bytes, subscription: bytes) -> bytes:
    """Return the params of a notification with the id of the subscription that it is for."""
    members: dict[str, Raw | bytes] = dict(jsonrpc.members_of(params) or {})
    meta: dict[str, Raw | bytes] = dict(jsonrpc.members_of(bytes(members.get("_meta", b"{}"))) or {})
    meta[SUBSCRIPTION_ID] = subscription
    return jsonrpc.join({"_meta": jsonrpc.join(meta), **{k: v for k, v in members.items() if k != "_meta"}})


def acknowledgment(wanted: Filter, tells_of_resources: bool, subscription: bytes) -> bytes:
    """Return the first message of a subscription."""
    params = encode({"notifications": wanted.acknowledged(tells_of_resources)})
    return jsonrpc.notification_message(ACKNOWLEDGED, tagged(params, subscription))


def end_of(subscription: bytes) -> bytes:
    """Return the result that ends a subscription in order."""
    meta = jsonrpc.join({SUBSCRIPTION_ID: subscription})
    return jsonrpc.join({"resultType": b'"complete"', "_meta": meta})


class Interests:
    """What the client wants to hear: a legacy one by its session, a modern one by its subscriptions.

    Args:
        uris: the resources that a legacy client subscribed to earlier.
    """

    def __init__(self, uris: frozenset[str] = frozenset()) -> None:
        self.uris = uris
        """The resources that the legacy client subscribed to."""
        self._unheard = uris
        """Those of them that may have changed while nobody listened for the client."""
        self.has_session = False
        """Whether a legacy session is open."""
        self.has_stream = False
        """Whether there is a stream for messages that belong to no request."""
        self._filters: dict[RequestId, Filter] = {}
        self._acknowledged: set[RequestId] = set()
        self._heard: tuple[bool, frozenset[str]] | None = (False, frozenset())
        """What the broker tells of; `None` if it has refused to change that."""

    def __len__(self) -> int:
        return len(self.uris) + len(self._filters)

    def __contains__(self, id: RequestId) -> bool:
        return id in self._filters

    def add(self, id: RequestId, wanted: Filter) -> None:
        """A modern client subscribes. It is sent nothing before it is acknowledged."""
        self._filters[id] = wanted

    def narrow(self, id: RequestId, lists: Collection[str]) -> None:
        """Leave out of a subscription the lists that the server does not have."""
        wanted = self._filters[id]
        self._filters[id] = structs.replace(
            wanted,
            tools=wanted.tools and "tools" in lists,
            prompts=wanted.prompts and "prompts" in lists,
            resources=wanted.resources and "resources" in lists,
        )

    def acknowledge(self, id: RequestId, tells_of_resources: bool) -> bytes:
        """Return the acknowledgment of a subscription: without what the server does not tell of."""
        wanted = self._filters[id]
        message = acknowledgment(wanted, tells_of_resources, id)
        if not tells_of_resources:
            self._filters[id] = structs.replace(wanted, uris=())
        self._acknowledged.add(id)
        return message

    def remove(self, id: RequestId) -> bool:
        """Forget a subscription; return whether there was one."""
        self._acknowledged.discard(id)
        return self._filters.pop(id, None) is not None

    def wanted(self) -> tuple[bool, frozenset[str]]:
        """Return whether lists are of interest, and which resources are."""
        filters = self._filters.values()
        lists = (self.has_session and self.has_stream) or any(one.has_lists for one in filters)
        return lists, self.uris.union(*(one.uris for one in filters))

    def news(self) -> tuple[bool, frozenset[str]] | None:
        """Return the same if it is not what the broker was last asked to tell of; that is remembered."""
        wanted = self.wanted()
        if wanted == self._heard:
            return None
        self._heard = wanted
        return wanted

    def unheard(self) -> None:
        """Have the broker asked again at the next change: it has refused the last one."""
        self._heard = None

    def notified(self, method: str, params: bytes) -> list[Effect]:
        """Return the messages for a notification of the server.

        Raises:
            ValueError: it names no resource, and should.
        """
        uri = uri_of(params) if method == UPDATED else None
        everything = Filter(tools=True, prompts=True, resources=True, uris=tuple(self.uris))
        messages: list[Effect] = []
        if self.has_session and self.has_stream and everything.wants(method, uri):
            messages.append(SendMessage(jsonrpc.notification_message(method, params)))
        for id in self._acknowledged:
            if self._filters[id].wants(method, uri):
                messages.append(SendMessage(jsonrpc.notification_message(method, tagged(params, id)), id))
        return messages

    def stream_closed(self) -> None:
        """No stream is left: from now on the client does not hear of its resources."""
        self.has_stream, self._unheard = False, self.uris

    def missed(self) -> list[Effect]:
        """Return, once, an update of each resource that may have changed while nobody listened."""
        missed, self._unheard = sorted(self._unheard & self.uris), frozenset()
        said = [jsonrpc.notification_message(UPDATED, encode({"uri": uri})) for uri in missed]
        return [SendMessage(message) for message in said]

    def clear(self) -> None:
        """Forget all."""
        self.uris, self.has_stream = frozenset(), False
        self._filters.clear()
        self._acknowledged.clear()
