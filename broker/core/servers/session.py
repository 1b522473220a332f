"""The session with one process of a server: the handshake, the lists, and the subscription.

A session lives as long as its process. Its requests take their ids from the same sequence as the calls of
clients; `replies` passes on the replies to them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from broker.base.rate_limit import soonest
from broker.base.text import clip
from broker.base.tolerances import Tolerated
from broker.config.schema import ServerConfig
from broker.core.effects import Effect, EndProcess, Opened, Respawn, Write
from broker.core.mcp import jsonrpc
from broker.core.mcp.agreement import Agreed, shown
from broker.core.mcp.handshake import Ask, Handshake, Restart, Step, Tell
from broker.core.mcp.jsonrpc import Broken, ServerNotification, ServerReply
from broker.core.mcp.meta import own_meta
from broker.core.mcp.methods import Era
from broker.core.servers.catalogue import Catalogue, changed_lists
from broker.core.servers.listen_stream import ListenStream
from broker.core.servers.lists import MAX_LATE, Lists, Read, Sift
from broker.core.servers.subscription import (
    LegacySubscription,
    Missed,
    NotSubscribed,
    ServerSubscription,
    SubscriptionEvent,
)
from broker.core.servers.visibility import Sifted, Visibility

OFFERED: dict[str, dict[str, Any]] = {"elicitation": {"form": {}}, "sampling": {}}
"""The capabilities that the broker declares to a server that asks within calls."""

MAX_REASON_CHARS = 1000
"""The longest reason for a failed handshake that is kept: a part of it may be the server's own words."""


Did = Effect | Read | Sift | Missed | NotSubscribed | Tolerated
"""What a session has done: effects for the shell, and events for `replies`."""


