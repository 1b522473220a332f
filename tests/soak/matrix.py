"""The whole fault matrix: every fault at every moment, so many times over."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from tests.e2e.harness import ROOT
from tests.faults.neighbour import quantile_ms
from tests.faults.stage import Played, play
from tests.faults.table import Cell, Moment, cells
from tests.soak.ground import Line, Progress

FOUND = ROOT / "docs" / "faults.toml"


def run(count: int, progress: Progress, *, found: Path | None = FOUND) -> list[Line]:
    """Two moments at a time, for two hundred servers at once would measure the machine."""
    all_played: list[tuple[list[Cell], Played]] = []
    for number in range(count):
        for pair in ((Moment.IDLE, Moment.CALLS), (Moment.START, Moment.RESTART)):
            played_cells = [cell for cell in cells(*pair) if cell.can_be_played]
            all_played.append((played_cells, play(played_cells)))
        progress(number + 1)
    if found is not None:
        write(found, all_played[-2:])
    answers = [answered for _, played in all_played for answered in played.answers]
    return [
        Line("matrix.cells", sum(len(played.seen) for _, played in all_played)),
        Line("matrix.not-as-expected", sum(map(differences, all_played)), 0),
        Line("two-at-once", sum(len(seen.beside) for _, p in all_played for seen in p.seen.values()), 0),
        Line("descriptors", max(p.after.descriptors - p.before.descriptors for _, p in all_played), 0),
        Line("tasks", max(p.after.tasks - p.before.tasks for _, p in all_played), 0),
        Line("matrix.calls", len(answers)),
        Line("matrix.p50", round(quantile_ms(answers, 0.5), 2), None, "ms", timed=True),
        Line("matrix.longest", round(quantile_ms(answers, 1), 1), None, "ms", timed=True),
    ]


def differences(played: tuple[list[Cell], Played]) -> int:
    """How many cells ended otherwise than the table has it."""
    return sum(not cell.is_as_expected(played[1].seen[cell.name]) for cell in played[0])


def write(path: Path, played: list[tuple[list[Cell], Played]]) -> None:
    """What was seen, for the documentation: a table for each fault, a row for each moment."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Written by `make soak`: what became of each server of the fault matrix."))
    for some, one in played:
        for cell in some:
            seen = one.seen[cell.name]
            row = tomlkit.inline_table()
            row["end"] = seen.end.value
            if seen.call is not None:
                row["call"] = seen.call.value
            if seen.safe_call is not None:
                row["safe_call"] = seen.safe_call.value
            if seen.cause is not None:
                row["cause"] = cell.in_general(seen.cause)
            document.setdefault(cell.fault.name, tomlkit.table())[cell.moment.value] = row
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
