"""The broker's own conversation with one process of a server: the handshake, then the lists.

A link lives as long as the process. Its requests have ids of the broker's own, as the calls of
clients have; the multiplexer hands it the replies that are meant for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
from msgspec import Struct

from broker.core import jsonrpc
from broker.core.catalog import LISTS, Catalogue, Reading, changed_lists, lists_for
from broker.core.config import ServerConfig
from broker.core.effects import Effect, Level, Opened, Unfit, Write, note
from broker.core.handshake import Agreed, Ask, Handshake, Step, Tell, reason_of
from broker.core.jsonrpc import Reply, Told
from broker.core.listening import Each, Heard, Listening, Missed, Stream, Unheard
from broker.core.meta import own_meta
from broker.core.methods import Era
from broker.core.pace import Pace, soonest
from broker.core.texts import clip

READ_BURST = 4
READ_EVERY_S = 1.0
"""A list is read so often in a row, and then once in this time, however often the server says it changed."""

MAX_REASON_CHARS = 1000
"""Of why a server could not be opened: it is kept and shown, and the words in it may be the server's own."""


class _Pending(Struct):
    """A request of the broker's own: part of the handshake, or, with `reading`, a page of a list."""

    method: str
    reading: Reading | None
    deadline: float


class Read(Struct, frozen=True):
    """The reading of a list is over: it is another one than before, the same, or could not be had."""

    method: str
    differs: bool


Did = Effect | Read | Missed | Unheard
"""What is to be done, and what there is to be told."""