class McpSession:
    """The session with one process.

    Args:
        config: returns the current config of the server; its process keeps no copy.
        remembered: the era of an earlier process.
        new_id: makes unique ids.
        max_bytes: the limit of one list.
        client_info: the broker's name and version.
        uris: the resources that clients have subscribed to.
        again: whether the server had a process before.
        spared: the lists that are not requested at the start.
        visible: returns what clients see of the server.
    """

    def __init__(
        self,
        config: Callable[[], ServerConfig],
        remembered: Era | None,
        new_id: Callable[[], int],
        max_bytes: int,
        client_info: dict[str, str],
        uris: Collection[str] = (),
        again: bool = False,
        spared: Collection[str] = (),
        visible: Callable[[], Visibility | None] = lambda: None,
    ) -> None:
        self._visible = visible
        self._name = config().name
        self._timeout_s = lambda: config().timeout
        self._new_id = new_id
        self._max_bytes = max_bytes
        self.client_info = client_info
        self._handshake = Handshake(
            config().protocol,
            remembered,
            config().timeout_start_sec,
            client_info,
            {**({"roots": {}} if config().roots else {}), **(OFFERED if config().asks_within_calls else {})},
        )
        self.may_ask = config().asks_within_calls
        """Whether the process was told that clients answer questions."""
        self.proved_wrong = False
        """Whether it asked a question while it had no call."""
        self._asked: dict[int, str] = {}
        self._answered: deque[int] = deque(maxlen=MAX_LATE)
        self._uris, self._was_there, self._spared = uris, again, spared
        self._subscription: ServerSubscription | None = None
        self._lists: Lists | None = None
        self._last_line = ""
        self._wrote_json = False
        self.hung = False
        """Whether the era probe hung it."""
        self.opened = False
        self.was_refused = False
        """Whether a question of this process was refused before."""

    @property
    def catalogue(self) -> Catalogue | None:
        """The catalogue, once the handshake is done."""
        return self._lists.catalogue if self._lists else None

    @property
    def era(self) -> Era | None:
        """The era, once the handshake is done."""
        return self.catalogue.agreed.era if self.catalogue else None

    @property
    def probing(self) -> bool:
        """Whether an exit now shows an older server rather than a failure."""
        return self._handshake.probing

    @property
    def probe_refused(self) -> bool:
        """Whether the process has refused the era probe."""
        return self._handshake.probe_refused

    def greet(self, now: float) -> list[Did]:
        """Begin the handshake."""
        return self._take(self._handshake.start(now), now)

    def heard(self, now: float) -> None:
        """Note that the process wrote to its stdout or stderr."""
        self._handshake.heard(now)

    def taken(self, now: float) -> None:
        """Note that the process has read everything on its stdin."""
        self._handshake.taken(now)

    def noise(self, line: bytes, now: float) -> None:
        """Note a line that is no message, or that answers no open request."""
        if self.catalogue is None:
            self._last_line = shown(line.strip()) or self._last_line
            self._wrote_json |= line.lstrip().startswith(b"{")
            self._handshake.noise(now)

    def is_own_request(self, id: jsonrpc.Id | None) -> bool:
        """Return whether this is the id of an open request of the handshake."""
        return id in self._asked

    def unbearable(self, failed: bool) -> Collection[str]:
        """Return the lists that should not be requested at the start of the next process."""
        return self._lists.unbearable(failed) if self._lists is not None else ()

    @property
    def waits(self) -> bool:
        """Whether a request of the broker's own is open."""
        return self._lists.waits if self._lists else bool(self._asked)

    @property
    def has_request(self) -> bool:
        """Whether the process has a request of the broker's own, health checks excepted."""
        changing = self._subscription is not None and self._subscription.waits
        return self.waits or changing or not self.opened

    def is_late(self, id: jsonrpc.Id | None) -> bool:
        """Return whether this is the id of a request of the session that is answered or given up."""
        return (
            id in self._asked or id in self._answered or (self._lists is not None and self._lists.is_late(id))
        )

    def _take_asked(self, id: jsonrpc.Id) -> str | None:
        """Close an open request of the handshake; return its method."""
        method = self._asked.pop(id, None) if type(id) is int else None
        if method is not None and type(id) is int:
            self._answered.append(id)
        return method

    @property
    def hint(self) -> str:
        """The requests without an answer, the last other line, and advice, until the session is open."""
        asked, parts = self._handshake.unanswered, []
        if asked:
            parts.append(f"it was sent {' and '.join(asked)}, and has not answered")
        if asked and self._last_line:
            parts.append(f"the last line on its stdout was: {self._last_line}")
        if asked and self._wrote_json:
            parts.append('an answer has `"jsonrpc": "2.0"` and the id of its request')
        if self._lists is not None and self._lists.unanswered:
            parts.append(f"it has not answered {', '.join(self._lists.unanswered)}")
        return "; ".join([*parts, *self._way_out])

    @property
    def _way_out(self) -> list[str]:
        if self.catalogue is not None or not self._handshake.probed:
            return []
        return [f'if it is an older server, `protocol = "legacy"` in [servers.{self._name}] may help']

    def reply(self, reply: ServerReply | Broken, now: float) -> list[Did] | None:
        """Take in a reply; return `None` if it answers no request of the session."""
        if reply.id is None:
            return None
        method = self._take_asked(reply.id)
        if method is not None:
            if self._lists is not None:
                return []  # the server answered the other request of the handshake first
            return self._take(self._handshake.reply(method, reply, now), now)
        read = self._lists.reply(reply.id, reply, now) if self._lists else None
        if read is not None:
            return self._ready([*read], now)
        heard = self._subscription.reply(reply.id, reply, now) if self._subscription else None
        return None if heard is None else self._heard(heard, now)

    def sifted(self, read: Sift, sifted: Sifted | None, now: float) -> list[Did]:
        """Go on with a list that was read: this is what clients see of it."""
        return self._ready([*self._lists.sifted(read, sifted, now)], now) if self._lists else []

    def told(self, told: ServerNotification, now: float) -> list[Did] | None:
        """Take in a notification; return `None` if it is not about lists or a subscription."""
        heard = self._subscription.told(told, now) if self._subscription else None
        if heard is not None:
            return self._heard(heard, now)
        changed = self._lists.changed(told.method, now) if self._lists else _changed_early(told.method)
        return None if changed is None else [*changed]

    def want(self, uris: Collection[str], now: float) -> list[Did]:
        """Subscribe to these resources, which clients want."""
        self._uris = uris
        return self._heard(self._subscription.want(uris, now), now) if self._subscription else []

    def hears_of(self, capability: str) -> bool:
        """Return whether the server tells when the lists of this capability change."""
        return self._subscription is not None and self._subscription.hears_of(capability)

    def _heard(self, heard: list[SubscriptionEvent], now: float) -> list[Did]:
        did: list[Did] = []
        for one in heard:
            did.append(one)
            if isinstance(one, Missed) and one.lists and self._lists is not None:
                did += self._lists.missed(now)
        return did

    # -- its lists --------------------------------------------------------------------------------

    def catch_up(self, now: float) -> list[Effect]:
        """Read the lists again that changed during the start."""
        return self._lists.catch_up(now) if self._lists else []

    def refresh(self, method: str, now: float) -> list[Effect]:
        """Read a list again: after a reading that is under way, and within the rate limit."""
        return self._lists.refresh(method, now) if self._lists else []

    def reread(self, method: str, now: float) -> tuple[list[Effect], float | None]:
        """Read a stale list if the rate limit allows; return also until when to wait for it, or `None`."""
        return self._lists.reread(method, now) if self._lists else ([], None)

    def is_reading(self, method: str) -> bool:
        """Return whether the list is being read, so that the known one may be old."""
        return self._lists is not None and self._lists.is_reading(method)

    # -- time -------------------------------------------------------------------------------------

    @property
    def wake_at(self) -> float | None:
        """When `tick` is due."""
        parts = (self._handshake, self._subscription, self._lists)
        return soonest(part.wake_at for part in parts if part is not None)

    def tick(self, now: float) -> list[Did]:
        """Do what is due: fall back from the probe, give up a list, or read one again."""
        did: list[Did] = []
        if self._handshake.wake_at is not None and self._handshake.wake_at <= now:
            did += self._take(self._handshake.timeout(now), now)
        if self._subscription is not None:
            did += self._heard(self._subscription.tick(now), now)
        if self._lists is not None:
            did = self._ready([*did, *self._lists.tick(now)], now)
        return did

    # -- how it goes on ---------------------------------------------------------------------------

    def _take(self, steps: list[Step], now: float) -> list[Did]:
        did: list[Did] = []
        for step in steps:
            if isinstance(step, Ask):
                id, meta = self._new_id(), own_meta(self.client_info) if step.modern else None
                self._asked[id] = step.method
                did.append(Write(self._name, jsonrpc.request_line(id, step.method, step.body, meta)))
            elif isinstance(step, Tell):
                did.append(Write(self._name, jsonrpc.notification_line(step.method)))
            elif isinstance(step, Agreed):
                did += self._agreed(step, now)
            elif isinstance(step, Restart):
                self.hung = True
                did.append(Respawn(self._name, "it answered nothing after server/discover"))
            elif isinstance(step, Tolerated):
                did.append(step)
            else:
                did.append(self._unfit("; ".join([step.reason, *self._way_out])))
        return did

    def _agreed(self, agreed: Agreed, now: float) -> list[Did]:
        self._lists = Lists(self._name, agreed, self.ask, self._max_bytes, self._timeout_s, self._visible())
        kind = ListenStream if agreed.era is Era.MODERN else LegacySubscription
        self._subscription = kind(self._name, agreed, self.ask, self._timeout_s)
        did = self._heard(self._subscription.start(self._uris, self._was_there, now), now)
        did += self._lists.begin(self._spared, now)  # after that, so that no change is missed meanwhile
        return self._ready(did, now)

    def _ready(self, did: list[Did], now: float) -> list[Did]:
        """Open the session once no list holds it up any more."""
        if self.opened or self._lists is None or self._lists.hold_up(now):
            return did
        self.opened = self._lists.opened = True
        return [*did, Opened(self._name)]

    def ask(self, method: str, body: bytes) -> tuple[int, Write]:
        """Make a request of the broker's own: return its id, and the line to write."""
        id, meta = self._new_id(), own_meta(self.client_info) if self.era is Era.MODERN else None
        return id, Write(self._name, jsonrpc.request_line(id, method, body, meta))

    def check(self) -> tuple[int, Write]:
        """Make a request that a server answers at once: a health check, or a ping behind a cancellation."""
        return self.ask("server/discover" if self.era is Era.MODERN else "ping", b"{}")

    def _unfit(self, reason: str) -> Effect:
        return EndProcess(self._name, clip(reason, MAX_REASON_CHARS))


def _changed_early(notification: str) -> list[Effect] | None:
    """Return no effects for a change before the lists are read, `None` for another notification."""
    return [] if changed_lists(notification) else None
