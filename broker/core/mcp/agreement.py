"""Reads the results of `server/discover` and `initialize`.

Null is the same as absent, and an optional field of the wrong type is ignored.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

from broker.base.text import clip
from broker.core.mcp.methods import LEGACY_VERSIONS, MODERN_VERSION, Era

ACCEPTED_VERSIONS = (*LEGACY_VERSIONS, "2024-10-07")
"""The last is that of the first servers; the broker uses nothing that differs in it."""

INFO = "io.modelcontextprotocol/serverInfo"

SHOWN_BYTES = 200
"""The bytes of a server's answer that a reason shows."""


class Disagreement(Exception):
    """The server and the broker have no protocol version in common; the message names both."""


class Agreed(Struct, frozen=True):
    """The result of a handshake."""

    era: Era
    version: str
    capabilities: dict[str, Any]
    server_info: dict[str, Any]
    instructions: str | None
    ignored: tuple[str, ...] = ()
    """The optional fields of the answer that have the wrong type."""
    well_formed: bool = True
    """Whether the answer has all required fields."""

    def offers(self, capability: str, feature: str) -> bool:
        """Return whether the server declares this feature of a capability."""
        seen = self.capabilities.get(capability)
        return isinstance(seen, dict) and seen.get(feature) is True

    @property
    def tells_of_lists(self) -> list[str]:
        """The capabilities with a `listChanged` notification."""
        return [name for name in ("tools", "resources", "prompts") if self.offers(name, "listChanged")]

    @property
    def tells_of_resources(self) -> bool:
        """Whether it tells when a subscribed resource changes."""
        return self.offers("resources", "subscribe")


_NULL = Raw(b"null")


class _DiscoverResult(Struct):
    """The answer that proves a modern server. The optional fields may have any type."""

    supported_versions: list[str] = msgspec.field(name="supportedVersions")
    capabilities: dict[str, Any]
    instructions: Raw = _NULL
    meta: Raw = msgspec.field(default=_NULL, name="_meta")


class _Lenient(Struct):
    """The answer of a modern server without capabilities, or with versions that are no strings."""

    supported_versions: list[Any] = msgspec.field(name="supportedVersions")
    capabilities: Raw = _NULL
    instructions: Raw = _NULL
    meta: Raw = msgspec.field(default=_NULL, name="_meta")


class _InitializeResult(Struct):
    version: str = msgspec.field(name="protocolVersion")
    capabilities: Raw = _NULL
    server_info: Raw = msgspec.field(default=_NULL, name="serverInfo")
    instructions: Raw = _NULL


class RpcError(Struct):
    """A JSON-RPC error object. Its members may have any type."""

    code: Raw = _NULL
    message: Raw = _NULL
    data: Raw = _NULL


def reason_of(error: memoryview | bytes | None) -> str:
    """Return the message and code of a JSON-RPC error, for people."""
    try:
        seen = msgspec.json.decode(error or b"{}", type=RpcError)
    except msgspec.MsgspecError:
        return f"an error that is no error object: {shown(error or b'')}"
    message, code = _text(seen.message), _text(seen.code)
    said = shown(seen.message) if message is None else message
    if memoryview(seen.code) == memoryview(b"null"):
        return said
    return f"{said} ({shown(seen.code) if code is None else code})"


_UNKNOWN = re.compile(r"-32601|(?i:method[ _]?not[ _]?found|unknown[ _]method|no such method)")


def is_unknown_method(reason: str) -> bool:
    """Return whether an error says that the server does not have the method, by its code or in words."""
    return _UNKNOWN.search(reason) is not None


def shown(raw: Raw | memoryview | bytes) -> str:
    """Return the beginning of a server's answer, for a reason."""
    return clip(bytes(memoryview(raw)[:SHOWN_BYTES]).decode(errors="replace"), SHOWN_BYTES)


def _text(raw: Raw) -> str | None:
    return msgspec.json.decode(raw, type=str) if memoryview(raw)[0] == ord('"') else None


def discovered(result: memoryview) -> Agreed:
    """Read the result of `server/discover`.

    Raises:
        Disagreement: the server speaks other versions.
        msgspec.MsgspecError: it is no result of this method.
    """
    try:
        seen: _DiscoverResult | _Lenient = msgspec.json.decode(result, type=_DiscoverResult)
    except msgspec.MsgspecError:
        seen = msgspec.json.decode(result, type=_Lenient)
    if MODERN_VERSION not in seen.supported_versions:
        theirs = clip(", ".join(map(str, seen.supported_versions))) or "none that it names"
        ours = ", ".join((MODERN_VERSION, *LEGACY_VERSIONS))
        raise Disagreement(f"it speaks the protocol versions {theirs}; the broker speaks {ours}")
    fields, well_formed = _Fields(), isinstance(seen, _DiscoverResult)
    info = fields.mapping(seen, "meta").get(INFO)
    return Agreed(
        Era.MODERN,
        MODERN_VERSION,
        _declared(
            seen.capabilities if isinstance(seen, _DiscoverResult) else fields.mapping(seen, "capabilities")
        ),
        info if isinstance(info, dict) else {},
        fields.text(seen, "instructions"),
        tuple(fields.ignored),
        well_formed,
    )


def initialized(result: memoryview) -> Agreed:
    """Read the result of `initialize`.

    Raises:
        Disagreement: the server speaks another version.
        msgspec.MsgspecError: it is no result of this method.
    """
    seen, fields = msgspec.json.decode(result, type=_InitializeResult), _Fields()
    if seen.version not in ACCEPTED_VERSIONS:
        theirs, ours = clip(seen.version), ", ".join(LEGACY_VERSIONS)
        raise Disagreement(f"it answered initialize with protocol version {theirs}; the broker speaks {ours}")
    return Agreed(
        Era.LEGACY,
        seen.version,
        _declared(fields.mapping(seen, "capabilities")),
        fields.mapping(seen, "server_info"),
        fields.text(seen, "instructions"),
        tuple(fields.ignored),
    )


def _declared(capabilities: dict[str, Any]) -> dict[str, Any]:
    """Return the capabilities without null members."""
    return {name: value for name, value in capabilities.items() if value is not None}


class _Fields:
    """Reads optional fields: null is absent; a field of the wrong type is ignored and remembered."""

    def __init__(self) -> None:
        self.ignored: list[str] = []

    def mapping(self, seen: Struct, name: str) -> dict[str, Any]:
        value = self._value(seen, name)
        return value if isinstance(value, dict) else self._ignore(name, value, {})

    def text(self, seen: Struct, name: str) -> str | None:
        value = self._value(seen, name)
        return value if isinstance(value, str) else self._ignore(name, value, None)

    def _value(self, seen: Struct, name: str) -> Any:
        return msgspec.json.decode(getattr(seen, name))

    def _ignore(self, name: str, value: object, default: Any) -> Any:
        if value is not None:
            self.ignored.append({"server_info": "serverInfo", "meta": "_meta"}.get(name, name))
        return default
