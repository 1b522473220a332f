"""The whole fault matrix: every fault at every moment, so many times over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomlkit

from tests.e2e.harness import ROOT
from tests.faults.neighbour import quantile_ms
from tests.faults.stage import Played, play
from tests.faults.table import FAULTS, Cell, Moment, cells
from tests.soak import report
from tests.soak.ground import Line, Progress

FOUND = ROOT / "docs" / "faults.toml"


def run(count: int, progress: Progress, *, found: Path | None = FOUND) -> list[Line]:
    """A moment at a time: a hundred servers that start at once would measure the machine."""
    all_played: list[tuple[list[Cell], Played]] = []
    for number in range(count):
        for moment in Moment:
            played_cells = [cell for cell in cells(moment) if cell.can_be_played]
            all_played.append((played_cells, play(played_cells)))
        progress(number + 1)
    if found is not None:
        write(found, all_played[-len(Moment) :])
    answers = [answered for _, played in all_played for answered in played.answers]
    return [
        Line("matrix.cells", sum(len(played.seen) for _, played in all_played)),
        Line("matrix.not-as-expected", sum(map(differences, all_played)), 0),
        Line("two-at-once", sum(len(seen.beside) for _, p in all_played for seen in p.seen.values()), 0),
        Line("descriptors", max(p.after.descriptors - p.before.descriptors for _, p in all_played), 0),
        Line("tasks", max(p.after.tasks - p.before.tasks for _, p in all_played), 0),
        Line("matrix.calls", len(answers)),
        Line("matrix.without-an-answer-meanwhile", sum(map(unanswered, all_played)), 0),
        Line("matrix.p50", round(quantile_ms(answers, 0.5), 2), None, "ms", timed=True),
        Line("matrix.longest", round(quantile_ms(answers, 1), 1), None, "ms", timed=True),
    ]


def unanswered(played: tuple[list[Cell], Played]) -> int:
    """During how many faults the neighbour had no answer."""
    return sum(not played[1].meanwhile(cell.name) for cell in played[0])


def differences(played: tuple[list[Cell], Played]) -> int:
    """How many cells ended otherwise than the table has it."""
    return sum(not cell.is_as_expected(played[1].seen[cell.name]) for cell in played[0])


def write(path: Path, played: list[tuple[list[Cell], Played]]) -> None:
    """What was seen, for the documentation: a table for each fault, a row for each moment."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Written by `make soak`: what became of each server of the fault matrix."))
    document["date"] = report.today()
    document["machine"] = report.machine()
    document["around"] = around([one for _, one in played])
    faults = tomlkit.table(is_super_table=True)
    for fault in FAULTS:
        faults[fault.name] = {"means": fault.means.value}
    for some, one in played:
        for cell in some:
            faults[cell.fault.name][cell.moment.value] = row(cell, one)
    document["faults"] = faults
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


def around(played: list[Played]) -> dict[str, Any]:
    """What was seen of the broker and of the neighbour."""
    answers = [answered for one in played for answered in one.answers]
    return {
        "servers": sum(len(one.seen) for one in played),
        "descriptors": [[one.before.descriptors, one.after.descriptors] for one in played],
        "tasks": [[one.before.tasks, one.after.tasks] for one in played],
        "noise": sum(one.counters["dropped.noise"] for one in played),
        "calls": len(answers),
        "p50_ms": round(quantile_ms(answers, 0.5), 1),
        "p99_ms": round(quantile_ms(answers, 0.99), 1),
        "longest_ms": round(quantile_ms(answers, 1), 1),
    }


def row(cell: Cell, played: Played) -> tomlkit.items.InlineTable:
    """One cell."""
    seen, meanwhile = played.seen[cell.name], played.meanwhile(cell.name)
    found = {
        "end": seen.end.value,
        "call": seen.call and seen.call.value,
        "safe_call": seen.safe_call and seen.safe_call.value,
        "cause": seen.cause and cell.in_general(seen.cause),
        "processes": seen.processes,
        "seconds": round(seen.seconds, 1),
        "answered": len(meanwhile),
        "longest_ms": round(quantile_ms(meanwhile, 1)),
    }
    table = tomlkit.inline_table()
    table.update({name: value for name, value in found.items() if value is not None})
    return table
