"""What the soak found, kept in docs/soak.toml: a table for each part, replaced when that part runs again."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit

from benchmarks.machine import describe
from tests.e2e.harness import ROOT
from tests.soak.ground import Line

FOUND = ROOT / "docs" / "soak.toml"
_ABOUT = "Written by `make soak`: the machine, and what each part measured beside what it may be at most."


def today() -> str:
    """The date, as a report has it."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def machine() -> dict[str, str]:
    """Processor, cores, memory, kernel, versions."""
    found = describe()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": found.pop("processor"),
        "memory": f"{pages / 1024**3:.0f} GiB",
        "kernel": found.pop("kernel"),
        **found,
    }


class Took(NamedTuple):
    """What a part took: so many seconds, on a machine with so much to do when it began."""

    seconds: float
    load: float


def load() -> float:
    """How many processes want to run, at an average of the last minute. Source: proc_loadavg(5)."""
    return round(os.getloadavg()[0], 1)


def write(part: str, count: int, unit: str, took: Took, lines: list[Line], path: Path = FOUND) -> None:
    """Keep what a part found."""
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else _new()
    document["machine"] = machine()
    table: dict[str, Any] = {
        "date": today(),
        "count": count,
        "unit": unit,
        "seconds": round(took.seconds),
        "load": took.load,
        "line": tomlkit.aot(),
    }
    for line in lines:
        kept = {key: value for key, value in line._asdict().items() if value is not None and value != ""}
        table["line"].append(tomlkit.item(kept))
    document.setdefault("parts", tomlkit.table(is_super_table=True))[part] = table
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


def _new() -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    document.add(tomlkit.comment(_ABOUT))
    return document
