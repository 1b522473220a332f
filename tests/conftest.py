"""For all tests: what the programs that they start inherit, and in which order the files run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

LONGEST = (
    "systemd/test_service.py",
    "faults/test_matrix.py",
    "gateway/test_conformance.py",
    "soak/test_soak.py",
    "e2e/test_hostile_clients.py",
    "client_shim/backend/test_pages.py",
    "gateway/stdio/test_connect.py",
    "e2e/test_life.py",
    "project/test_benchmarks.py",
    "project/test_release.py",
    "command/doctor/test_doctor.py",
    "e2e/test_reload.py",
    "e2e/test_containers.py",
    "project/test_examples.py",
)
"""The files that take longest, which are begun first where files run side by side: they end together."""


def pytest_configure() -> None:
    """Make of any environment the one that the tests are written for.

    `nohup` and a shell's `&` have signals ignored, which are ignored in every child too. readline, which
    pytest loads, exports to a worker how wide it takes the terminal to be. And what is started a hundred
    times need be compiled once.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for name in ("COLUMNS", "LINES", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the others as they are."""
    tests = Path(__file__).parent
    place = {tests / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))
