"""Opening a conversation with a server: which era is it of, which revision, what can it do?

Sources: 2026-07-28 basic/transports/stdio, *Backward Compatibility* (the probe), and 2025-11-25
basic/lifecycle, *Initialization*. The automaton only says what to ask; ids and lines are its user's.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from broker.core.jsonrpc import Reply
from broker.core.methods import LEGACY_VERSIONS, MODERN_VERSION, Era

PROBE_S = 5.0
"""How long a server that has shown a sign of life may leave the era probe unanswered."""

MAX_REPLY_BYTES = 1024 * 1024
"""What a server says of itself is taken apart and kept, which takes many times the memory of the text."""

_UNSUPPORTED_VERSION = -32022
_MODERN_ERRORS = frozenset({-32020, -32021, _UNSUPPORTED_VERSION})


class Ask(Struct, frozen=True):
    """Send this request, and hand the reply back."""

    method: str
    body: bytes
    modern: bool


class Tell(Struct, frozen=True):
    """Send this notification."""

    method: str


class Agreed(Struct, frozen=True):
    """The conversation is open."""

    era: Era
    version: str
    capabilities: dict[str, Any]
    server_info: dict[str, Any]
    instructions: str | None

    def offers(self, capability: str, feature: str) -> bool:
        """Whether the server has this feature of a capability."""
        seen = self.capabilities.get(capability)
        return isinstance(seen, dict) and seen.get(feature) is True

    @property
    def tells_of_lists(self) -> list[str]:
        """The capabilities of which it tells when their lists change."""
        return [name for name in ("tools", "resources", "prompts") if self.offers(name, "listChanged")]

    @property
    def tells_of_resources(self) -> bool:
        """Whether it tells when a resource changes that was subscribed to."""
        return self.offers("resources", "subscribe")


class Failed(Struct, frozen=True):
    """It cannot be opened, and why."""

    reason: str


Step = Ask | Tell | Agreed | Failed


class _Discovered(Struct):
    supported_versions: list[str] = msgspec.field(name="supportedVersions")
    capabilities: dict[str, Any] = {}
    instructions: str | None = None
    meta: dict[str, Any] = msgspec.field(default_factory=dict, name="_meta")


class _Initialized(Struct):
    version: str = msgspec.field(name="protocolVersion")
    capabilities: dict[str, Any] = {}
    server_info: dict[str, Any] = msgspec.field(default_factory=dict, name="serverInfo")
    instructions: str | None = None


class RpcError(Struct):
    """A JSON-RPC error object, as far as the broker looks into one."""

    code: int = 0
    message: str = ""
    data: Raw = Raw(b"null")


def reason_of(error: memoryview | bytes | None) -> str:
    """What a JSON-RPC error says."""
    try:
        seen = msgspec.json.decode(error or b"{}", type=RpcError)
    except msgspec.MsgspecError:
        return "it answered with an error that does not follow the protocol"
    return f"{seen.message} ({seen.code})"


class Handshake:
    """The handshake with one process.

    Args:
        protocol: what the config says; "auto" asks the server.
        remembered: what an earlier process of this server turned out to be, which saves the probe.
        start_s: the time the server has for its whole start (`timeout_start_sec`).
        client_info: what the broker calls itself.
        capabilities: what it can do for a server of the older era.
    """

    def __init__(
        self,
        protocol: Literal["auto", "legacy", "2026-07-28"],
        remembered: Era | None,
        start_s: float,
        client_info: dict[str, str],
        capabilities: dict[str, Any] | None = None,
    ) -> None:
        legacy = protocol == "legacy" or (protocol == "auto" and remembered is Era.LEGACY)
        self._client_info = client_info
        self._capabilities = capabilities or {}
        self._may_fall_back = protocol == "auto"
        self._start_s = start_s
        self._first = "initialize" if legacy else "server/discover"
        self._open: set[str] = set()
        self._heard = False
        self.wake_at: float | None = None

    def start(self, now: float) -> list[Step]:
        """The first request."""
        if self._first == "server/discover" and self._may_fall_back:
            self.wake_at = now + self._start_s / 2 + self._probe_s
        return [self._ask(self._first)]

    @property
    def _probe_s(self) -> float:
        return min(PROBE_S, self._start_s / 4)

    @property
    def probing(self) -> bool:
        """Whether the era probe is unanswered: a server that exits now is an older one."""
        return self._may_fall_back and self._open == {"server/discover"}

    def heard(self, now: float) -> None:
        """The server wrote something, to stdout or stderr: it runs, and the probe's time starts."""
        if not self._heard and self.wake_at is not None:
            self.wake_at = min(self.wake_at, now + self._probe_s)
        self._heard = True

    def timeout(self) -> list[Step]:
        """`wake_at` has come: the probe stays unanswered, so the server is asked in the old way too."""
        self.wake_at = None
        return [self._ask("initialize")]

    def reply(self, method: str, reply: Reply) -> list[Step]:
        """The reply to one of the two requests. After a fallback the first good one counts."""
        self._open.discard(method)
        self.wake_at = None
        size = len(reply.error or reply.result or b"")
        if size > MAX_REPLY_BYTES:
            return [Failed(f"its reply to {method} is {size} bytes, and may be {MAX_REPLY_BYTES}")]
        try:
            if reply.error is not None:
                return self._refused(method, msgspec.json.decode(reply.error, type=RpcError))
            assert reply.result is not None
            if method == "initialize":
                return self._initialized(msgspec.json.decode(reply.result, type=_Initialized))
            return self._discovered(msgspec.json.decode(reply.result, type=_Discovered))
        except msgspec.MsgspecError as error:
            return [Failed(f"its reply to {method} does not follow the protocol: {error}")]

    def _refused(self, method: str, error: RpcError) -> list[Step]:
        if method == "initialize":
            if self._open:  # the probe may still be answered
                return []
            return [Failed(f"it refused initialize: {error.message} ({error.code})")]
        if error.code == _UNSUPPORTED_VERSION:
            data = msgspec.json.decode(error.data)
            supported = data.get("supported") if isinstance(data, dict) else None
            return self._choose(supported if isinstance(supported, list) else [])
        if error.code in _MODERN_ERRORS or not self._may_fall_back:
            return [Failed(f"it refused server/discover: {error.message} ({error.code})")]
        return [] if "initialize" in self._open else [self._ask("initialize")]

    def _discovered(self, seen: _Discovered) -> list[Step]:
        if MODERN_VERSION not in seen.supported_versions:
            return self._choose(seen.supported_versions)
        info = seen.meta.get("io.modelcontextprotocol/serverInfo")
        server_info = info if isinstance(info, dict) else {}
        return [Agreed(Era.MODERN, MODERN_VERSION, seen.capabilities, server_info, seen.instructions)]

    def _choose(self, supported: list[Any]) -> list[Step]:
        """The server does not speak the modern revision that the broker speaks."""
        if self._may_fall_back and any(version in LEGACY_VERSIONS for version in supported):
            return [] if "initialize" in self._open else [self._ask("initialize")]
        theirs = ", ".join(map(str, supported)) or "none that it names"
        ours = ", ".join((MODERN_VERSION, *LEGACY_VERSIONS))
        return [Failed(f"it speaks the protocol versions {theirs}; the broker speaks {ours}")]

    def _initialized(self, seen: _Initialized) -> list[Step]:
        if seen.version not in LEGACY_VERSIONS:
            ours = ", ".join(LEGACY_VERSIONS)
            return [
                Failed(
                    f"it answered initialize with protocol version {seen.version}; the broker speaks {ours}"
                )
            ]
        agreed = Agreed(Era.LEGACY, seen.version, seen.capabilities, seen.server_info, seen.instructions)
        return [Tell("notifications/initialized"), agreed]

    def _ask(self, method: str) -> Ask:
        self._open.add(method)
        if method == "server/discover":
            return Ask(method, b"{}", True)
        params = {
            "protocolVersion": LEGACY_VERSIONS[0],
            "capabilities": self._capabilities,
            "clientInfo": self._client_info,
        }
        return Ask(method, msgspec.json.encode(params), False)
