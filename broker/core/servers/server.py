"""The state of one configured server, with or without a process."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from msgspec import Struct

from broker.base.metrics import Counters, Latency
from broker.base.rate_limit import soonest
from broker.base.tolerances import KINDS, OF_ERA, Fact, Oddity, Tolerated
from broker.config.schema import ServerConfig
from broker.core.calls.attribution import Attribution
from broker.core.calls.pending_lists import PendingLists
from broker.core.calls.queue import FairQueue
from broker.core.calls.table import Call
from broker.core.effects import Effect
from broker.core.mcp.methods import Era
from broker.core.servers.cancel_pings import CancelPings
from broker.core.servers.catalogue import Catalogue
from broker.core.servers.health import Health
from broker.core.servers.lifecycle import Lifecycle, State
from broker.core.servers.session import McpSession
from broker.core.servers.visibility import visibility_of

RECENT = 64


class NoRoom(Struct, frozen=True):
    """The limit of the budget that is reached: its key in `[broker]`, its value, and how much is in use."""

    key: str
    limit: int
    used: int


DISABLED, MISCONFIGURED = "disabled", "misconfigured"
"""The states that are shown of a server that the broker does not run."""


def in_words(faults: Sequence[str]) -> str | None:
    """Return the mistakes in a server's table in one line, and what to do after they are corrected."""
    return f"{'; '.join(faults)}; then `mcp-broker reload`" if faults else None


