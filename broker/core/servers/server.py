"""What the broker knows of one configured server, process or no process."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from broker.base.metrics import Counters, Latency
from broker.base.rate_limit import soonest
from broker.base.tolerances import KINDS, OF_ERA, Fact, Oddity, Tolerated
from broker.config.schema import ServerConfig
from broker.core.calls.log_routing import LogRouting
from broker.core.calls.pending_lists import PendingLists
from broker.core.calls.queue import FairQueue
from broker.core.calls.table import Call
from broker.core.mcp.methods import Era
from broker.core.servers.catalogue import Catalogue
from broker.core.servers.health import Health
from broker.core.servers.lifecycle import Lifecycle, State
from broker.core.servers.session import ServerSession

RECENT = 64

DISABLED, MISCONFIGURED = "disabled", "misconfigured"
"""What is shown as the state of a server that the broker does not run."""


def in_words(faults: Sequence[str]) -> str | None:
    """The mistakes in a server's table in one line, and what follows once they are corrected."""
    return f"{'; '.join(faults)}; then `mcp-broker reload`" if faults else None


class Server:
    """One server: its line of calls, its conversation, its catalogue, its figures.

    The `lifecycle` belongs to the supervisor and is only read here. The catalogue outlives the
    process it was read from, so that lists are answered while the server is started again.
    """

    def __init__(self, config: ServerConfig, lifecycle: Lifecycle) -> None:
        self.name = config.name
        self.config = config
        self.lifecycle = lifecycle
        self.queue = FairQueue(config.concurrency)
        self.session: ServerSession | None = None
        self.health: Health | None = None
        self.catalogue: Catalogue | None = None
        self.remembered: Era | None = None
        self.answers_checks: bool | None = None
        """Whether it is known to answer health checks; False where an earlier process ended at one."""
        self.spared: set[str] = set()
        """The lists at which an earlier process ended or fell silent: clients may ask for them."""
        self.pending_lists = PendingLists()
        self.log_routing = LogRouting()
        self.latency = Latency()
        self.calls = 0
        self.errors = 0
        self.lost = 0
        """Calls that ended because the server did."""
        self.again = 0
        """Calls that were sent again to its next process, or are to be."""
        self.outcomes = Counters()
        self.dropped = Counters()
        """What it said that went nowhere, by kind."""
        self.ended: deque[int] = deque(maxlen=RECENT)
        """The ids of the calls that ended last: what comes for one of them is late, or came twice."""
        self.tolerated = Counters()
        """What was put up with, by kind (`tolerances`)."""
        self.remarks: dict[tuple[Oddity, str], dict[str, Fact]] = {}
        """What is notable of that, by kind and list, with its facts."""
        self._said: set[tuple[Oddity, str]] = set()
        self.questions = 0
        """What it asked of a client and was refused, for it cannot be known of which."""
        self.former: Catalogue | None = None
        """The catalogue of a process of another kind, to tell what the next one has changed."""
        self.withdrawn = False
        """Whether it is no longer configured; what is at it may still end."""
        self.awaited = False
        """Whether clients had subscribed to its resources before it was configured, and so missed things."""
        self.outdated = False
        """Whether its process, or its last one, is not what the config describes any more."""

    @property
    def shown_state(self) -> str:
        """Its state, or why it has none: it is disabled, or its table has a mistake."""
        if self.config.runs:
            return self.lifecycle.state.value
        return MISCONFIGURED if self.config.enabled else DISABLED

    @property
    def last_error(self) -> str | None:
        """Why it is not ready, or was not: of one that does not run, the mistakes in its table."""
        return self.lifecycle.last_error if self.config.runs else in_words(self.config.faults)

    @property
    def opened(self) -> bool:
        """Whether calls can be written to it now."""
        ending = self.lifecycle.state is State.DRAINING
        return self.session is not None and self.session.opened and not ending

    @property
    def probing(self) -> bool:
        """Whether an exit of its process now means that it is of the older era."""
        return self.session is not None and self.session.probing

    @property
    def hint(self) -> str:
        """What it was asked and what it wrote, if it is not ready; else empty."""
        return self.session.hint if self.session is not None and not self.session.opened else ""

    @property
    def era(self) -> Era:
        """Its era, or the older one while that is not known."""
        if self.catalogue is not None:
            return self.catalogue.agreed.era
        return self.remembered or Era.LEGACY

    @property
    def wake_at(self) -> float | None:
        """When something of it is due, its lifecycle aside."""
        session = self.session.wake_at if self.session is not None else None
        health = self.health.wake_at if self.health is not None else None
        return soonest(
            (session, health, self.queue.wake_at, self.pending_lists.wake_at, self.log_routing.wake_at)
        )

    def leave(self, call: Call) -> None:
        """A call has ended: wherever it stood, it stands there no longer."""
        if call.sent:
            self.log_routing.end(call)
        if call.sent or not self.pending_lists.leave(call):
            self.queue.leave(call)

    def give_up(self, call: Call, now: float) -> None:
        """A call is given up while the process may still be at it."""
        until = now + self.config.timeout
        self.queue.reserve(call.id, until)
        self.log_routing.give_up(call, until)

    def release(self, id: object) -> bool:
        """The late reply to such a call has come; whether somebody else may have its place in line now."""
        self.log_routing.release(id)
        return self.queue.release(id)

    def tolerate(self, odd: Tolerated) -> bool:
        """Count something that was put up with; whether it is the first of its kind of this process."""
        key = (odd.oddity, str(odd.facts.get("list", "")))
        self.tolerated.add(odd.oddity.value)
        if KINDS[odd.oddity].notable:
            self.remarks[key] = odd.facts
        first = key not in self._said
        self._said.add(key)
        return first

    def reread(self, method: str, odd: Collection[Oddity]) -> None:
        """A list was read again: what was notable of the last reading is no longer true."""
        for oddity, of in list(self.remarks):
            if of == method and oddity not in odd:
                del self.remarks[oddity, of]

    def begin(self) -> None:
        """A new process is there: what was notable of the last one is no longer true, its era aside."""
        self._said.clear()
        self.remarks = {key: facts for key, facts in self.remarks.items() if key[0] in OF_ERA}

    def watch(self, now: float) -> None:
        """The process is ready: from now on its silence is noticed."""
        patience_s = 0.0 if self.answers_checks is False else self.config.watchdog_sec
        answers = self.answers_checks is True or self.era is Era.MODERN  # the handshake was the question
        self.health = Health(patience_s, answers=answers, now=now)

    def forget_process(self) -> None:
        """The process is gone, and with it all that it was at."""
        if self.health is not None and self.health.answers:
            self.answers_checks = True
        elif self.health is not None and self.health.ended_at_it and self.lifecycle.failing:
            self.answers_checks = False
        self.session = self.health = None
        self.queue.held = False
        self.queue.release_all()
        self.log_routing.release_all()

    def is_stale(self, method: str, now: float) -> bool:
        """Whether a list should be read again before it is answered, and can be."""
        if self.catalogue is None or self.session is None or not self.session.opened or self.queue.held:
            return False
        being_read = self.session.is_reading(method)  # it is said to have changed, or is known to be too old
        return being_read or self.catalogue.is_stale(method, now, self.session.hears_of)

    def configure(self, config: ServerConfig) -> None:
        """Use this table of the current config."""
        self.config = config
        self.queue.concurrency = config.concurrency

    def forget(self) -> None:
        """What was learned from its processes is not true of the next one."""
        self.outdated = False
        self.former, self.catalogue = self.known, None
        self.remembered = None
        self.spared.clear()
        self.remarks.clear()

    @property
    def known(self) -> Catalogue | None:
        """The last catalogue, though it may be too old to be answered from."""
        return self.catalogue or self.former
