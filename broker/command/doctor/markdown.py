"""The report of an examination as Markdown, for issues."""

from __future__ import annotations

from collections.abc import Iterator

from broker.command.doctor.report import (
    DoctorReport,
    compared,
    conclusion,
    connected,
    loads,
    notes,
    record,
    title,
    told,
)
from broker.command.doctor.texts import Say
from broker.command.layout import Grid


def as_markdown(report: DoctorReport, say: Say) -> str:
    """Return the report for an issue or a mail.

    Args:
        say: a `markdown_speaker`, so that links, mentions and HTML in the facts have no effect.
    """
    return "\n".join(_markdown(report, say))


def _markdown(report: DoctorReport, say: Say) -> Iterator[str]:
    yield from (f"## {title(report, say)}", "", *_table(record(report, say)), "", *_table(loads(report, say)))
    yield from ("", connected(report, say))
    if report.comparison or report.no_comparison:
        yield from ("", f"### {say('compare')}", "")
        if report.comparison:
            yield from (*_table(compared(report, say)), "")
        yield from (f"- {note}" for note in notes(report, say))
    for word, remarks in (("findings", False), ("remarks", True)):
        items = told(report, say, remarks=remarks)
        lines = [f"- {f'{text}. {mend}' if mend else text}" for text, mend in items]
        yield from ("", f"### {say(word)}", "", *lines) if lines else ()
    grade, *rest = conclusion(report, say)
    yield from ("", f"**{grade}** {say('between_sentences').join(rest)}")


def _table(grid: Grid) -> Iterator[str]:
    head = [column.name for column in grid.columns]
    for number, row in enumerate([head, *([cell.text for cell in row] for row in grid.rows)]):
        cells = [cell.replace("|", "\\|") for cell in row]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{' --- |' * len(row)}"
