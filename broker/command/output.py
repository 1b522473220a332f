r"""The one way out of the commands: nothing that they print has a raw control character.

What servers, config files and other programs say may hold escape sequences that set a title, clear the
screen, write to the clipboard (OSC 52) or turn the direction of writing. They are shown as escapes such as
`\u001b`, on a terminal and into a pipe, for what is in a file is shown on a terminal later.
`broker.command.tables` draws with rich; it makes its texts with `printable` too.
"""

from __future__ import annotations

import json
import shutil
from typing import NamedTuple

import click

from client_shim.text import printable, printable_json


def echo(text: object, *, err: bool = False, colour: str | None = None, end: bool = True) -> None:
    """Print a text, in this colour where the output is a terminal; without a line end if `end` is false."""
    safe = printable(str(text))
    click.echo(safe if colour is None else click.style(safe, fg=colour), err=err, nl=end)


def echo_json(value: object, *, indent: int | None = 2) -> None:
    """Print a value as JSON. What `echo` would escape is escaped as JSON has it: the value stays the same."""
    click.echo(printable_json(json.dumps(value, ensure_ascii=False, indent=indent)))


WIDTH = 100
"""Nothing is drawn wider than this, so that a report pastes well."""


_MANY = 8


class Line(NamedTuple):
    """Some text, and how it looks where that can be shown."""

    text: str
    style: str = ""


class Column(NamedTuple):
    """A column: figures stand at its right, long text is folded, to this width where one is given."""

    name: str
    right: bool = False
    folds: bool = False
    width: int | None = None


class Grid(NamedTuple):
    """A table."""

    columns: list[Column]
    rows: list[list[Line]]
    title: str = ""

    @property
    def is_tight(self) -> bool:
        """Whether it has so many columns that there is hardly room between them."""
        return len(self.columns) > _MANY


Part = Line | Grid


def width() -> int:
    """How wide it may be drawn."""
    return min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
