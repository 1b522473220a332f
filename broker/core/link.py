"""The broker's own conversation with one process of a server: the handshake, then the lists.

A link lives as long as the process. Its requests have ids of the broker's own, as the calls of
clients have; the multiplexer hands it the replies that are meant for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from broker.core import jsonrpc
from broker.core.catalog import Catalogue, Reading, changed_lists, lists_for
from broker.core.config import ServerConfig
from broker.core.effects import Effect, Level, Opened, Unfit, Write, note
from broker.core.handshake import Agreed, Ask, Handshake, RpcError, Step, Tell
from broker.core.jsonrpc import Reply
from broker.core.methods import MODERN_VERSION, Era
from broker.core.texts import clip

_META = "io.modelcontextprotocol/"
_RESERVED = frozenset({"progressToken", _META + "protocolVersion", _META + "subscriptionId"})
_LISTS = frozenset({"tools", "resources", "prompts"})
_MODERN_ONLY = frozenset({_META + "clientInfo", _META + "clientCapabilities", _META + "logLevel"})


class _Pending(Struct):
    """A request of the broker's own: part of the handshake, or, with `reading`, a page of a list."""

    method: str
    reading: Reading | None
    deadline: float


class Link:
    """One process's conversation.

    Args:
        config: the server's.
        remembered: the era that an earlier process of it had.
        new_id: gives ids that nothing else uses.
        max_bytes: the limit on one list.
        client_info: what the broker calls itself.
    """

    def __init__(
        self,
        config: ServerConfig,
        remembered: Era | None,
        new_id: Callable[[], int],
        max_bytes: int,
        client_info: dict[str, str],
    ) -> None:
        self._config = config
        self._new_id = new_id
        self._max_bytes = max_bytes
        self._client_info = client_info
        self._handshake = Handshake(config.protocol, remembered, config.timeout_start_sec, client_info)
        self._pending: dict[int, _Pending] = {}
        self._again: set[str] = set()
        self.catalogue: Catalogue | None = None
        self._subscription: int | None = None
        self.opened = False

    @property
    def era(self) -> Era | None:
        """The era, once it is known."""
        return self.catalogue.agreed.era if self.catalogue else None

    @property
    def probing(self) -> bool:
        """Whether an exit now means an older server rather than a failure."""
        return self._handshake.probing

    def greet(self, now: float) -> list[Effect]:
        """The process is there: begin."""
        return self._take(self._handshake.start(now), now)

    def heard(self, now: float) -> None:
        """The process wrote something, on either of its outputs."""
        self._handshake.heard(now)

    def reply(self, id: jsonrpc.Id, reply: Reply, now: float) -> list[Effect] | None:
        """Take in a reply; `None` if it is not for one of this link's own requests."""
        if id == self._subscription:
            self._subscription = None
            return [note(Level.INFO, "subscription.ended", server=self._config.name)]
        pending = self._pending.pop(id, None) if type(id) is int else None
        if pending is None:
            return None
        if pending.reading is None:
            if self.catalogue is not None:
                return []  # the other of two handshake requests was answered first
            return self._take(self._handshake.reply(pending.method, reply), now)
        return self._page(pending.reading, reply, now)

    def broken(self, id: jsonrpc.Id | None, reason: str) -> list[Effect] | None:
        """A reply that cannot be read; `None` if it is not for one of this link's own requests."""
        pending = self._pending.pop(id, None) if type(id) is int else None
        if pending is None:
            return None
        if pending.reading is None:
            if self.catalogue is not None:
                return []  # the other of two handshake requests was answered first
            return [self._unfit(f"its reply to {pending.method} cannot be read: {reason}")]
        return self._unread(pending.reading, reason)

    def changed(self, notification: str, now: float) -> list[Effect] | None:
        """Read again what the server says has changed; `None` if it is no such notification."""
        methods = changed_lists(notification)
        if not methods:
            return None
        if not self.opened:
            self._again.update(methods)  # what was read of them just now may be old
            return []
        return [effect for method in methods for effect in self.refresh(method, now)]

    def catch_up(self, now: float) -> list[Effect]:
        """It is open: read again what has changed while it was being opened."""
        methods, self._again = sorted(self._again), set()
        return [effect for method in methods for effect in self.refresh(method, now)]

    def refresh(self, method: str, now: float) -> list[Effect]:
        """Read a list anew; while it is being read, once more after that."""
        if self.catalogue is None or method not in lists_for(self.catalogue.agreed.capabilities):
            return []
        if any(pending.method == method for pending in self._pending.values()):
            self._again.add(method)
            return []
        return [self._ask_page(Reading(method, self._max_bytes), b"{}", now)]

    @property
    def wake_at(self) -> float | None:
        """When `tick` is due."""
        times = [pending.deadline for pending in self._pending.values() if self.opened]
        if self._handshake.wake_at is not None:
            times.append(self._handshake.wake_at)
        return min(times, default=None)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: fall back from the probe, or give up on a list."""
        effects: list[Effect] = []
        if self._handshake.wake_at is not None and self._handshake.wake_at <= now:
            effects += self._take(self._handshake.timeout(), now)
        if self.opened:
            for id, pending in list(self._pending.items()):
                if pending.deadline <= now and pending.reading is not None:
                    del self._pending[id]
                    effects += self._unread(pending.reading, f"no answer within {self._config.timeout:g} s")
        return effects

    def meta(self, given: dict[str, Any] | None, token: int | None) -> dict[str, Any] | None:
        """The `_meta` that a request of a client gets: its own, less what only the broker may say."""
        modern = self.era is Era.MODERN
        dropped = _RESERVED if modern else _RESERVED | _MODERN_ONLY
        meta = {key: value for key, value in given.items() if key not in dropped} if given else {}
        if modern:
            meta[_META + "protocolVersion"] = MODERN_VERSION
            meta.setdefault(_META + "clientInfo", self._client_info)
            meta.setdefault(_META + "clientCapabilities", {})
        if token is not None:
            meta["progressToken"] = token
        return meta or None

    def _take(self, steps: list[Step], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for step in steps:
            if isinstance(step, Ask):
                effects.append(self._ask(step.method, step.body, None, now, modern=step.modern))
            elif isinstance(step, Tell):
                effects.append(Write(self._config.name, jsonrpc.notification_line(step.method)))
            elif isinstance(step, Agreed):
                effects += self._agreed(step, now)
            else:
                effects.append(self._unfit(step.reason))
        return effects

    def _agreed(self, agreed: Agreed, now: float) -> list[Effect]:
        self.catalogue = Catalogue(agreed)
        methods = lists_for(agreed.capabilities)
        effects: list[Effect] = [
            self._ask_page(Reading(method, self._max_bytes), b"{}", now) for method in methods
        ]
        return effects + self._finish()

    def _page(self, reading: Reading, reply: Reply, now: float) -> list[Effect]:
        if reply.result is None:
            error = reply.error or b"{}"
            return self._unread(reading, _reason(error))
        try:
            next_page = reading.page(reply.result)
        except (ValueError, msgspec.MsgspecError) as error:
            return self._unread(reading, str(error))
        if next_page is not None:
            return [self._ask_page(reading, next_page, now)]
        return self._read(reading, now)

    def _read(self, reading: Reading, now: float) -> list[Effect]:
        assert self.catalogue is not None
        effects: list[Effect] = []
        if reading.repeated:
            server, repeated = self._config.name, reading.repeated
            effects.append(
                note(
                    Level.WARNING, "catalogue.repeated", server=server, list=reading.method, repeated=repeated
                )
            )
        differs = self.catalogue.put(reading.method, reading.listing(self.catalogue.agreed.era))
        if self.opened and differs:
            effects.append(
                note(Level.INFO, "catalogue.changed", server=self._config.name, list=reading.method)
            )
        if self.opened and reading.method in self._again:
            self._again.discard(reading.method)
            effects += self.refresh(reading.method, now)
        return effects + self._finish()

    def _unread(self, reading: Reading, reason: str) -> list[Effect]:
        """A list cannot be had. The server is of use without it; an earlier one stays."""
        server, method = self._config.name, reading.method
        self._again.discard(method)
        warning = note(Level.WARNING, "catalogue.unread", server=server, list=method, reason=clip(reason))
        return [warning, *self._finish()]

    def _finish(self) -> list[Effect]:
        if self.opened or any(pending.reading for pending in self._pending.values()):
            return []
        self.opened = True
        self._pending.clear()  # a handshake request that was not the one to count
        return [Opened(self._config.name), *self._subscribe()]

    def _subscribe(self) -> list[Effect]:
        """A modern server tells of changed lists only who listens: one request, which never ends."""
        if self.catalogue is None or self.era is not Era.MODERN:
            return []
        wanted = {
            f"{name}ListChanged": True
            for name, capability in self.catalogue.agreed.capabilities.items()
            if name in _LISTS and isinstance(capability, dict) and capability.get("listChanged") is True
        }
        if not wanted:
            return []
        self._subscription = self._new_id()
        body = msgspec.json.encode({"notifications": wanted})
        line = jsonrpc.request_line(self._subscription, "subscriptions/listen", body, self._own_meta())
        return [Write(self._config.name, line)]

    def _unfit(self, reason: str) -> Effect:
        return Unfit(self._config.name, reason)

    def _ask_page(self, reading: Reading, body: bytes, now: float) -> Effect:
        return self._ask(reading.method, body, reading, now, modern=self.era is Era.MODERN)

    def _ask(self, method: str, body: bytes, reading: Reading | None, now: float, *, modern: bool) -> Effect:
        id = self._new_id()
        self._pending[id] = _Pending(method, reading, now + self._config.timeout)
        meta = self._own_meta() if modern else None
        return Write(self._config.name, jsonrpc.request_line(id, method, body, meta))

    def _own_meta(self) -> dict[str, Any]:
        return {
            _META + "protocolVersion": MODERN_VERSION,
            _META + "clientInfo": self._client_info,
            _META + "clientCapabilities": {},
        }


def _reason(error: memoryview | bytes) -> str:
    try:
        seen = msgspec.json.decode(error, type=RpcError)
    except msgspec.MsgspecError:
        return "it answered with an error that does not follow the protocol"
    return f"{seen.message} ({seen.code})"
