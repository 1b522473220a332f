"""The measurements of a run, kept in out/results.json; the report is made from them."""

from __future__ import annotations

from msgspec import Struct, field

Rounds = list[list[float]]
"""Per round, the seconds of each call."""


class OnServer(Struct):
    """Everything that was measured on one of the two servers. The keys are the names of the ways.

    `rates` is calls in flight → calls per second, a figure for each round; `bodies` is size → rounds.
    """

    latency: dict[str, Rounds] = field(default_factory=dict)
    rates: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    bodies: dict[str, dict[int, Rounds]] = field(default_factory=dict)


class Memory(Struct):
    """The broker's resident memory in bytes, with its five servers."""

    by_connections: dict[int, int] = field(default_factory=dict)
    channels: int = 0
    before_channels: int = 0
    with_channels: int = 0


class Bridges(Struct):
    """Processes of `mcp-broker connect`: seconds until each one's first byte, and bytes of PSS."""

    first_bytes: list[float] = field(default_factory=list)
    alone: int = 0
    together: list[int] = field(default_factory=list)


class StartUp(Struct):
    """Seconds, a figure for each try: the broker's imports alone, until it serves, and a whole `status`."""

    imports: list[float] = field(default_factory=list)
    serving: list[float] = field(default_factory=list)
    status: list[float] = field(default_factory=list)


class Results(Struct):
    """One run."""

    plan: str
    date: str
    machine: dict[str, str]
    load_before: float = 0.0
    took_s: float = 0.0
    servers: dict[str, OnServer] = field(default_factory=dict)
    networks: OnServer = field(default_factory=OnServer)
    cpu_per_1000: dict[str, list[float]] = field(default_factory=dict)
    pages: list[float] = field(default_factory=list)
    old_pages: list[float] = field(default_factory=list)
    after_restart: list[float] = field(default_factory=list)
    on_demand: list[float] = field(default_factory=list)
    on_demand_servers: int = 0
    cycles: list[float] = field(default_factory=list)
    beside_cycles: list[float] = field(default_factory=list)
    neighbour: dict[str, Rounds] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    bridges: Bridges = field(default_factory=Bridges)
    start_up: StartUp = field(default_factory=StartUp)
    steps: dict[str, float] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
