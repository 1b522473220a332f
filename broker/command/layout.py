"""The lines and tables of which the commands' output is made."""

from __future__ import annotations

import shutil
from typing import NamedTuple

WIDTH = 100
"""The maximum width of the output, so that it can be pasted into a report."""

_TIGHT_COLUMNS = 7


class Line(NamedTuple):
    """A text with a style of rich, indented by so many columns."""

    text: str
    style: str = ""
    indent: int = 0


class Column(NamedTuple):
    """A table column. `right` aligns numbers; `folds` wraps long text, to `width` if given."""

    name: str
    right: bool = False
    folds: bool = False
    width: int | None = None


class Grid(NamedTuple):
    """A table of lines."""

    columns: list[Column]
    rows: list[list[Line]]
    title: str = ""

    @property
    def is_tight(self) -> bool:
        """Whether the table has so many columns that they stand close together."""
        return len(self.columns) > _TIGHT_COLUMNS


Part = Line | Grid


def width() -> int:
    """Return the width that the output may take."""
    return min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
