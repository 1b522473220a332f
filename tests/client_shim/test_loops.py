"""The tests really run on the event loops that their names say."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tests.client_shim.backend.kit import PATIENCE_S
from tests.client_shim.loops import WITHOUT_READERS, programs_are_without_readers
from tests.e2e.harness import ROOT

CHECK = """
import asyncio, socket
def can_watch():
    loop, (ours, theirs) = asyncio.new_event_loop(), socket.socketpair()
    try:
        loop.add_reader(ours, print)
    except NotImplementedError:
        return False
    finally:
        loop.close()
        ours.close()
        theirs.close()
    return True
"""


def can_watch() -> bool:
    """Whether a loop of this process watches descriptors."""
    here: dict[str, Any] = {}
    exec(CHECK, here)
    return bool(here["can_watch"]())


def test_loops_are_of_one_kind_in_the_test_and_in_what_it_starts(loops: str) -> None:
    """Else the shim would not need its waiting thread there, and nobody would notice."""
    command = [sys.executable, "-c", f"{CHECK}\nprint(can_watch())"]
    there = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert [can_watch(), there.stdout.strip()] == [loops == "asyncio", str(loops == "asyncio")]


def test_make_loop_test_has_no_other_loops() -> None:
    """It names the folder that takes `add_reader` away, and while it runs, it is away in every test."""
    folder = WITHOUT_READERS.relative_to(ROOT)
    assert f"PYTHONPATH := $(CURDIR)/{folder}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert can_watch() is not programs_are_without_readers()
