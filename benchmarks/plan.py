"""How much is measured: the published run, a short run, and a run that only shows that everything works."""

from __future__ import annotations

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """Counts of one run. Every measurement is taken in `rounds`, and in each the ways take turns.

    Args:
        patience_s: no further round on a server begins after so many seconds on it.
        warm_up_s: how long each way is called first, so that what compiles while it runs has done so.
        rest_s: for how long the broker's memory must not have shrunk before it is weighed.
        calls: one at a time, in each round and of each way.
        burst_calls: with several in flight, in each round and of each way.
        bodies: size in bytes → results of that size in each round and of each way.
        pages: page opens in each round; `old_pages` of the old way, in all.
        restarts: of the broker, each with a page that opens right after it.
        on_demand: servers that wait for their first call while their lists are answered.
        connections: how many connections the broker's memory is looked at with.
        channels: how many channels of one connection, the same.
        cycles: open, call, drop.
        bridges: processes of `mcp-broker connect` at once.
        starts: of the broker and of the command.
        steps: calls that are looked at step by step.
        peers: whether public gateways are measured too.
    """

    rounds: int
    patience_s: float
    warm_up_s: float
    rest_s: float
    calls: int
    burst_calls: int
    bodies: dict[int, int]
    pages: int
    old_pages: int
    restarts: int
    on_demand: int
    connections: tuple[int, ...]
    channels: int
    cycles: int
    bridges: int
    starts: int
    steps: int
    peers: bool = True


SMALL, LARGE = 64 * 1024, 5 * 1024 * 1024

FULL = Plan(
    rounds=10,
    patience_s=210,
    warm_up_s=3,
    rest_s=5,
    calls=300,
    burst_calls=1000,
    bodies={SMALL: 50, LARGE: 4},
    pages=20,
    old_pages=3,
    restarts=20,
    on_demand=30,
    connections=(1, 100, 1000),
    channels=1000,
    cycles=10_000,
    bridges=259,
    starts=9,
    steps=2000,
)
QUICK = Plan(
    rounds=3,
    patience_s=120,
    warm_up_s=2,
    rest_s=5,
    calls=150,
    burst_calls=400,
    bodies={SMALL: 20, LARGE: 3},
    pages=10,
    old_pages=1,
    restarts=5,
    on_demand=30,
    connections=(1, 100, 1000),
    channels=1000,
    cycles=2000,
    bridges=259,
    starts=5,
    steps=500,
)
SMOKE = Plan(
    rounds=1,
    patience_s=120,
    warm_up_s=0,
    rest_s=0,
    calls=3,
    burst_calls=8,
    bodies={SMALL: 1, LARGE: 1},
    pages=1,
    old_pages=1,
    restarts=1,
    on_demand=3,
    connections=(1, 100, 101),
    channels=3,
    cycles=10,
    bridges=3,
    starts=1,
    steps=3,
    peers=False,
)
