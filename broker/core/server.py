"""What the broker knows of one configured server, process or no process."""

from __future__ import annotations

from broker.core.catalog import Catalogue
from broker.core.config import ServerConfig
from broker.core.fairness import Line
from broker.core.lifecycle import Lifecycle, State
from broker.core.link import Link
from broker.core.methods import Era
from broker.core.metrics import Counters, Latency

_RESTING = frozenset({State.STOPPED, State.BROKEN})


class Server:
    """One server: its line of calls, its conversation, its catalogue, its figures.

    The `lifecycle` belongs to the supervisor and is only read here. The catalogue outlives the
    process it was read from, so that lists are answered while the server is started again.
    """

    def __init__(self, config: ServerConfig, lifecycle: Lifecycle) -> None:
        self.config = config
        self.lifecycle = lifecycle
        self.line = Line(config.concurrency)
        self.link: Link | None = None
        self.catalogue: Catalogue | None = None
        self.remembered: Era | None = None
        self.latency = Latency()
        self.calls = 0
        self.errors = 0
        self.outcomes = Counters()

    @property
    def name(self) -> str:
        """What the config calls it."""
        return self.config.name

    @property
    def opened(self) -> bool:
        """Whether calls can be written to it now."""
        return self.link is not None and self.link.opened

    @property
    def era(self) -> Era:
        """Its era, or the older one while that is not known."""
        if self.catalogue is not None:
            return self.catalogue.agreed.era
        return self.remembered or Era.LEGACY

    def comes_too_late(self, deadline: float) -> bool:
        """Whether it will certainly not be ready by then."""
        lifecycle = self.lifecycle
        if lifecycle.state is State.BACKOFF:
            return lifecycle.wake_at is not None and lifecycle.wake_at > deadline
        return lifecycle.stopping or lifecycle.state in _RESTING

    def may_be_tried(self, now: float) -> bool:
        """Whether it is broken, and a call may have it tried before it is its time."""
        demand_at = self.lifecycle.demand_at()
        return demand_at is not None and demand_at <= now
