"""The commands that a page of the documentation shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Shown(NamedTuple):
    """A command as a page shows it, and the output that it shows with it."""

    command: str
    output: str


def fences(page: Path, language: str) -> list[str]:
    """The text of every fenced block of this language."""
    return [match[2] for match in FENCE.finditer(page.read_text(encoding="utf-8")) if match[1] == language]


def commands(page: Path) -> list[Shown]:
    """What follows a `$` in the console blocks, with the lines up to the next; a `\\` joins two lines."""
    shown = []
    for text in fences(page, "console"):
        for part in re.split(r"^\$ ", re.sub(r"\\\n\s*", "", text), flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            shown.append(Shown(command.strip(), output))
    return shown


def words(text: str) -> set[str]:
    """The words that are the same at every run: no figures, no times, no paths, no lines of tables."""
    found = set(re.split(r"[\s,，。：]+", text)) - _WEEKDAYS
    return {word for word in found if re.search(r"\w", word) and not re.search(r"\d|^/|://", word)}


_WEEKDAYS = {f'"{day}day"' for day in ("Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun")}
