"""Writes a run as Markdown: first the targets, then everything that was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks import steps
from benchmarks.figures import PARTS
from benchmarks.plan import LARGE, SMALL
from benchmarks.results import OnServer, Results
from benchmarks.summary import CONNECT, FLOOR, HTTP_LEGACY, HTTP_MODERN, IPC, SDK, Summary
from benchmarks.targets import TARGETS
from benchmarks.timing import quantile
from docs.blocks.markdown import table

_ABOUT = """\
Written by `make bench` (plan `{plan}`, {date}, {minutes:.1f} minutes, load before it {load:.2f}). All ways
were measured in turns in one run; a figure is the median over {rounds} rounds, a p99 the median of the
rounds' p99. What the ways are, and where the time goes, is in [docs/performance.md](../docs/performance.md).
"""


_ABOUT_STEPS = """\
Our own code in it, step by step, with client, broker and server in one thread (`python -m benchmarks.steps`
measures it alone):"""


_ABOUT_GATEWAYS = """\
On the server `bare`. All HTTP is made by one client (`benchmarks/http_client.py`), and every gateway has the
same server behind it. The gateway runs as it does by default: with a token, and in front of a broker.
"""


_ABOUT_NETWORKS = """\
The shim on the server `bare`, by each transport, in turns. A thread waits for messages where the event loop
cannot watch descriptors, as on Windows: the same loop as in the other rows, kept from it.
"""


_ABOUT_FLOOD = """\
Another client keeps 64 calls in flight. Such a flood takes the processors of everybody, so a client of the
broker is compared with a client that has a server of its own, beside the same flood of yet another server. A
client of the gateway (HTTP of 2026-07-28) is compared beside the flood of another token, and beside the same
flood of a client of the broker.
"""


def report(results: Results) -> str:
    """Return the whole page."""
    return "\n\n".join(_parts(Summary(results))) + "\n"


def _parts(run: Summary) -> Iterator[str]:
    results = run.results
    yield "# Benchmarks"
    rounds = len(run.bare.latency[SDK])
    yield _ABOUT.format(
        plan=results.plan,
        date=results.date,
        minutes=results.took_s / 60,
        load=results.load_before,
        rounds=rounds,
    ).strip()
    yield table(("machine and versions", ""), _machine(results))
    yield "## Targets"
    yield targets(run)
    yield from _missed(run)
    yield "## One call at a time"
    yield "![Latency of one call at a time](latency.svg)"
    for server, seen in results.servers.items():
        yield f"On the server `{server}`:"
        yield latency(run, seen)
    yield "What a call through the broker is made of, from one way to the next, on the server `bare`:"
    yield _parts_of_a_call(run)
    yield _ABOUT_STEPS
    yield steps.rows(results.steps)
    yield "## Many calls at once"
    yield "8 clients share what is in flight.\n\n![Calls per second with 64 in flight](rates.svg)"
    for server, seen in results.servers.items():
        yield f"Calls per second on the server `{server}`:"
        yield _rates(run, seen)
    yield from _gateways(run)
    yield "## Large results"
    for server, seen in results.servers.items():
        yield f"On the server `{server}`, in ms."
        yield _bodies(run, seen)
    if results.networks.latency:
        yield "## By socket file, by TCP, with keys"
        yield _ABOUT_NETWORKS.strip()
        yield _networks(run)
    yield "## A page opens"
    yield pages(run)
    yield "## Clients that are never closed"
    yield "![Open, call, drop](cycles.svg)"
    yield _cycles(run)
    yield "## Beside a flood"
    yield _ABOUT_FLOOD.strip()
    yield _neighbour(run)
    yield "## What the broker takes"
    yield _footprint(run)
    if results.absent:
        yield "## Not measured"
        yield table(("gateway", "why"), results.absent.items())


def _gateways(run: Summary) -> Iterator[str]:
    """Return how the gateway's doors compare with each other gateway, with the spread over the rounds."""
    peers = [peer for peer in run.results.peers if peer in run.bare.latency]
    if peers:
        yield "## Beside other gateways"
        yield _ABOUT_GATEWAYS.strip()
        rows = []
        for peer in peers:
            for way in (HTTP_MODERN, HTTP_LEGACY, CONNECT):
                low, high = run.spread(way, peer)
                p50 = run.latency(way, 0.5) / run.latency(peer, 0.5)
                rate = run.rate(way, 64) / run.rate(peer, 64)
                rows.append((way, peer, f"{p50:.2f}", f"{low:.2f} to {high:.2f}", f"{rate:.2f}"))
        yield table(("way", "over", "p50 ×", "in the rounds", "calls per second at 64 ×"), rows)


def _machine(results: Results) -> list[tuple[str, str]]:
    return [*results.machine.items(), *results.peers.items()]


def targets(run: Summary) -> str:
    """Return a row for each target: its limit, the figure, and whether it is met."""
    rows = []
    for target in TARGETS:
        measured = target.measure(run)
        rows.append((target.text, target.wanted, target.show(measured), target.verdict(measured)))
    return table(("what", "target", "measured", ""), rows)


def _missed(run: Summary) -> Iterator[str]:
    """Return where the time or memory goes, for each missed target."""
    missed = [target for target in TARGETS if "missed" in target.verdict(target.measure(run))]
    if missed:
        yield "Missed, and where it goes:"
        yield "\n".join(f"- **{target.text}**: {target.cost}" for target in missed)


def _parts_of_a_call(run: Summary) -> str:
    return table(("part", "µs"), ((PARTS[name], f"{took * 1e6:.0f}") for name, took in run.parts().items()))


