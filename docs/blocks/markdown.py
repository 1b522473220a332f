"""Markdown for the blocks, and the texts that the code does not have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import tomli

DOCS = Path(__file__).resolve().parent.parent
TEXTS: dict[str, Any] = {
    name: section
    for file in (DOCS / "texts.toml", DOCS.parent / "broker/command/texts/codes.toml")
    for name, section in tomli.loads(file.read_text(encoding="utf-8")).items()
}

Language = Literal["en", "zh"]
Block = Callable[[Language], str]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; a `|` in a cell is escaped."""
    lines = [list(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: object) -> str:
    """Return a text as code."""
    return f"`{text}`"


def sentence(text: str | None) -> str:
    """Return the first sentence of a docstring."""
    paragraph = " ".join((text or "").split("\n\n")[0].split()).rstrip(":")
    return re.split(r"(?<=[^.]\.) (?=[A-Z`])", paragraph)[0].replace("``", "`")


def numbers(page: str) -> Block:
    """Return the block of the constants in `[numbers.PAGE]` of the texts, with their values."""

    def rows() -> Iterator[list[str]]:
        for path, text in TEXTS["numbers"][page].items():
            module, _, name = path.rpartition(".")
            value = getattr(import_module(module), name)
            yield [code(f"{module.rpartition('.')[2]}.{name}"), f"{value:g}", text]

    return lambda _: table(("name", "value", "meaning"), rows())
