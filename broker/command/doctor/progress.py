"""Shows the doctor's progress: a bar on a terminal, else a line on stderr for each page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from broker.command.doctor.texts import OnProgress, Say
from broker.command.output import echo
from client_shim.text import printable


@contextmanager
def progress(say: Say) -> Iterator[OnProgress]:
    """Yield the callback that shows the progress."""
    if sys.stderr.isatty():
        with _bar(say) as on_progress:
            yield on_progress
    else:
        yield _lines(say)


def _lines(say: Say) -> OnProgress:
    said: list[str] = []

    def on_progress(word: str, done: int, total: int, **facts: object) -> None:
        line = say(word, done=done, total=total, **facts)
        if said[-1:] != [line]:
            echo(line, err=True)
        said[:] = [line]

    return on_progress


@contextmanager
def _bar(say: Say) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("")

        def on_progress(word: str, done: int, total: int, **facts: object) -> None:
            text = printable(say(word, done=done, total=total, **facts))
            bars.update(bar, description=text, completed=done, total=total)

        yield on_progress
