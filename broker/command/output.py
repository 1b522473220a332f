r"""Prints the output of all commands, without raw control characters.

Texts of servers, config files and other programs may hold escape sequences that set a title, clear the
screen, write to the clipboard (OSC 52) or reverse the text direction. They are shown as escapes such as
`\u001b`, on a terminal and in a pipe, because a file may be shown on a terminal later.

Lines and tables are drawn by rich on a terminal (`broker.command.tables`) and as plain text elsewhere,
because importing rich takes as long as everything else that a command does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import click

from broker.command.layout import Grid, Line, Part
from broker.command.texts.wrapping import display_width
from client_shim.text import on_one_line, printable, printable_json


def echo(text: object, *, err: bool = False, colour: str | None = None, end: bool = True) -> None:
    """Print a text. `colour` is used on a terminal only; `end` adds a line end."""
    safe = printable(str(text))
    click.echo(safe if colour is None else click.style(safe, fg=colour), err=err, nl=end)


def echo_json(value: object, *, indent: int | None = 2) -> None:
    """Print a value as JSON, with control characters as JSON escapes."""
    click.echo(printable_json(json.dumps(value, ensure_ascii=False, indent=indent)))


def show(parts: Iterable[Part]) -> None:
    """Print lines and tables: with rich on a terminal, as plain text elsewhere."""
    if sys.stdout.isatty():
        from broker.command import tables

        tables.show(parts)
        return
    for part in parts:
        for line in [f"{' ' * part.indent}{part.text}"] if isinstance(part, Line) else _plain(part):
            echo(line)


@contextmanager
def live() -> Iterator[Callable[[Iterable[Part]], None]]:
    """Yield a function that redraws the screen; without a terminal it prints each drawing below the last."""
    if not sys.stdout.isatty():
        yield show
        return
    from broker.command import tables

    with tables.live() as draw:
        yield draw


def _plain(grid: Grid) -> Iterator[str]:
    """Yield the lines of a table whose columns are as wide as their longest cell."""
    if grid.title:
        yield grid.title
    texts = [[column.name for column in grid.columns], *([cell.text for cell in row] for row in grid.rows)]
    cells = [[on_one_line(text) for text in row] for row in texts]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            " " * (widest - display_width(cell)) + cell
            if column.right
            else cell + " " * (widest - display_width(cell))
            for cell, column, widest in zip(row, grid.columns, widths, strict=True)
        )
        yield (" " if grid.is_tight else "  ").join(padded).rstrip()
    if grid.title:
        yield ""
