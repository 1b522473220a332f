"""The handshake with a server: finds out its era, its protocol version and its capabilities.

Sources: 2026-07-28 basic/transports/stdio, *Backward Compatibility* (the probe), and 2025-11-25
basic/lifecycle, *Initialization*. The automaton returns what to send; its session makes ids and lines.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from broker.base.text import clip
from broker.base.tolerances import Fact, Oddity, Tolerated
from broker.core.mcp.agreement import (
    Agreed,
    Disagreement,
    discovered,
    initialized,
    is_unknown_method,
    reason_of,
    shown,
)
from broker.core.mcp.jsonrpc import Broken, ServerReply
from broker.core.mcp.methods import LEGACY_VERSIONS, Era

START_UP_S = 3.0
"""The time that an ordinary interpreter takes to start, without a sign of life."""

PROBE_S = 3.0
"""The time that a server has to answer the era probe after its first sign of life. Then `initialize` is sent,
too; this does no harm to a modern server, which answers the probe first."""

NOISE_S = 0.5
"""The same after a line that is no message, which may have been its answer."""

HANGS_S = 20.0
"""The time that a server has to answer either request after it has read the probe. Some never do. Others read
their stdin at once and load a model before they answer, and must not be restarted."""

MAX_REPLY_BYTES = 1024 * 1024
"""The largest result of a handshake: it is decoded and kept, which takes many times its size."""

DISCOVER, INITIALIZE = "server/discover", "initialize"


class Ask(Struct, frozen=True):
    """Send this request, and pass its reply to `reply`."""

    method: str
    body: bytes
    modern: bool


class Tell(Struct, frozen=True):
    """Send this notification."""

    method: str


class Failed(Struct, frozen=True):
    """The handshake has failed for this reason."""

    reason: str


class Restart(Struct, frozen=True):
    """The probe hung the process: start another one, and send it `initialize` only."""


Step = Ask | Tell | Agreed | Failed | Restart | Tolerated


class Handshake:
    """The handshake with one process.

    Only a well-formed modern answer to the probe proves a modern server. After any other answer, or a short
    silence, the handshake sends `initialize` as well, and the first good answer counts.

    Args:
        protocol: the value in the config; "auto" sends the probe.
        remembered: the era of an earlier process, which saves the probe.
        start_s: the time of the whole start (`timeout_start_sec`).
        client_info: the broker's name and version.
        capabilities: the broker's capabilities for a server of the older era.
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
        self._may_ask_both = protocol == "auto"
        self._start_s = start_s
        self._first = INITIALIZE if legacy else DISCOVER
        self._asked: dict[str, float] = {}
        self._refusals: dict[str, str] = {}
        self._spare: Agreed | None = None
        self._heard = self._taken = False
        self._over = False
        self.wake_at: float | None = None

    def start(self, now: float) -> list[Step]:
        """Return the first request."""
        if self._first == DISCOVER and self._may_ask_both:
            self.wake_at = now + min(START_UP_S, self._start_s / 2) + self._probe_s
        return [self._ask(self._first, now)]

    @property
    def _probe_s(self) -> float:
        return min(PROBE_S, self._start_s / 4)

    @property
    def _hangs_s(self) -> float:
        return min(HANGS_S, self._start_s / 4)

    def _waits_for(self, method: str) -> bool:
        return not self._over and method in self._asked and method not in self._refusals

    @property
    def probing(self) -> bool:
        """Whether a server that exits now is one of the older era.

        Some refuse the probe, since the first message must be `initialize`, and exit then.
        """
        asked = self._may_ask_both and DISCOVER in self._asked
        return asked and not self._over and INITIALIZE not in self._refusals

    @property
    def probe_refused(self) -> bool:
        """Whether the server has refused the probe, and may take nothing else after it."""
        return self._may_ask_both and self._first == DISCOVER and DISCOVER in self._refusals

    @property
    def _probe_open(self) -> bool:
        return self.probing and DISCOVER not in self._refusals

    @property
    def _only_probed(self) -> bool:
        return self._probe_open and INITIALIZE not in self._asked

    @property
    def probed(self) -> bool:
        """Whether the probe may be the cause of a failure, which `protocol = "legacy"` would avoid."""
        refused = is_unknown_method(self._refusals.get(DISCOVER, ""))
        return self._may_ask_both and DISCOVER in self._asked and not refused

    @property
    def unanswered(self) -> list[str]:
        """The requests without an answer."""
        return [method for method in self._asked if self._waits_for(method)]

    def heard(self, now: float) -> None:
        """Note that the server wrote to stdout or stderr: it runs, and the time of the probe begins."""
        if self._only_probed and not self._heard:
            self._by(now + self._probe_s)
        elif self._probe_open and self.wake_at is not None and not self._only_probed:
            self.wake_at = now + self._hangs_s  # it is working
        self._heard = True

    def noise(self, now: float) -> None:
        """Note a line that is no message, or that answers no request."""
        if self._only_probed:
            self._by(now + min(NOISE_S, self._probe_s))

    def taken(self, now: float) -> None:
        """Note that the server has read everything on its stdin."""
        if not self._taken:
            self._taken = True
            self.heard(now)
            if self._probe_open and not self._only_probed:
                self.wake_at = now + self._hangs_s

    def _by(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def timeout(self, now: float) -> list[Step]:
        """Send `initialize` as well, or restart the server without the probe, at `wake_at`."""
        self.wake_at = None
        if INITIALIZE in self._asked:
            return [Restart()] if self._probe_open else []
        if self._taken:
            self.wake_at = now + self._hangs_s
        return [self._ask(INITIALIZE, now)]

    def reply(self, method: str, reply: ServerReply | Broken, now: float) -> list[Step]:
        """Take in the reply to one of the two requests."""
        if isinstance(reply, Broken):
            return self.refused(method, f"its reply to {method} cannot be used: {reply.reason}", now)
        if reply.error is not None:
            return self.refused(method, f"it refused {method}: {reason_of(reply.error)}", now)
        assert reply.result is not None
        if (size := len(reply.result)) > MAX_REPLY_BYTES:
            why = f"its reply to {method} is {size} bytes, and may be {MAX_REPLY_BYTES}"
            return self.refused(method, why, now)
        try:
            agreed = (initialized if method == INITIALIZE else discovered)(reply.result)
        except Disagreement as error:
            return self.refused(method, str(error), now)
        except msgspec.MsgspecError as error:
            why = f"its reply to {method} does not follow the protocol: {error}; it was {shown(reply.result)}"
            return self.refused(method, why, now)
        if method == DISCOVER and not agreed.well_formed:
            self._spare = agreed
            why = f"its reply to {method} is not that of a modern server: {shown(reply.result)}"
            return self.refused(method, why, now)
        return self._agree(method, agreed)

    def refused(self, method: str, why: str, now: float) -> list[Step]:
        """Note that one of the two requests failed; send the other one if that is allowed."""
        self._refusals[method] = why
        self.wake_at = None
        other = INITIALIZE if method == DISCOVER else DISCOVER
        if self._may_ask_both and other not in self._asked:
            return [*self._remembered_wrongly(other, why), self._ask(other, now)]
        if self._waits_for(other):
            return []
        if self._spare is not None:
            return self._agree(DISCOVER, self._spare)
        self._over = True
        return [Failed("; ".join(self._reasons(method, other)))]

    def _reasons(self, *methods: str) -> list[str]:
        """Return why each failed, except that an older server does not know the probe."""
        told = [
            self._refusals[method]
            for method in methods
            if method in self._refusals
            and not (method == DISCOVER and is_unknown_method(self._refusals[method]))
        ]
        return told or [self._refusals[methods[0]]]

    def _remembered_wrongly(self, other: str, reason: str) -> list[Step]:
        if other == DISCOVER:
            return [Tolerated(Oddity.FORGOTTEN)]
        return [] if is_unknown_method(reason) else [Tolerated(Oddity.PROBE_ODD, {"reason": clip(reason)})]

    def _agree(self, method: str, agreed: Agreed) -> list[Step]:
        self.wake_at, self._over = None, True
        odd: list[Step] = []
        if agreed.ignored:
            fields: dict[str, Fact] = {"method": method, "fields": ", ".join(agreed.ignored)}
            odd.append(Tolerated(Oddity.FIELD, fields))
        if agreed.era is Era.MODERN:
            return [*odd, agreed]
        if DISCOVER in self._asked and DISCOVER not in self._refusals:
            odd.append(Tolerated(Oddity.PROBE_UNANSWERED))
        if agreed.version not in LEGACY_VERSIONS:
            odd.append(Tolerated(Oddity.OLD_VERSION, {"version": agreed.version}))
        return [*odd, Tell("notifications/initialized"), agreed]

    def _ask(self, method: str, now: float) -> Ask:
        self._asked[method] = now
        if method == DISCOVER:
            return Ask(method, b"{}", True)
        params = {
            "protocolVersion": LEGACY_VERSIONS[0],
            "capabilities": self._capabilities,
            "clientInfo": self._client_info,
        }
        return Ask(method, msgspec.json.encode(params), False)
