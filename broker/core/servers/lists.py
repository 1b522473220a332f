"""Reads the lists of one process: at its start, and again when they change or grow stale.

A list without an answer delays the start for a short time only, and costs that list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

import msgspec
from msgspec import Struct

from broker.base.rate_limit import RateLimit, soonest
from broker.base.text import clip
from broker.base.tolerances import Oddity, Tolerated
from broker.core.calls.pending_lists import LONGEST_WAIT_S
from broker.core.effects import Effect, Level, Write, log
from broker.core.mcp.agreement import Agreed, is_unknown_method, reason_of, shown
from broker.core.mcp.jsonrpc import Broken, Id, ServerReply
from broker.core.servers.catalogue import LISTS, Catalogue, Listing, changed_lists, lists_for
from broker.core.servers.reading import Reading
from broker.core.servers.visibility import Sifted, Visibility

READ_BURST = 4
READ_EVERY_S = 1.0
"""The rate limit of reading one list, however often the server says that it changed."""

TOOLS_HOLD_S = 10.0
LIST_HOLD_S = 1.0
"""The time for which the list of tools, or another list, may delay a start. A list that comes later counts as
changed."""

LIST_S = 10.0
"""The time that the server has to answer a list at its start, except for the list of tools."""

MAX_LATE = 64
"""The number of ids of ended requests that are kept, to know a late or second reply."""


class _Pending(Struct):
    """A requested page."""

    reading: Reading
    deadline: float
    patience_s: float


class Read(Struct, frozen=True):
    """The end of reading a list, and whether it differs from the one before."""

    method: str
    differs: bool


class Sift(Struct, frozen=True):
    """A list that was read and has filters: `Lists.sifted` goes on when it is known what clients see of it.

    `odd`: what is odd about its reading.
    """

    method: str
    listing: Listing
    odd: list[Tolerated]


Step = Effect | Read | Sift | Tolerated


class Lists:
    """The lists of one process.

    Args:
        server: the name of the server.
        agreed: the result of the handshake.
        ask: makes a request: its id, and the line to write.
        max_bytes: the limit of one list.
        timeout_s: returns the time that the server has to answer a request.
        visible: what clients see of the lists.
    """

    def __init__(
        self,
        server: str,
        agreed: Agreed,
        ask: Callable[[str, bytes], tuple[int, Write]],
        max_bytes: int,
        timeout_s: Callable[[], float],
        visible: Visibility | None = None,
    ) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._ask = ask
        self._max_bytes = max_bytes
        self._pending: dict[int, _Pending] = {}
        self._rates: dict[str, RateLimit] = {}
        self._since: dict[str, float] = {}
        self._again: set[str] = set()
        self._holds: dict[str, float] = {}
        self._silent: set[str] = set()
        self._late: deque[int] = deque(maxlen=MAX_LATE)
        self.catalogue = Catalogue(agreed, visible)
        self.opened = False
        """Whether the session is open."""

    def begin(self, spared: Collection[str], now: float) -> list[Step]:
        """Request the lists that the server declares, except for the `spared` ones."""
        methods = lists_for(self.catalogue.agreed.capabilities)
        for method in (one for one in methods if one not in spared):
            is_tools = method == "tools/list" and self.catalogue.declares(method)
            self._holds[method] = now + (TOOLS_HOLD_S if is_tools else LIST_HOLD_S)
        left = [Tolerated(Oddity.SPARED, {"list": method}) for method in methods if method in spared]
        return [*left, *(self._ask_page(Reading(one, self._max_bytes), b"{}", now) for one in self._holds)]

    def unbearable(self, failed: bool) -> Collection[str]:
        """Return the lists at which the process failed, if it `failed`, or which it left without an answer.

        The list of tools is never among them: a server without tools is useless.
        """
        fatal = set(self.unanswered) if failed and not self.opened else set[str]()
        return set() if "tools/list" in fatal else (self._silent | fatal) - {"tools/list"}

    def hold_up(self, now: float) -> bool:
        """Return whether a list still delays the start."""
        return any(self._holds[method] > now for method in self._since)

    @property
    def waits(self) -> bool:
        """Whether a requested page has no answer yet."""
        return bool(self._pending)

    @property
    def unanswered(self) -> Collection[str]:
        """The lists of which a requested page has no answer yet."""
        return dict.fromkeys(one.reading.method for one in self._pending.values())

    def is_late(self, id: Id | None) -> bool:
        """Return whether this is the id of a request that is answered or given up."""
        return id in self._late

    def reply(self, id: Id, reply: ServerReply | Broken, now: float) -> list[Step] | None:
        """Take in a reply; return `None` if it answers no request for a list."""
        pending = self._take_pending(id)
        if pending is None:
            return None
        if isinstance(reply, Broken):
            return self._unread(pending.reading, reply.reason, now)
        return self._page(pending.reading, reply, now)

    def _take_pending(self, id: Id) -> _Pending | None:
        pending = self._pending.pop(id, None) if type(id) is int else None
        if pending is not None and type(id) is int:
            self._late.append(id)
        return pending

    def changed(self, notification: str, now: float) -> list[Effect] | None:
        """Read the lists again that a notification names; return `None` for another notification."""
        methods = changed_lists(notification)
        if not methods:
            return None
        if not self.opened:
            self._again.update(methods)  # the pages read so far may be old
            return []
        known = self.catalogue
        return [
            *self._refresh_all([one for one in methods if known.declares(one) or known.was_asked(one)], now)
        ]

    def catch_up(self, now: float) -> list[Effect]:
        """Read the lists again that changed during the start."""
        methods, self._again = sorted(self._again), set()
        return self._refresh_all(methods, now)

    def missed(self, now: float) -> list[Effect]:
        """Read all lists again whose changes the broker may have missed."""
        told_of = self.catalogue.agreed.tells_of_lists
        return self._refresh_all([name for name in LISTS if LISTS[name].capability in told_of], now)

    def _refresh_all(self, methods: Collection[str], now: float) -> list[Effect]:
        return [did for method in methods for did in self.refresh(method, now)]

    def refresh(self, method: str, now: float) -> list[Effect]:
        """Read a list again: after a reading that is under way, and within the rate limit."""
        if method in self._since:
            self._again.add(method)
            return []
        if self._rate(method).take(now):
            self._again.discard(method)
            return [self._ask_page(Reading(method, self._max_bytes), b"{}", now)]
        new = method not in self._again
        self._again.add(method)
        return [log(Level.DEBUG, "catalogue.restless", server=self._server, list=method)] if new else []

    def reread(self, method: str, now: float) -> tuple[list[Effect], float | None]:
        """Read a stale list if the rate limit allows; return also until when to wait for it, or `None`.

        A list that was never read is waited for until its request is overdue, unless the server has left it
        without an answer before.
        """
        may = method in self._since or self._rate(method).at() <= now
        did = self.refresh(method, now) if may and method not in self._since else []
        since = self._since.get(method)
        if since is None:
            return did, None
        if self.catalogue.has(method) or method in self._silent:
            return did, since + LONGEST_WAIT_S
        deadlines = [one.deadline for one in self._pending.values() if one.reading.method == method]
        return did, max(deadlines, default=now + LONGEST_WAIT_S)

    def is_reading(self, method: str) -> bool:
        """Return whether the list is being read, so that the known one may be old."""
        return method in self._since

    def _rate(self, method: str) -> RateLimit:
        return self._rates.setdefault(method, RateLimit(READ_BURST, READ_EVERY_S))

    def _page(self, reading: Reading, reply: ServerReply, now: float) -> list[Step]:
        if reply.result is None:
            return self._unread(reading, reason_of(reply.error), now)
        try:
            next_page = reading.page(reply.result, now)
        except (ValueError, msgspec.MsgspecError) as error:
            return self._unread(reading, f"{error}; its answer was {shown(reply.result)}", now)
        if next_page is not None:
            return [self._ask_page(reading, next_page, now)]
        return self._read(reading, now)

    def _read(self, reading: Reading, now: float) -> list[Step]:
        method, known = reading.method, self.catalogue
        if not known.declares(method) and not known.has(method) and reading.is_empty:
            return self._lacks(method, now)
        odd = reading.odd
        if not known.declares(method) and not known.has(method):
            odd.append(Tolerated(Oddity.UNDECLARED, {"list": method}))
        return self._sift(Sift(method, reading.listing(known.agreed.era), odd), now)

    def _sift(self, read: Sift, now: float) -> list[Step]:
        """Have a list compared with the filters, which takes several steps; at once if it has none."""
        return [read] if self.catalogue.is_filtered(read.method) else self.sifted(read, None, now)

    def sifted(self, read: Sift, sifted: Sifted | None, now: float) -> list[Step]:
        """Show what clients see of a list that was read; it counts as being read until then."""
        method, known = read.method, self.catalogue
        is_known = known.declares(method) or known.has(method) or known.is_lacking(method)
        differs = known.put(method, read.listing, sifted) and is_known
        changed = [log(Level.INFO, "catalogue.changed", server=self._server, list=method)]
        return [*read.odd, *(changed if self.opened and differs else ()), *self._over(method, differs, now)]

    def _lacks(self, method: str, now: float) -> list[Step]:
        """Note that the server has no such list."""
        self._again.discard(method)
        self.catalogue.lacks(method)
        return self._over(method, False, now)

    def _unread(self, reading: Reading, why: str, now: float) -> list[Step]:
        """End a reading that failed. An earlier list stays; else the pages read so far are the list."""
        method, known = reading.method, self.catalogue
        self._again.discard(method)
        if reading.end_before_empty():
            return self._read(reading, now)
        if known.has(method) or not reading.begun:
            if not known.has(method) and (is_unknown_method(why) or not known.declares(method)):
                return self._lacks(method, now)
            odd = Tolerated(Oddity.UNREAD, {"list": method, "reason": clip(why)})
            return [odd, *self._over(method, False, now)]
        listing = reading.listing(known.agreed.era, partial=True)
        odd = Tolerated(Oddity.PARTIAL, {"list": method, "count": len(listing.items), "reason": clip(why)})
        return self._sift(Sift(method, listing, [*reading.odd, odd]), now)

    def _over(self, method: str, differs: bool, now: float) -> list[Step]:
        """End a reading; return its event, and the next request if the list changed meanwhile."""
        del self._since[method]
        if not self.opened:
            return []
        again = self.refresh(method, now) if method in self._again else []
        return [Read(method, differs), *again]

    @property
    def wake_at(self) -> float | None:
        """When `tick` is due."""
        times: list[float | None] = [pending.deadline for pending in self._pending.values()]
        if self.opened:
            times += [self._rate(method).at() for method in self._again - self._since.keys()]
        elif self._since:  # a shorter hold that is over opens nothing while a longer one lasts
            times.append(max(self._holds[method] for method in self._since))
        return soonest(times)

    def tick(self, now: float) -> list[Step]:
        """Do what is due: give up a list, or read it again."""
        did: list[Step] = []
        for id, pending in list(self._pending.items()):
            if pending.deadline <= now:
                del self._pending[id]
                self._late.append(id)
                self._silent.add(pending.reading.method)
                did += self._unread(pending.reading, f"no answer within {pending.patience_s:g} s", now)
        if self.opened:
            due = [method for method in self._again - self._since.keys() if self._rate(method).at() <= now]
            did += self._refresh_all(sorted(due), now)
        return did

    def _ask_page(self, reading: Reading, body: bytes, now: float) -> Effect:
        method, patience_s = reading.method, self._timeout_s()
        self._since.setdefault(method, now)
        if not self.opened and method != "tools/list":
            patience_s = min(patience_s, LIST_S)
        id, line = self._ask(method, body)
        self._pending[id] = _Pending(reading, now + patience_s, patience_s)
        return line
