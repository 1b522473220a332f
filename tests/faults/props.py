"""What the server of a cell is started from, and how that is spoiled and mended."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from tests.e2e.harness import ROOT, SERVERS
from tests.faults.table import Cell, Means, Moment
from tests.servers.faulty import MARK

FLOOD_LINES = 20_000
"""What floods writes so many lines."""

_PROGRAM = '#!/bin/sh\nexec {command} "$@"\n'


def table_of(cell: Cell, folder: Path, flood_lines: int = FLOOD_LINES) -> dict[str, Any]:
    """The server of a cell, as the config has it; its program is written to `folder`."""
    folder.mkdir()
    fault, program = cell.fault, folder / "program"
    python = [sys.executable, "-I", "-S", str(SERVERS / "faulty.py")]
    given = [str(folder / "starts"), fault.fault, str(cell.faulty_start), *fault.flags]
    program.write_text(_PROGRAM.format(command=shlex.join(python)))
    program.chmod(0o755)
    whole = shlex.join([*python, *given])
    command: dict[str, Any] = {"command": str(program), "args": given, "cwd": str(folder / "cwd")}
    if fault.wrapper == "sh":
        command = {"command": "sh", "args": ["-c", f"{whole}; exit"]}
    elif fault.wrapper == "npx":
        command = {"command": "npx", "args": ["--offline", "-c", whole], "cwd": str(ROOT / "tests/node")}
    (folder / "cwd").mkdir()
    if fault.means is Means.DISK and cell.moment is Moment.START:
        spoil(cell, folder)
    often = {"restart_sec": 0.05, "start_limit_burst": 1000, "timeout_stop_sec": 0.3}
    return {**command, **often, **fault.keys, "env": {MARK: str(folder), "FAULTS_LINES": str(flood_lines)}}


def spoil(cell: Cell, folder: Path) -> None:
    """Take away what the server is started from."""
    if cell.fault.name == "no such command":
        (folder / "program").rename(folder / "away")
    elif cell.fault.name == "no permission":
        (folder / "program").chmod(0o644)
    else:
        (folder / "cwd").rmdir()


def mend(cell: Cell, folder: Path) -> None:
    """Give it back."""
    if cell.fault.name == "no such command":
        (folder / "away").rename(folder / "program")
    elif cell.fault.name == "no permission":
        (folder / "program").chmod(0o755)
    else:
        (folder / "cwd").mkdir()