class Link:
    """One process's conversation.

    Args:
        config: the server's.
        remembered: the era that an earlier process of it had.
        new_id: gives ids that nothing else uses.
        max_bytes: the limit on one list.
        client_info: what the broker calls itself.
        uris: the resources that clients have subscribed to.
        again: whether there was a process of this server before.
    """

    def __init__(
        self,
        config: ServerConfig,
        remembered: Era | None,
        new_id: Callable[[], int],
        max_bytes: int,
        client_info: dict[str, str],
        uris: Collection[str] = (),
        again: bool = False,
    ) -> None:
        self._config = config
        self._new_id = new_id
        self._max_bytes = max_bytes
        self.client_info = client_info
        self._handshake = Handshake(
            config.protocol,
            remembered,
            config.timeout_start_sec,
            client_info,
            {"roots": {}} if config.roots else {},
        )
        self._pending: dict[int, _Pending] = {}
        self._uris, self._was_there = uris, again
        self._listening: Listening | None = None
        self._paces: dict[str, Pace] = {}
        self._since: dict[str, float] = {}
        self._again: set[str] = set()
        self.catalogue: Catalogue | None = None
        self.opened = False
        self.was_refused = False
        """Whether a question of this process was refused before."""

    @property
    def era(self) -> Era | None:
        """The era, once it is known."""
        return self.catalogue.agreed.era if self.catalogue else None

    @property
    def probing(self) -> bool:
        """Whether an exit now means an older server rather than a failure."""
        return self._handshake.probing

    def greet(self, now: float) -> list[Did]:
        """The process is there: begin."""
        return self._take(self._handshake.start(now), now)

    def heard(self, now: float) -> None:
        """The process wrote something, on either of its outputs."""
        self._handshake.heard(now)

    def reply(self, id: jsonrpc.Id, reply: Reply, now: float) -> list[Did] | None:
        """Take in a reply; `None` if it is not for one of this link's own requests."""
        pending = self._pending.pop(id, None) if type(id) is int else None
        if pending is None:
            heard = self._listening.reply(id, reply, now) if self._listening else None
            return None if heard is None else self._heard(heard, now)
        if pending.reading is None:
            if self.catalogue is not None:
                return []  # the other of two handshake requests was answered first
            return self._take(self._handshake.reply(pending.method, reply), now)
        return self._page(pending.reading, reply, now)

    def broken(self, id: jsonrpc.Id | None, reason: str, now: float) -> list[Did] | None:
        """A reply that cannot be read; `None` if it is not for one of this link's own requests."""
        pending = self._pending.pop(id, None) if type(id) is int else None
        if pending is None:
            heard = self._listening.reply(id, None, now) if self._listening and id is not None else None
            return None if heard is None else self._heard(heard, now)
        if pending.reading is None:
            if self.catalogue is not None:
                return []  # the other of two handshake requests was answered first
            return [self._unfit(f"its reply to {pending.method} cannot be read: {reason}")]
        return self._unread(pending.reading, reason, now)

    def told(self, told: Told, now: float) -> list[Did] | None:
        """The server says something unasked; `None` if it is not about its lists or a subscription."""
        heard = self._listening.told(told, now) if self._listening else None
        return self._changed(told.method, now) if heard is None else self._heard(heard, now)

    def want(self, uris: Collection[str], now: float) -> list[Did]:
        """From now on clients have subscribed to these resources."""
        self._uris = uris
        return self._heard(self._listening.want(uris, now), now) if self._listening else []

    def hears_of(self, capability: str) -> bool:
        """Whether the server tells when the lists of this capability change."""
        return self._listening is not None and self._listening.hears_of(capability)

    def _heard(self, heard: list[Heard], now: float) -> list[Did]:
        did: list[Did] = []
        for one in heard:
            did.append(one)
            if isinstance(one, Missed) and one.lists and self.catalogue is not None:
                told_of = self.catalogue.agreed.tells_of_lists
                did += self._refresh_all([name for name in LISTS if LISTS[name].capability in told_of], now)
        return did

    # -- its lists --------------------------------------------------------------------------------

    def _changed(self, notification: str, now: float) -> list[Did] | None:
        methods = changed_lists(notification)
        if not methods:
            return None
        if not self.opened:
            self._again.update(methods)  # what was read of them just now may be old
            return []
        return [*self._refresh_all(methods, now)]

    def catch_up(self, now: float) -> list[Effect]:
        """It is open: read again what has changed while it was being opened."""
        methods, self._again = sorted(self._again), set()
        return self._refresh_all(methods, now)

    def _refresh_all(self, methods: Collection[str], now: float) -> list[Effect]:
        return [did for method in methods for did in self.refresh(method, now)]

    def refresh(self, method: str, now: float) -> list[Effect]:
        """Read a list anew; while it is being read, once more after that, and not too often."""
        if self.catalogue is None or method not in lists_for(self.catalogue.agreed.capabilities):
            return []
        if method in self._since:
            self._again.add(method)
            return []
        if self._pace(method).take(now):
            self._again.discard(method)
            return [self._ask_page(Reading(method, self._max_bytes), b"{}", now)]
        new = method not in self._again
        self._again.add(method)
        return [note(Level.DEBUG, "catalogue.restless", server=self._config.name, list=method)] if new else []

    def reread(self, method: str, now: float) -> tuple[list[Effect], float | None]:
        """Read a stale list, if that may be now; and since when it is being read, `None` if it is not."""
        may = method in self._since or self._pace(method).at() <= now
        did = self.refresh(method, now) if may and method not in self._since else []
        return did, self._since.get(method)

    def is_reading(self, method: str) -> bool:
        """Whether the list is being read, so that what is known of it may be old."""
        return method in self._since

    def _pace(self, method: str) -> Pace:
        return self._paces.setdefault(method, Pace(READ_BURST, READ_EVERY_S))

    # -- time -------------------------------------------------------------------------------------

    @property
    def wake_at(self) -> float | None:
        """When `tick` is due."""
        times = [self._handshake.wake_at, self._listening.wake_at if self._listening else None]
        if self.opened and self._pending:
            times += [pending.deadline for pending in self._pending.values()]
        if self.opened and self._again:
            times += [self._pace(method).at() for method in self._again - self._since.keys()]
        return soonest(times)

    def tick(self, now: float) -> list[Did]:
        """Time has passed: fall back from the probe, give up on a list, or read it again."""
        did: list[Did] = []
        if self._handshake.wake_at is not None and self._handshake.wake_at <= now:
            did += self._take(self._handshake.timeout(), now)
        if self._listening is not None:
            did += self._heard(self._listening.tick(now), now)
        if self.opened:
            for id, pending in list(self._pending.items()):
                if pending.deadline <= now and pending.reading is not None:
                    del self._pending[id]
                    reason = f"no answer within {self._config.timeout:g} s"
                    did += self._unread(pending.reading, reason, now)
            due = [method for method in self._again - self._since.keys() if self._pace(method).at() <= now]
            did += self._refresh_all(sorted(due), now)
        return did

    # -- how it goes on ---------------------------------------------------------------------------

    def _take(self, steps: list[Step], now: float) -> list[Did]:
        did: list[Did] = []
        for step in steps:
            if isinstance(step, Ask):
                did.append(self._ask(step.method, step.body, None, now, modern=step.modern))
            elif isinstance(step, Tell):
                did.append(Write(self._config.name, jsonrpc.notification_line(step.method)))
            elif isinstance(step, Agreed):
                did += self._agreed(step, now)
            else:
                did.append(self._unfit(step.reason))
        return did

    def _agreed(self, agreed: Agreed, now: float) -> list[Did]:
        self.catalogue = Catalogue(agreed)
        kind = Stream if agreed.era is Era.MODERN else Each
        self._listening = kind(self._config.name, agreed, self.ask, self._config.timeout)
        did = self._heard(self._listening.start(self._uris, self._was_there, now), now)
        for method in lists_for(agreed.capabilities):  # after that: what changes meanwhile is heard of
            did.append(self._ask_page(Reading(method, self._max_bytes), b"{}", now))
        return did + self._finish()

    def ask(self, method: str, body: bytes) -> tuple[int, Write]:
        """A request of the broker's own, whose reply another one waits for: its id, and the line to write."""
        id, meta = self._new_id(), own_meta(self.client_info) if self.era is Era.MODERN else None
        return id, Write(self._config.name, jsonrpc.request_line(id, method, body, meta))

    def _page(self, reading: Reading, reply: Reply, now: float) -> list[Did]:
        if reply.result is None:
            return self._unread(reading, reason_of(reply.error), now)
        try:
            next_page = reading.page(reply.result, now)
        except (ValueError, msgspec.MsgspecError) as error:
            return self._unread(reading, str(error), now)
        if next_page is not None:
            return [self._ask_page(reading, next_page, now)]
        return self._read(reading, now)

    def _read(self, reading: Reading, now: float) -> list[Did]:
        assert self.catalogue is not None
        did: list[Did] = []
        server, method = self._config.name, reading.method
        if reading.repeated:
            repeated = reading.repeated
            did.append(
                note(Level.WARNING, "catalogue.repeated", server=server, list=method, repeated=repeated)
            )
        differs = self.catalogue.put(method, reading.listing(self.catalogue.agreed.era))
        if self.opened and differs:
            did.append(note(Level.INFO, "catalogue.changed", server=server, list=method))
        return did + self._over(method, differs, now)

    def _unread(self, reading: Reading, reason: str, now: float) -> list[Did]:
        """A list cannot be had. The server is of use without it; an earlier one stays."""
        server, method = self._config.name, reading.method
        self._again.discard(method)
        warning = note(Level.WARNING, "catalogue.unread", server=server, list=method, reason=clip(reason))
        return [warning, *self._over(method, False, now)]

    def _over(self, method: str, differs: bool, now: float) -> list[Did]:
        """The reading of a list has ended, well or not."""
        del self._since[method]
        if not self.opened:
            return self._finish()
        again = self.refresh(method, now) if method in self._again else []
        return [Read(method, differs), *again]

    def _finish(self) -> list[Did]:
        if self._since:
            return []
        self.opened = True
        self._pending.clear()  # a handshake request that was not the one to count
        return [Opened(self._config.name)]

    def _unfit(self, reason: str) -> Effect:
        return Unfit(self._config.name, clip(reason, MAX_REASON_CHARS))

    def _ask_page(self, reading: Reading, body: bytes, now: float) -> Effect:
        self._since.setdefault(reading.method, now)
        return self._ask(reading.method, body, reading, now, modern=self.era is Era.MODERN)

    def _ask(self, method: str, body: bytes, reading: Reading | None, now: float, *, modern: bool) -> Effect:
        id = self._new_id()
        self._pending[id] = _Pending(method, reading, now + self._config.timeout)
        meta = own_meta(self.client_info) if modern else None
        return Write(self._config.name, jsonrpc.request_line(id, method, body, meta))
