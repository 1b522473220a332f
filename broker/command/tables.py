"""Lines and tables on a terminal, drawn by rich. Imported only where something is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.command.output import Grid, Line, Part, width
from client_shim.text import printable

_NARROWEST = 16
"""A column that folds to a width of its own has at least so much of it."""


def show(parts: Iterable[Part]) -> None:
    """Print it, with colour where the terminal has it."""
    _console().print(_drawn(parts))


@contextmanager
def live() -> Iterator[Callable[[Iterable[Part]], None]]:
    """A place on the screen that can be drawn again."""
    with Live(console=_console(), auto_refresh=False, screen=True) as area:
        yield lambda parts: area.update(_drawn(parts), refresh=True)


def _console() -> Console:
    console = Console(width=width(), highlight=False, soft_wrap=False)
    if console.is_dumb_terminal:  # rich takes such a one to have 80 columns, whatever it is told
        console.size = ConsoleDimensions(width(), console.height)
    return console


def _drawn(parts: Iterable[Part]) -> RenderableType:
    return Group(*(_text(part) if isinstance(part, Line) else _table(part) for part in parts))


def _text(line: Line) -> Text:
    return text(line.text, line.style)


def text(words: str, style: str = "") -> Text:
    """A text as rich draws it, in which nothing but rich moves the cursor."""
    return Text(printable(words), style)


def _table(grid: Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=bool(grid.title), pad_edge=False)
    table.padding = 0 if grid.is_tight else (0, 1, 0, 0)
    if grid.title:
        table.title, table.title_justify = text(grid.title, "bold"), "left"
    for name, right, folds, widest in grid.columns:
        if folds:
            narrowest = None if widest is None else _NARROWEST
            table.add_column(name, overflow="fold", min_width=narrowest, max_width=widest)
        else:
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in grid.rows:
        table.add_row(*map(_text, row))
    return table
