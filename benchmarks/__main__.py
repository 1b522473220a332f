"""`python -m benchmarks`: measure, and write REPORT.md with its plots; a quick run keeps its own in out/."""

from __future__ import annotations

import asyncio
import datetime
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from benchmarks import bridges, calls, footprint, machine, neighbours, networks, pages, steps
from benchmarks.figures import figures
from benchmarks.plan import FULL, QUICK, SMOKE, Plan
from benchmarks.processes import HERE, PAGE_SERVERS, SERVERS, running_broker
from benchmarks.report import report, targets
from benchmarks.results import Results
from benchmarks.summary import Summary

OUT = HERE / "out"
PLANS = {"full": FULL, "quick": QUICK, "smoke": SMOKE}


@click.command()
@click.option("--quick", "plan", flag_value="quick", help="A minute or two, for development.")
@click.option("--smoke", "plan", flag_value="smoke", help="A few seconds, to see that it works.")
@click.option("--again", is_flag=True, help="Measure nothing: write the report of the last run anew.")
@click.option(
    "--publish", is_flag=True, help="Write the report of a quick run where that of a full one lies."
)
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="Where raw results go.")
def main(plan: str | None, again: bool, publish: bool, out: Path) -> None:
    """Measure the broker beside its alternatives."""
    name = plan or "full"
    raw = out / f"{name}.json"
    if again:
        results = msgspec.json.decode(raw.read_bytes(), type=Results)
    else:
        results = measure(name)
        out.mkdir(exist_ok=True)
        raw.write_bytes(msgspec.json.encode(results))
    folder = HERE if name == "full" or publish else out
    (folder / "REPORT.md").write_text(report(results), encoding="utf-8")
    (folder / "figures.json").write_bytes(figures(Summary(results)))
    if name != "smoke":
        from benchmarks import plots

        plots.draw(Summary(results), folder)
    click.echo(targets(Summary(results)))


def measure(name: str) -> Results:
    """Return everything that was measured, in a temporary folder."""
    plan = PLANS[name]
    began = time.monotonic()
    results = Results(
        plan=name,
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        machine=machine.describe(),
        load_before=os.getloadavg()[0],
    )
    with tempfile.TemporaryDirectory(prefix="mb-", ignore_cleanup_errors=True) as folder:
        with _step("steps"):
            results.steps = steps.measure(Path(folder), plan.steps)
        with _step("networks"):
            networks.measure(plan, Path(folder), results)
        asyncio.run(_measure(plan, Path(folder), results))
    results.took_s = time.monotonic() - began
    return results


async def _measure(plan: Plan, folder: Path, results: Results) -> None:
    gc.freeze()  # what is loaded by now need not be looked at again in the middle of a call
    with running_broker(folder, "calls", {**SERVERS, "bare2": SERVERS["bare"]}) as broker:
        for server in SERVERS:
            with _step(f"calls on {server}"):
                await calls.measure(server, broker, plan, folder, results)
        with _step("a flood"):
            await neighbours.measure(broker, plan, folder, results)
        with _step("cycles"):
            await pages.measure_cycles(broker, plan, results)
    with running_broker(folder, "pages", PAGE_SERVERS) as broker:
        with _step("memory"):
            footprint.measure_connections(broker, plan, folder, results)
            await footprint.measure_channels(broker, plan, results)
        with _step("pages"):
            await pages.measure_pages(broker, plan, folder, results)
        with _step("bridges"):
            await bridges.measure(broker, "time", plan, folder, results)
        with _step("start-up"):
            footprint.measure_start_up(broker, plan, folder, results)
    with _step("restarts"):
        await pages.measure_restarts(plan, folder, results)
        await pages.measure_on_demand(plan, folder, results)


@contextmanager
def _step(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    click.echo(f"{what}: {time.monotonic() - began:.0f} s", err=True)


if __name__ == "__main__":
    main()
