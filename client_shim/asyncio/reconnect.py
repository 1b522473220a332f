"""The attempts of an asyncio connection to reach its broker."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from threading import Thread
from threading import enumerate as enumerate_threads

from client_shim import log
from client_shim.errors import Unavailable, WrongBrokerKey
from client_shim.protocol import reasons
from client_shim.protocol.backoff import NEVER, ReconnectBackoff
from client_shim.transport.address import BrokerAddress, FoundBroker, find_broker
from client_shim.transport.endpoint import may_block

MAX_SEARCHES = 32
"""The threads of this process that search at the same time. A name server may keep each for half a minute,
also after its client was closed."""

_NAME = "mcp-broker search"

OnSearched = Callable[["FoundBroker | Unavailable"], None]


class Reconnect:
    """Makes an attempt when it is due, one at a time: it searches for the broker, and passes on the outcome.

    Args:
        wait_s: how long a search may wait for a name server or a network.
        on_searched: called in the loop with the outcome of each search.
        context: the context of the callbacks.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: BrokerAddress,
        wait_s: float,
        on_searched: OnSearched,
        context: Context,
    ) -> None:
        self.backoff = ReconnectBackoff(random.random)
        self.failure: Unavailable | None = None
        """Why the last attempt failed that has ended."""
        self._loop, self._context = loop, context
        self._address, self._wait_s = address, wait_s
        self._on_searched = on_searched
        self._timer: asyncio.TimerHandle | None = None
        self._due = NEVER
        self._search: Search | None = None
        self._doubts = False
        self._hold_s = 0.0

    @property
    def is_searching(self) -> bool:
        """Whether a search is under way."""
        return self._search is not None

    def copy_of_failure(self) -> Unavailable | None:
        """Return `failure` for one more caller: each gets an error of its own."""
        return copy.copy(self.failure)

    def is_doubtful(self, error: Unavailable) -> bool:
        """Return whether this error has to be seen twice in a row.

        A broker with another key looks the same as one that ends in the middle of a handshake, or turns the
        client away because it has too many connections. So the next search waits for that.
        """
        self._doubts = isinstance(error, WrongBrokerKey) and not self._doubts
        self._hold_s = self.backoff.hold_s(self._loop.time()) if self._doubts else 0.0
        return self._doubts

    def hurry(self) -> None:
        """Make the next attempt as early as a call that waits may have it."""
        due = self.backoff.soonest(self._loop.time())
        if self._search is None and (self._timer is None or self._due > due):
            self.attempt_at(due)

    def attempt_at(self, when: float) -> None:
        """Make the next attempt at this time of the loop's clock."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = self._loop.call_at(when, self._attempt, context=self._context), when

    def stop(self) -> None:
        """Make no further attempt, and forget the search that is under way."""
        if self._timer is not None:
            self._timer.cancel()
        self._search = None

    def _attempt(self) -> None:
        self._timer = None
        self.backoff.tried(self._loop.time())
        self._search = Search(
            self._loop, self._address, self._wait_s, self._hold_s, self._searched, self._context
        )
        self._search.begin()

    def _searched(self, search: Search, outcome: FoundBroker | Unavailable) -> None:
        if self._search is search:
            self._search = None
            self._on_searched(outcome)


class Search:
    """One probe of an address, in a thread if it may wait. It passes itself and the outcome to `on_end`.

    The thread ends when the probe does; nothing waits for it, and it does nothing to a closed loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: BrokerAddress,
        wait_s: float,
        hold_s: float,
        on_end: Callable[[Search, FoundBroker | Unavailable], None],
        context: Context,
    ) -> None:
        self._loop, self._context = loop, context
        self._address, self._wait_s, self._hold_s = address, wait_s, min(hold_s, wait_s)
        self._on_end = on_end

    def begin(self) -> None:
        """Begin. Without a thread it also ends here."""
        if not may_block(self._address.endpoint):
            self._on_end(self, self._outcome())
            return
        if sum(thread.name == _NAME for thread in enumerate_threads()) >= MAX_SEARCHES:
            self._on_end(self, self._impossible("too many searches wait for a name server already"))
            return
        try:
            Thread(target=self._run, name=_NAME, daemon=True).start()
        except RuntimeError as error:  # this process is out of threads
            self._on_end(self, self._impossible(error))

    def _run(self) -> None:
        outcome = self._outcome()
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._on_end, self, outcome, context=self._context)

    def _outcome(self) -> FoundBroker | Unavailable:
        try:
            return find_broker(self._address, self._wait_s, self._hold_s)
        except Unavailable as error:
            return error.with_traceback(None)
        except OSError as error:  # this process is out of descriptors, say
            return self._impossible(error)
        except Exception as fault:  # no further attempt would follow a search without an end
            log.warn(f"the search for the broker failed: {fault!r}; report this", fault)
            return self._impossible(fault)

    def _impossible(self, reason: object) -> Unavailable:
        return reasons.no_connection(self._address.endpoint, reason)
