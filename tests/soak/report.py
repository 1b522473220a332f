"""What the soak found, kept in docs/soak.toml: a table for each part, replaced when that part runs again."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import tomlkit

from benchmarks import machine
from tests.e2e.harness import ROOT
from tests.soak.ground import Line

FOUND = ROOT / "docs" / "soak.toml"
_ABOUT = "Written by `make soak`: the machine, and what each part measured beside what it may be at most."


def write(part: str, count: int, seconds: float, lines: list[Line], path: Path = FOUND) -> None:
    """Keep what a part found."""
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else _new()
    document["machine"] = machine.describe()
    table: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "count": count,
        "seconds": round(seconds),
        "line": tomlkit.aot(),
    }
    for line in lines:
        kept = {key: value for key, value in line._asdict().items() if value not in (None, "", False)}
        table["line"].append(tomlkit.item({"measured": 0, **kept}))
    document.setdefault("parts", tomlkit.table(is_super_table=True))[part] = table
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


def _new() -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    document.add(tomlkit.comment(_ABOUT))
    return document