def latency(run: Summary, seen: OnServer) -> str:
    """Return p50 and p99 of every way, and their ratios."""
    floor = run.latency(FLOOR, 0.5, seen) if FLOOR in seen.latency else None
    sdk = run.latency(SDK, 0.5, seen)
    rows = []
    for way in seen.latency:
        p50, p99 = run.latency(way, 0.5, seen), run.latency(way, 0.99, seen)
        to_floor = f"{p50 / floor:.2f}" if floor else "-"
        rows.append((way, f"{p50 * 1e6:.0f}", f"{p99 * 1e6:.0f}", to_floor, f"{p50 / sdk:.2f}"))
    return table(("way", "p50 µs", "p99 µs", "p50 × floor", "p50 × SDK"), rows)


def _rates(run: Summary, seen: OnServer) -> str:
    rows = []
    for way in seen.rates:
        few, many = run.rate(way, 8, seen), run.rate(way, 64, seen)
        rows.append((way, f"{few:.0f}", f"{many:.0f}", f"{many / run.rate(SDK, 64, seen):.2f}"))
    return table(("way", "8 in flight", "64 in flight", "64 × SDK"), rows)


def _bodies(run: Summary, seen: OnServer) -> str:
    columns = [(SMALL, 0.5), (SMALL, 0.99), (LARGE, 0.5), (LARGE, 1.0)]  # few are large
    rows = [
        (
            way,
            *(
                f"{run.body(way, size, share, seen) * 1e3:.2f}" if size in sizes else "-"
                for size, share in columns
            ),
        )
        for way, sizes in seen.bodies.items()
    ]
    return table(("way", "64 KiB p50", "64 KiB p99", "5 MiB p50", "5 MiB slowest"), rows)


def _networks(run: Summary) -> str:
    seen = run.results.networks
    rows = []
    for way in seen.latency:
        rate = run.rate(way, 64, seen)
        rows.append(
            (
                way,
                f"{run.latency(way, 0.5, seen) * 1e6:.0f}",
                f"{run.network(way):.2f}",
                f"{run.network(way, 0.99):.2f}",
                f"{rate:.0f}",
                f"{rate / run.rate(IPC, 64, seen):.2f}",
                f"{run.body(way, LARGE, on=seen) * 1e3:.2f}",
                f"{run.large_on_network(way):.2f}",
            )
        )
    head = ("transport", "p50 µs", "p50 × ipc", "p99 × ipc", "64 in flight, calls/s", "× ipc")
    return table((*head, "5 MiB, ms", "5 MiB × ipc"), rows)


def pages(run: Summary) -> str:
    """Return how long it takes until a page has its lists, each way that was measured."""
    results = run.results
    ways = {
        "a client on an open connection": results.pages,
        "a client right after a restart, with kept lists": results.after_restart,
        f"from the start of a broker with {results.on_demand_servers} servers on demand": results.on_demand,
        "spawn and initialize five servers": results.old_pages,
    }
    rows = [
        (way, str(len(took)), _ms(quantile(took, 0.5)), _p99(took), _ms(max(took)))
        for way, took in ways.items()
        if took
    ]
    head = ("from the page's opening to the tools of its servers, in ms", "times", "p50", "p99", "slowest")
    return table(head, rows)


def _cycles(run: Summary) -> str:
    count = len(run.results.cycles)
    rows = [
        (name, f"{run.cycle(first=it) * 1e6:.0f}", f"{run.beside_cycle(first=it) * 1e6:.0f}")
        for name, it in (("the first tenth", True), ("the last tenth", False))
    ]
    beside = "in turns with it, a call of a client that stays"
    return table((f"open, call, drop: {count} times", "p50 µs", f"{beside}, p50 µs"), rows)


def _neighbour(run: Summary) -> str:
    rows = [
        (label, *(f"{run.beside(label, share) * 1e6:.0f}" for share in (0.5, 0.99)))
        for label in run.results.neighbour
    ]
    return table(("one client, one call at a time", "p50 µs", "p99 µs"), rows)


def _footprint(run: Summary) -> str:
    results = run.results
    rows = [
        (f"memory with {count} connections", f"{size / 1024**2:.1f} MiB")
        for count, size in results.memory.by_connections.items()
    ]
    rows.append(("each further connection", f"{run.bytes_per_connection / 1024:.1f} KiB"))
    rows.append((f"each of {results.memory.channels} channels", f"{run.bytes_per_channel / 1024:.2f} KiB"))
    for label, spent in results.cpu_per_1000.items():
        rows.append((f"CPU for 1,000 calls, {label}", f"{statistics.median(spent):.3f} s"))
    bridges = results.bridges
    rows.append(("a `mcp-broker connect` alone (PSS)", f"{bridges.alone / 1024**2:.1f} MiB"))
    together = sum(bridges.together) / 1024**2
    rows.append((f"{len(bridges.together)} of them at once (PSS)", f"{together:.0f} MiB"))
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        first_byte_s = quantile(bridges.first_bytes, share)
        rows.append((f"its start until the first byte, {name}", f"{first_byte_s * 1e3:.0f} ms"))
    for label, took in (
        ("its imports", results.start_up.imports),
        ("until it serves", results.start_up.serving),
        ("`mcp-broker status`", results.start_up.status),
    ):
        rows.append((label, f"{statistics.median(took) * 1e3:.0f} ms"))
    return table(("with five servers", ""), rows)


def _p99(samples: list[float]) -> str:
    """Return the p99 in ms; of fewer than a hundred samples it would be the slowest one."""
    return _ms(quantile(samples, 0.99)) if len(samples) >= 100 else "-"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
