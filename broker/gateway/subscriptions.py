"""What a client wants to hear of its server unasked: by the methods of either era."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from broker.gateway import jsonrpc
from broker.gateway.eras import SUBSCRIPTION_ID
from broker.gateway.jsonrpc import encode

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
