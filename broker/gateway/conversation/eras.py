"""The two eras of MCP: what differs between them, and how a message of one is said in the other.

Legacy is a session that `initialize` opens (2025-11-25 and before); modern is a `_meta` on every request that
says version and capabilities (2026-07-28). The functions here decide nothing about a conversation.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.jsonrpc import encode

MODERN_VERSION = "2026-07-28"
LEGACY_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")

META = "io.modelcontextprotocol/"
PROTOCOL_VERSION = META + "protocolVersion"
CLIENT_INFO = META + "clientInfo"
CAPABILITIES = META + "clientCapabilities"
LOG_LEVEL = META + "logLevel"
SUBSCRIPTION_ID = META + "subscriptionId"
SERVER_INFO = META + "serverInfo"

LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
DEFAULT_LOG_LEVEL = "info"
"""For a legacy client that has set none: then a server may send what it thinks fit."""

REMOVED = frozenset(
    {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
)
"""Methods of the legacy era that a modern request cannot have."""

MAY_ASK = frozenset({"tools/call", "prompts/get", "resources/read"})
"""The methods that a modern server may answer with `input_required`."""

CACHEABLE = frozenset(
    {"tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}
)
"""The methods whose complete results say for how long and for whom they are good."""

LIST_TTL_MS = 1000
"""The `ttlMs` of a legacy server's lists: with 0 a client keeps no list at all.

The broker answers them from memory and tells of changes. A resource may change without a word.
"""

LISTS = ("tools", "prompts", "resources")

_NOT_MODERN = {-32002: jsonrpc.INVALID_PARAMS, -32042: jsonrpc.INTERNAL_ERROR}
"""Error codes that a modern server must not use: resource not found, and url elicitation required."""

_UNKNOWN_SERVER: dict[str, Any] = {
    **{name: {} for name in LISTS},
    "logging": {},
}
"""The capabilities of a server that has not said yet what it can do: every list may turn out to be empty."""


class _Marks(Struct, gc=False):
    """The members of a result that only the modern era has."""

    result_type: Raw | UnsetType = msgspec.field(default=UNSET, name="resultType")
    ttl: Raw | UnsetType = msgspec.field(default=UNSET, name="ttlMs")
    scope: Raw | UnsetType = msgspec.field(default=UNSET, name="cacheScope")


class _RpcError(Struct, gc=False):
    code: int
    message: Raw = Raw(b'""')
    data: Raw | UnsetType = UNSET


_marks = msgspec.json.Decoder(_Marks)
_error = msgspec.json.Decoder(_RpcError)


def agreed_version(requested: object) -> str:
    """Return the version that `initialize` is answered with: the requested one, or the newest."""
    return requested if isinstance(requested, str) and requested in LEGACY_VERSIONS else LEGACY_VERSIONS[0]


def is_input_required(result: bytes) -> bool:
    """Return whether a result asks the client for something before the call can go on."""
    try:
        seen = _marks.decode(result).result_type
    except (msgspec.MsgspecError, RecursionError):
        return False
    return seen is not UNSET and bytes(seen) == b'"input_required"'


def modern_result(method: str, result: bytes) -> bytes:
    """Return a result with the members that a modern one must have; those that it has stay as they are."""
    try:
        seen = _marks.decode(result)
    except (msgspec.MsgspecError, RecursionError):
        return result
    missing = []
    if seen.result_type is UNSET:
        missing.append(b'"resultType":"complete"')
    if method in CACHEABLE and (seen.result_type is UNSET or bytes(seen.result_type) == b'"complete"'):
        ttl_ms = 0 if method == "resources/read" else LIST_TTL_MS
        missing += [b'"ttlMs":%d' % ttl_ms] if seen.ttl is UNSET else []
        missing += [b'"cacheScope":"private"'] if seen.scope is UNSET else []
    if not missing:
        return result
    rest = result.lstrip(b" \t\r\n")[1:].lstrip(b" \t\r\n")
    comma = b"" if rest.startswith(b"}") else b","
    return b"{%b%b%b" % (b",".join(missing), comma, rest)


def modern_error(error: bytes) -> bytes:
    """Return an error object of a server without the codes that the modern era has given up."""
    try:
        seen = _error.decode(error)
    except (msgspec.MsgspecError, RecursionError):
        return error
    code = _NOT_MODERN.get(seen.code)
    if code is None:
        return error
    members: dict[str, Raw | bytes] = {"code": b"%d" % code, "message": seen.message}
    return jsonrpc.join(members if seen.data is UNSET else {**members, "data": seen.data})


def error_code(error: bytes) -> int:
    """Return the code of an error object; that of an internal error where it has none."""
    try:
        return _error.decode(error).code
    except (msgspec.MsgspecError, RecursionError):
        return jsonrpc.INTERNAL_ERROR


# --- what a server is ------------------------------------------------------------------------------------


class Discovery(Struct, frozen=True):
    """What is known of a server: its answer to `server/discover`."""

    capabilities: dict[str, Any]
    info: dict[str, Any]
    instructions: str | None
    versions: list[Any] = []

    @property
    def is_legacy(self) -> bool:
        """Whether it is known to be a legacy server."""
        return bool(self.versions) and MODERN_VERSION not in self.versions


STILL_UNKNOWN = Discovery(_UNKNOWN_SERVER, {}, None)
"""What is known of a server that still starts."""


class _Discovered(Struct):
    capabilities: dict[str, Any] = {}
    instructions: str | None = None
    versions: list[Any] = msgspec.field(default_factory=list, name="supportedVersions")
    meta: dict[str, Any] = msgspec.field(default_factory=dict, name="_meta")


def discovery_of(result: bytes) -> Discovery:
    """Read the broker's answer to `server/discover`."""
    try:
        seen = msgspec.json.decode(result, type=_Discovered)
    except (msgspec.MsgspecError, RecursionError):
        return STILL_UNKNOWN
    info = seen.meta.get(SERVER_INFO)
    info = info if isinstance(info, dict) else {}
    return Discovery(seen.capabilities, info, seen.instructions, seen.versions)


