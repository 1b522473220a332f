"""What `connect` knows of its host's conversation, so that the host does not notice a restart of the gateway.

Sans-io, and on the standard library alone: a relay must stay small. The host's messages pass unchanged; of
them it remembers what opens a session again (`initialize`, the log level, subscriptions) and which requests
have no answer. The gateway writes its messages in one form, so of a long result only the beginning is read.
"""

from __future__ import annotations

import json

_ANSWER = b'{"jsonrpc":"2.0","id":'
_NOTICE = b'{"jsonrpc":"2.0","method":"'
_CANCELLED = _NOTICE + b'notifications/cancelled"'
_ACKNOWLEDGED = _NOTICE + b'notifications/subscriptions/acknowledged"'
_SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"
_HEAD_BYTES = 1200
"""The longest id, and what stands before it."""

_MOST_DIGITS = 640
"""So many digits of an integer Python reads under every setting (sys.int_info)."""

MAX_REMEMBERED = 4096
"""Requests, subscriptions and questions that are remembered, each. Beyond it the oldest is forgotten."""

_FILTERS = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}

Json = dict[str, "object"]


class RelayState:
    """Reads along in both directions. All lines are without their line end.

    Args:
        nonce: makes the ids of requests that are made again unlike those of the host.
    """

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self._initialize: Json | None = None
        self._initialized: bytes | None = None
        self._level: Json | None = None
        self._subscribed: dict[str, Json] = {}
        """uri → the `resources/subscribe` of a legacy client"""
        self._open: dict[str, Json] = {}
        """id as JSON text → the request without an answer, as far as something of it is needed"""
        self._questions: dict[str, None] = {}
        """The ids of the server's requests that the host has not answered."""
        self._replayed: dict[str, str] = {}
        """The ids of requests that were made again, whose answers the host does not get, with the methods."""
        self._listened_again: set[str] = set()
        """The subscriptions that were made again, whose acknowledgment the host does not get."""
        self._last_replay = 0

    # --- the two directions ------------------------------------------------------------------------------

    def from_host(self, line: bytes) -> None:
        """Read a message of the host along."""
        message = _object(line)
        method, id = message.get("method"), message.get("id")
        if method is None:
            self._questions.pop(_text(id), None)
        elif id is not None:
            self._requested(message, str(method), _text(id))
        elif method == "notifications/initialized":
            self._initialized = line
        elif method == "notifications/cancelled":
            self._open.pop(_text(_params(message).get("requestId")), None)

    def _requested(self, message: Json, method: str, id: str) -> None:
        if method == "initialize":
            self._initialize = message
        elif method == "logging/setLevel":
            self._level = message
        elif method == "resources/subscribe":
            _remember(self._subscribed, str(_params(message).get("uri")), message)
        elif method == "resources/unsubscribe":
            self._subscribed.pop(str(_params(message).get("uri")), None)
        whole = method in ("initialize", "subscriptions/listen")
        _remember(self._open, id, message if whole else {"method": method})

    def from_gateway(self, line: bytes) -> list[bytes]:
        """Read a message of the gateway along; return what the host gets in its place."""
        if line.startswith(_ANSWER):
            id, is_request = _head(line)
            if is_request:
                _remember(self._questions, id, None)
            elif (method := self._replayed.pop(id, None)) is not None:
                return self._changed(line) if method == "initialize" else []
            else:
                self._open.pop(id, None)
        elif self._questions and line.startswith(_CANCELLED):
            self._questions.pop(_text(_params(_object(line)).get("requestId")), None)
        elif self._listened_again and line.startswith(_ACKNOWLEDGED):
            return self._acknowledged_again(line)
        return [line]

    # --- the gateway is gone, and is there again ----------------------------------------------------------

    @property
    def is_opening(self) -> bool:
        """Whether the host waits for the answer to its `initialize`, which a lost gateway may have read."""
        return self._initialize is not None and _text(self._initialize.get("id")) in self._open

    def lost(self, reason: str, unsent: list[bytes]) -> list[bytes]:
        """The connection is gone; return what the host is told.

        What it is still asked is withdrawn. Its requests end with an error, but for those that the gateway
        cannot have read (`unsent`), and those that are made again.
        """
        waiting = {_text(_object(line).get("id")) for line in unsent}
        withdrawn = ({"requestId": json.loads(id), "reason": reason} for id in self._questions)
        told = [_notice("notifications/cancelled", params) for params in withdrawn]
        for id, message in list(self._open.items()):
            if id not in waiting and message["method"] not in ("initialize", "subscriptions/listen"):
                del self._open[id]
                told.append(_unknown_outcome(id, reason))
        self._questions.clear()
        self._replayed.clear()
        self._listened_again.clear()
        return told

    def replay(self, unsent: list[bytes]) -> list[bytes]:
        """Return what opens the host's conversation again on a new connection, before what is `unsent`."""
        waiting = {_text(_object(line).get("id")) for line in unsent}
        lines = []
        if self._initialize is not None and _text(self._initialize.get("id")) not in waiting:
            lines.append(self._again(self._initialize))
        if self._initialized is not None and self._initialized not in unsent:
            lines.append(self._initialized)
        for message in (self._level, *self._subscribed.values()):
            if message is not None and _text(message.get("id")) not in waiting:
                lines.append(self._again(message))
        for id, message in self._open.items():
            if message["method"] == "subscriptions/listen" and id not in waiting:
                self._listened_again.add(id)
                lines.append(_encode(message))
        return lines

    def _again(self, message: Json) -> bytes:
        """A request under an id of its own, unless the host still waits for the answer."""
        if _text(message.get("id")) in self._open:
            return _encode(message)
        self._last_replay += 1
        id = f"{self._nonce}-{self._last_replay}"
        self._replayed[_text(id)] = str(message["method"])
        return _encode({**message, "id": id})

    def _changed(self, line: bytes) -> list[bytes]:
        """While there was no gateway, everything may have changed that the host would have been told of."""
        result = _object(line).get("result")
        found = result.get("capabilities") if isinstance(result, dict) else None
        capabilities = found if isinstance(found, dict) else {}
        lists = [name for name in ("tools", "prompts", "resources") if capabilities.get(name)]
        return [
            *(_notice(f"notifications/{name}/list_changed", {}) for name in lists),
            *(_notice("notifications/resources/updated", {"uri": uri}) for uri in self._subscribed),
        ]

    def _acknowledged_again(self, line: bytes) -> list[bytes]:
        params = _params(_object(line))
        meta, honoured = params.get("_meta"), params.get("notifications")
        id = _text(meta.get(_SUBSCRIPTION_ID)) if isinstance(meta, dict) else ""
        if id not in self._listened_again or not isinstance(honoured, dict):
            return [line]
        self._listened_again.discard(id)
        uris = honoured.get("resourceSubscriptions")
        return [
            *(_notice(method, {"_meta": meta}) for name, method in _FILTERS.items() if honoured.get(name)),
            *(
                _notice("notifications/resources/updated", {"_meta": meta, "uri": uri})
                for uri in (uris if isinstance(uris, list) else [])
            ),
        ]


