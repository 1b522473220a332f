"""The benchmarks run, with counts of almost nothing, and say of every target whether it is met."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.figures import PARTS
from benchmarks.http_client import Events
from benchmarks.plan import FULL, QUICK, SMOKE
from benchmarks.processes import SERVERS, listening_broker, wait_ready
from benchmarks.report import pages, report
from benchmarks.results import OnServer, Results
from benchmarks.steps import STEPS
from benchmarks.summary import OURS, Summary
from benchmarks.targets import TARGETS, Target
from benchmarks.timing import median_of_rounds, quantile
from docs.blocks.markdown import TEXTS

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_measures_everything(tmp_path: Path) -> None:
    """One command, every table; without the gateways, which only `make bench` installs."""
    command = [sys.executable, "-m", "benchmarks", "--smoke", "--out", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    page = (tmp_path / "REPORT.md").read_text(encoding="utf-8")
    assert [target.text for target in TARGETS if f"| {target.text} |" not in page] == []
    for way in ("raw pipe", "floor", "floor on both loops", "SDK over stdio", *OURS):
        assert f"| {way} |" in page
    assert page.count("![") == 3
    assert [what for what, _ in STEPS.values() if f"| {what} |" not in page] == []
    missed_is_explained(tmp_path)


def missed_is_explained(folder: Path) -> None:
    """What is missed is reported, with where the time goes; and nothing is said of what is not."""
    results = msgspec.json.decode((folder / "smoke.json").read_bytes(), type=Results)
    page, run = report(results), Summary(results)
    for target in TARGETS:
        is_missed = target.verdict(target.measure(run)) == "**missed**"
        assert (f"- **{target.text}**: {target.cost}" in page) is is_missed


def test_the_steps_of_a_call() -> None:
    """docs/performance.md: one call through the code, and each step of it is really gone through."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.steps"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ran.stdout.splitlines()[2:]]
    assert [cell[0] for cell in cells] == [*(what for what, _ in STEPS.values()), "together"]
    assert all(float(cell[2]) > 0 for cell in cells)
    assert all((ROOT / where).exists() for _, where in STEPS.values())


def test_what_is_published_is_of_these_targets_and_in_both_languages() -> None:
    """docs/performance.md shows benchmarks/figures.json: not the targets of an older program."""
    figures = json.loads((ROOT / "benchmarks" / "figures.json").read_text(encoding="utf-8"))
    shown = [(row["what"], row["limit"]) for row in figures["targets"]]
    assert shown == [(target.text, target.wanted) for target in TARGETS]
    assert [row["what"] for row in figures["steps"]] == [what for what, _ in STEPS.values()]
    texts = [*(target.text for target in TARGETS), *PARTS.values(), *(what for what, _ in STEPS.values())]
    assert list(TEXTS["performance"]) == texts


def test_a_short_run_measures_what_the_long_one_does() -> None:
    """Otherwise what is developed against is not what is published."""
    for plan in (QUICK, SMOKE):
        assert plan.bodies.keys() == FULL.bodies.keys()
        assert 100 in plan.connections
        assert plan.old_pages


@pytest.mark.parametrize(
    ("target", "measured", "met"),
    [
        (Target("", 1.2, lambda _: 0, ""), 1.2, True),
        (Target("", 1.2, lambda _: 0, ""), 1.21, False),
        (Target("", 5, lambda _: 0, "", least=True), 5, True),
        (Target("", 5, lambda _: 0, "", least=True), 4.99, False),
    ],
)
def test_a_target_is_not_bent(target: Target, measured: float, met: bool) -> None:
    """What is missed is reported."""
    assert target.met(measured) is met


def test_a_target_beside_gateways_that_are_not_there_is_neither_met_nor_missed() -> None:
    """The report of a machine on which no other gateway can be installed claims nothing of them."""
    beside = Target("", 4, lambda _: 0, "", least=True)
    assert beside.verdict(math.nan) == "not measured"
    assert beside.show(math.nan) == "-"
    assert [beside.verdict(figure) for figure in (4.0, 3.9)] == ["met", "**missed**"]


def test_events_come_whole_however_they_are_cut() -> None:
    """The client of all gateways reads what each writes: both line ends, comments, several at once."""
    body = b': hello\n\nevent: message\r\ndata: {"id":1}\r\n\r\ndata: a\ndata: b\nid: 7\n\n'
    for size in range(1, len(body)):
        events = Events()
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        assert [event for piece in pieces for event in events.feed(piece)] == [b'{"id":1}', b"a\nb"]


def test_pages_are_told_with_what_was_measured() -> None:
    """A p99 is no maximum, and few samples have only that. The number of servers is that of the run."""
    thousandths = [number / 1000 for number in range(1, 201)]
    results = Results("smoke", "", {}, servers={"bare": OnServer()}, on_demand_servers=3)
    results.pages, results.on_demand, results.old_pages = thousandths, thousandths[:20], thousandths[:3]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in pages(Summary(results)).splitlines()]
    assert rows[0][1:] == ["times", "p50", "p99", "slowest"]
    assert [row[1:] for row in rows[2:]] == [
        ["200", "101.00", "199.00", "200.00"],
        ["20", "11.00", "-", "20.00"],
        ["3", "2.00", "-", "3.00"],
    ]
    assert rows[3][0] == "from the start of a broker with 3 servers on demand"


def test_a_broker_that_has_ended_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run says so at once, with its status, instead of a minute and a half later."""
    with listening_broker(tmp_path, "ended", SERVERS, start="demand") as broker:
        broker.process.kill()
        broker.process.wait()
        monkeypatch.setattr("benchmarks.processes.time.sleep", lambda _: pytest.fail("it was waited for"))
        with pytest.raises(RuntimeError, match="has ended with status -9; see its log"):
            wait_ready(broker)


def test_what_is_said_of_samples() -> None:
    """A p99 is a sample that was seen, and one bad round does not decide."""
    hundred = [float(number) for number in range(100)]
    assert quantile(hundred, 0.5) == 50
    assert quantile(hundred, 0.99) == 99
    assert quantile([7.0], 0.99) == 7
    assert median_of_rounds([[1.0], [2.0], [900.0]], 0.99) == 2