def initialize_result(server: str, version: str, found: Discovery) -> bytes:
    """Return the result of `initialize`."""
    result: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": _with_list_changes(found.capabilities),
        "serverInfo": _info(server, found.info),
    }
    return _encoded(result, found.instructions)


def discover_result(server: str, found: Discovery) -> bytes:
    """Return the result of `server/discover`. The gateway speaks both eras, whatever the server does."""
    result: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": [MODERN_VERSION],
        "capabilities": _with_list_changes(found.capabilities),
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {SERVER_INFO: _info(server, found.info)},
    }
    return _encoded(result, found.instructions)


def _encoded(result: dict[str, Any], instructions: str | None) -> bytes:
    return encode(result if instructions is None else {**result, "instructions": instructions})


def _with_list_changes(capabilities: dict[str, Any]) -> dict[str, Any]:
    """The broker tells when a list changes, also of a server that does not: its next process may differ."""
    told = {
        name: {**one, "listChanged": True}
        for name, one in capabilities.items()
        if name in LISTS and isinstance(one, dict)
    }
    return {**capabilities, **told}


def _info(server: str, info: dict[str, Any]) -> dict[str, Any]:
    """What a server says that it is, with the members that it must have."""
    return {
        **info,
        **{key: _text(info.get(key), other) for key, other in (("name", server), ("version", "0"))},
    }


def _text(value: object, other: str) -> str:
    return value if isinstance(value, str) else other


# --- what a client says ----------------------------------------------------------------------------------


def legacy_meta(
    meta: dict[str, Any], capabilities: dict[str, Any], client_info: dict[str, Any], log_level: str
) -> dict[str, Any]:
    """Return the `_meta` of a legacy client's request, with what its session says of it.

    The broker leaves the additions out for a legacy server, to which they mean nothing.
    """
    said: dict[str, Any] = {CAPABILITIES: capabilities, LOG_LEVEL: log_level}
    if isinstance(client_info.get("name"), str) and isinstance(client_info.get("version"), str):
        said[CLIENT_INFO] = client_info
    return {**meta, **said}


class _Level(Struct):
    level: str


def level_of(params: bytes | None) -> str:
    """Read the params of `logging/setLevel`.

    Raises:
        ValueError: they do not name a log level.
    """
    try:
        level = msgspec.json.decode(params or b"{}", type=_Level).level
    except (msgspec.MsgspecError, RecursionError):
        level = ""
    if level not in LOG_LEVELS:
        raise ValueError(f"`level` must be one of {', '.join(LOG_LEVELS)}")
    return level


def is_logged(level: str, least: str) -> bool:
    """Return whether a client that set this least log level is sent messages of a level."""
    return LOG_LEVELS.index(level) >= LOG_LEVELS.index(least)


def warning(said: str) -> bytes:
    """Return the params of a log message of the gateway itself."""
    return encode({"level": "warning", "logger": "mcp-broker", "data": said})


class Objection(Exception):
    """A modern request lacks what it must say of itself; with the JSON-RPC error that says so."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


def check_modern(meta: dict[str, Any]) -> None:
    """Check the `_meta` of a modern request.

    Raises:
        Objection: it is of another version, or lacks a member that it must have.
    """
    version = meta[PROTOCOL_VERSION]
    if version != MODERN_VERSION:
        data = {"supported": [MODERN_VERSION], "requested": version}
        raise Objection(jsonrpc.UNSUPPORTED_VERSION, "Unsupported protocol version", data)
    if not isinstance(meta.get(CAPABILITIES), dict):
        raise Objection(jsonrpc.INVALID_PARAMS, f"`_meta` has no object `{CAPABILITIES}`")
    level = meta.get(LOG_LEVEL)
    if level is not None and level not in LOG_LEVELS:
        raise Objection(jsonrpc.INVALID_PARAMS, f"`{LOG_LEVEL}` must be one of {', '.join(LOG_LEVELS)}")