class Server:
    """A server: its queue, session, catalogue and figures.

    The supervisor owns the `lifecycle`; here it is only read. The catalogue outlives the process that it was
    read from, so that lists are answered during a restart.
    """

    def __init__(self, config: ServerConfig, lifecycle: Lifecycle) -> None:
        self.name = config.name
        self.config = config
        self.lifecycle = lifecycle
        self.visible = visibility_of(config)
        """What clients see of its tools, prompts and resources; `None` for everything."""
        self.queue = FairQueue(config.concurrency, config.lease_sec)
        self.session: McpSession | None = None
        self.health: Health | None = None
        self.catalogue: Catalogue | None = None
        self.remembered: Era | None = None
        self.answers_checks: bool | None = None
        """Whether it answers health checks, if known; False if an earlier process exited at one."""
        self.spared: set[str] = set()
        """The lists at which an earlier process exited or fell silent: only clients request them."""
        self.pending_lists = PendingLists()
        self.attribution = Attribution()
        self.cancel_pings = CancelPings()
        self.latency = Latency()
        self.calls = 0
        self.errors = 0
        self.lost = 0
        """Calls that ended because the process exited."""
        self.again = 0
        """Calls that were, or will be, sent again to the next process."""
        self.outcomes = Counters()
        self.dropped = Counters()
        """Dropped messages and lines, by kind."""
        self.ended: deque[int] = deque(maxlen=RECENT)
        """The ids of the last ended calls: a reply to one of them is late, or a second one."""
        self.tolerated = Counters()
        """Tolerated oddities, by kind (`tolerances`)."""
        self.remarks: dict[tuple[Oddity, str], dict[str, Fact]] = {}
        """The notable ones of them, by kind and list, with their facts."""
        self._said: set[tuple[Oddity, str]] = set()
        self.questions = 0
        """Requests to a client that were refused."""
        self.asked = Counters()
        """Questions by what happened to them: asked, then answered, withdrawn, expired, unusable; refused."""
        self.former: Catalogue | None = None
        """The catalogue of a process of another program, to tell clients what the next one changes."""
        self.withdrawn = False
        """Whether it is no longer configured; its running calls may still end."""
        self.awaited = False
        """Whether clients had subscribed to its resources before it was configured."""
        self.used_at = 0.0
        """When it was last used: a call or a subscription ended, or its process became ready."""
        self.room: NoRoom | None = None
        """Why it is not started, or was not when it was last tried: see `budget`."""
        self.outdated = False
        """Whether its present or last process is of another program than the config says."""

    @property
    def shown_state(self) -> str:
        """The state of its lifecycle, or that it is disabled or misconfigured."""
        if self.config.runs:
            return self.lifecycle.state.value
        return MISCONFIGURED if self.config.enabled else DISABLED

    @property
    def last_error(self) -> str | None:
        """The last failure of its process, or the mistakes in its table if it does not run."""
        return self.lifecycle.last_error if self.config.runs else in_words(self.config.faults)

    @property
    def opened(self) -> bool:
        """Whether calls can be written to its process now."""
        ending = self.lifecycle.state is State.DRAINING
        return self.session is not None and self.session.opened and not ending

    @property
    def asks_within_calls(self) -> bool:
        """Whether its process was told that clients answer its questions, and still may ask."""
        return self.session is not None and self.session.may_ask and self.config.asks_within_calls

    @property
    def call_under_way(self) -> Call | None:
        """The call that a message which names no call is about, if it can be about no other one."""
        if self.era is Era.LEGACY and (
            self.session is None or not self.asks_within_calls or self.session.has_request
        ):
            return None
        return self.attribution.only

    @property
    def probing(self) -> bool:
        """Whether an exit of its process now shows that it is of the older era."""
        return self.session is not None and self.session.probing

    @property
    def hint(self) -> str:
        """The requests without an answer, until the session is open; else empty."""
        return self.session.hint if self.session is not None and not self.session.opened else ""

    @property
    def era(self) -> Era:
        """Its era; the older one while it is unknown."""
        if self.catalogue is not None:
            return self.catalogue.agreed.era
        return self.remembered or Era.LEGACY

    @property
    def wake_at(self) -> float | None:
        """When something of it is due, except for the lifecycle."""
        session = self.session.wake_at if self.session is not None else None
        health = self.health.wake_at if self.health is not None else None
        return soonest((session, health, self.idle_at, self.queue.wake_at, self.pending_lists.wake_at))

    @property
    def is_wanted(self) -> bool:
        """Whether a call waits for it."""
        return bool(self.queue.waiting or len(self.pending_lists))

    @property
    def idle_at(self) -> float | None:
        """When its process is ended, unless it is used; `None` if it has none that may be."""
        idle_s = self.config.idle_stop_sec
        return self.used_at + idle_s if idle_s and self.opened and not self.queue.paused else None

    def leave(self, call: Call) -> None:
        """Remove an ended call from every place."""
        if call.sent:
            self.attribution.end(call)
        if call.sent or not self.pending_lists.leave(call):
            self.queue.leave(call)

    def give_up(self, call: Call, now: float) -> None:
        """Reserve the place of a call that is given up while the process may still handle it."""
        self.queue.reserve(call.id, now + max(self.config.timeout, self.config.cancel_grace_sec))
        self.attribution.give_up(call)

    def ping_behind(self, call: Call) -> list[Effect]:
        """Send a ping behind the cancellation of a call, if its answer tells something."""
        tells = self.queue.keeps_places or (call in self.attribution and self.config.stops_on_cancel)
        has_checks = self.config.watchdog_sec and self.answers_checks is not False
        if not tells or not has_checks or self.session is None or not self.cancel_pings.may_be_sent:
            return []
        id, line = self.session.check()
        self.cancel_pings.sent(id, call.id)
        return [line]

    def has_read_cancel(self, id: object, now: float) -> bool:
        """Take in a reply; return whether it is the answer to a ping behind a cancellation.

        The place becomes free after a while, and both place and attribution at once on the operator's word.
        """
        call_id = self.cancel_pings.answered(id)
        if call_id is None:
            return False
        if self.config.stops_on_cancel:
            self.release(call_id)
        elif self.queue.release(call_id) and self.config.cancel_grace_sec:
            self.queue.reserve(call_id, now + self.config.cancel_grace_sec)
        if self.health is not None:
            self.health.answers = True
        return True

    def release(self, id: object) -> bool:
        """Free the place of a call that was given up; return whether another call may have it."""
        self.attribution.release(id)
        return self.queue.release(id)

    def tolerate(self, odd: Tolerated) -> bool:
        """Count a tolerated oddity; return whether it is the first of its kind of this process."""
        key = (odd.oddity, str(odd.facts.get("list", "")))
        self.tolerated.add(odd.oddity.value)
        if KINDS[odd.oddity].notable:
            self.remarks[key] = odd.facts
        first = key not in self._said
        self._said.add(key)
        return first

    def reread(self, method: str, odd: Collection[Oddity]) -> None:
        """Forget the remarks on the earlier reading of a list."""
        for oddity, of in list(self.remarks):
            if of == method and oddity not in odd:
                del self.remarks[oddity, of]

    def begin(self) -> None:
        """Forget the remarks on the last process, except for those on its era."""
        self._said.clear()
        self.remarks = {key: facts for key, facts in self.remarks.items() if key[0] in OF_ERA}

    def watch(self, now: float) -> None:
        """Begin the health checks of a process that is ready."""
        patience_s = 0.0 if self.answers_checks is False else self.config.watchdog_sec
        answers = (
            self.answers_checks is True or self.era is Era.MODERN
        )  # the handshake was a health check, too
        self.health = Health(patience_s, answers=answers, now=now)

    def forget_process(self) -> None:
        """Forget the process that is gone."""
        if self.health is not None and self.health.answers:
            self.answers_checks = True
        elif self.health is not None and self.health.ended_at_it and self.lifecycle.failing:
            self.answers_checks = False
        self.cancel_pings.process_gone(failed=self.lifecycle.failing and not self.answers_checks)
        self.session = self.health = None
        self.queue.held = False
        self.queue.release_all()
        self.attribution.release_all()

    def is_stale(self, method: str, now: float) -> bool:
        """Return whether a list should, and can, be read again before it is answered."""
        if self.catalogue is None or self.session is None or not self.session.opened or self.queue.held:
            return False
        being_read = self.session.is_reading(method)  # it has changed, or is too old
        return being_read or self.catalogue.is_stale(method, now, self.session.hears_of)

    def configure(self, config: ServerConfig) -> None:
        """Use this table of the current config."""
        self.config = config
        self.queue.concurrency, self.queue.lease_s = config.concurrency, config.lease_sec

    def show(self) -> list[Catalogue]:
        """Follow the filters of its table. Return the catalogues that are veiled until they are compared."""
        visible = visibility_of(self.config, self.visible)
        if visible is self.visible:
            return []
        self.visible = visible
        in_session = self.session.catalogue if self.session is not None else None
        catalogues = {id(one): one for one in (self.former, in_session, self.catalogue) if one}
        for catalogue in catalogues.values():
            catalogue.veil(visible)
        return list(catalogues.values())

    @property
    def is_veiled(self) -> bool:
        """Whether no list can be answered until all are compared with other filters."""
        return self.catalogue is not None and self.catalogue.is_veiled

    def forget(self) -> None:
        """Forget what was learned from processes of another program."""
        self.outdated = False
        self.cancel_pings.forget()
        self.former, self.catalogue = self.known, None
        self.remembered = None
        self.spared.clear()
        self.remarks.clear()

    @property
    def known(self) -> Catalogue | None:
        """The last catalogue; it may be of another program."""
        return self.catalogue or self.former
