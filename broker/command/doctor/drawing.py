"""The report on a terminal, drawn by rich. Imported only where something is drawn."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from rich import box
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from broker.command.doctor import report as of
from broker.command.doctor.kinds import Grade
from broker.command.doctor.report import Report, Rows
from broker.command.doctor.texts import Say
from broker.command.tables import text

WIDTH = 100
"""Nothing is drawn wider than this, so that a report pastes well."""

_BAR_CELLS = 16
_COLOURS = {Grade.A: "green", Grade.B: "yellow", Grade.C: "red"}


def show(report: Report, say: Say) -> None:
    """Print it, with colour where the terminal has it."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    Console(width=width, highlight=False, soft_wrap=False).print(Group(*_parts(report, say)))


def _parts(report: Report, say: Say) -> Iterator[RenderableType]:
    yield text(of.title(report, say), "bold")
    yield _table(of.record(report, say), numbers=(0, 1, 2))
    yield _table(of.loads(report, say), numbers=(1, 2))
    if report.old_way:
        yield text(say("compare"), "bold")
        yield _chart(report, say)
    yield from (text(note) for note in of.notes(report, say))
    for word, remarks in (("findings", False), ("remarks", True)):
        lines = of.told(report, say, remarks=remarks)
        if lines:
            yield text(f"\n{say(word)}", "bold")
            yield from (_item(found, mend, report.verdict.grade) for found, mend in lines)
    grade, *rest = of.conclusion(report, say)
    yield text(f"\n{grade}", f"bold {_COLOURS[report.verdict.grade]}")
    yield from map(text, rest)


def _item(found: str, mend: str, grade: Grade) -> RenderableType:
    said = text(f"- {found}", _COLOURS[grade] if mend else "")
    return Group(said, Padding(text(mend), (0, 0, 0, 2), expand=False)) if mend else said


def _table(rows: Rows, numbers: tuple[int, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, word in enumerate(rows.head):
        table.add_column(word, justify="right" if number in numbers else "left", overflow="fold")
    for line in rows.lines:
        table.add_row(*map(text, line))
    return table


def _chart(report: Report, say: Say) -> Table:
    """Both ways side by side, page by page: bars of processes and of the time until every list was there."""
    pairs = of.pairs(report)
    most = max((max(one.old_processes, one.processes) for one in pairs), default=1)
    longest_s = max((max(one.old_open_s, one.open_s) for one in pairs), default=1.0)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(say("number"), justify="right")
    table.add_column("")
    for word in ("processes", "open_time"):
        table.add_column(say(word), justify="right")
        table.add_column("", width=_BAR_CELLS)
    for one in pairs:
        for way, processes, open_s, colour in (
            ("old_way", one.old_processes, one.old_open_s, "red"),
            ("broker", one.processes, one.open_s, "green"),
        ):
            table.add_row(
                str(one.number) if way == "old_way" else "",
                say(way),
                str(processes),
                Bar(most, 0, processes, width=_BAR_CELLS, color=colour),
                f"{open_s:.3f}",
                Bar(longest_s, 0, open_s, width=_BAR_CELLS, color=colour),
            )
    return table