def _remember(table: dict[str, Json] | dict[str, None], key: str, value: object) -> None:
    while len(table) >= MAX_REMEMBERED and key not in table:
        del table[next(iter(table))]
    table[key] = value  # type: ignore[assignment]


def _object(line: bytes) -> Json:
    """A message as plain data; of what is not an object, nothing: the gateway refuses it."""
    try:
        message = _decode(str(line, "utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _integer(digits: str) -> int | str:
    """An integer; as text if Python refuses to read it, for its message has an id that must be known."""
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _params(message: Json) -> Json:
    params = message.get("params")
    return params if isinstance(params, dict) else {}


# Made once: `json.loads` makes a decoder for each message where it is told how to read integers.
_decode = json.JSONDecoder(parse_int=_integer).decode
_decode_first = json.JSONDecoder().raw_decode


def _head(line: bytes) -> tuple[str, bool]:
    """The id of a message of the gateway as JSON text, and whether it is a request."""
    text = line[len(_ANSWER) : _HEAD_BYTES].decode(errors="replace")
    try:
        id, end = _decode_first(text)
    except ValueError:
        return "", False
    return _text(id), text.startswith(',"method"', end)


def _text(id: object) -> str:
    return json.dumps(id)


def _encode(message: object) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


def _notice(method: str, params: object) -> bytes:
    return _encode({"jsonrpc": "2.0", "method": method, "params": params})


def _unknown_outcome(id: str, reason: str) -> bytes:
    """The answer to a request that was lost."""
    hint = "see whether it was carried out before you send it again"
    return _encode(
        {
            "jsonrpc": "2.0",
            "id": json.loads(id),
            "error": {
                "code": -32603,
                "message": f"{reason}; whether the request was carried out is unknown; {hint}",
                "data": {"code": "gateway-lost", "outcome": "unknown", "hint": hint},
            },
        }
    )
