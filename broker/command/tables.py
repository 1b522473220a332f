"""Draws lines and tables with rich."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, ConsoleDimensions, Group, JustifyMethod, OverflowMethod, RenderableType
from rich.containers import Lines
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from broker.command.layout import Grid, Line, Part, width
from broker.command.texts.wrapping import breaks
from client_shim.text import printable

_MIN_WIDTH = 16
"""The minimum width of a folding column that has a maximum width."""


def show(parts: Iterable[Part]) -> None:
    """Print lines and tables, with the colours that the terminal has."""
    _console().print(_drawn(parts))


@contextmanager
def live() -> Iterator[Callable[[Iterable[Part]], None]]:
    """Yield a function that redraws the screen."""
    with Live(console=_console(), auto_refresh=False, screen=True) as area:
        yield lambda parts: area.update(_drawn(parts), refresh=True)


def _console() -> Console:
    console = Console(width=width(), highlight=False, soft_wrap=False)
    if console.is_dumb_terminal:  # rich assumes 80 columns for it, whatever the width
        console.size = ConsoleDimensions(width(), console.height)
    return console


def _drawn(parts: Iterable[Part]) -> RenderableType:
    return Group(*(_line(part) if isinstance(part, Line) else _table(part) for part in parts))


def _line(line: Line) -> RenderableType:
    return Padding(_text(line), (0, 0, 0, line.indent), expand=False) if line.indent else _text(line)


class _WrappedText(Text):
    """A text whose lines break as `breaks` says."""

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        """Return the lines for this width."""
        if no_wrap:
            return super().wrap(
                console, width, justify=justify, overflow=overflow, tab_size=tab_size, no_wrap=no_wrap
            )
        lines = Lines()
        for line in self.split("\n", allow_blank=True):
            parts = line.divide(breaks(line.plain, width))
            for part in parts:
                part.rstrip()
            if justify:
                parts.justify(console, width, justify=justify, overflow=overflow or "fold")
            lines.extend(parts)
        return lines


def _text(line: Line) -> Text:
    return _WrappedText(printable(line.text), line.style)


def _table(grid: Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=bool(grid.title), pad_edge=False)
    table.padding = 0 if grid.is_tight else (0, 1, 0, 0)
    if grid.title:
        table.title, table.title_justify = _text(Line(grid.title, "bold")), "left"
    for name, right, folds, max_width in grid.columns:
        if folds:
            min_width = None if max_width is None else _MIN_WIDTH
            table.add_column(name, overflow="fold", min_width=min_width, max_width=max_width)
        else:
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in grid.rows:
        table.add_row(*map(_text, row))
    return table
