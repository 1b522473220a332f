"""Commands under a real systemd that is booted for them; see `under-systemd` for how, and what it needs."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNDER_SYSTEMD = ROOT / "tests" / "systemd" / "under-systemd"

PROBE_S = 30
BOOT_S = 30
"""What a boot and its end may take beside the command."""


@functools.cache
def why_not() -> str | None:
    """What is missing here for a systemd to be booted; `None` where nothing is."""
    done = subprocess.run([UNDER_SYSTEMD, "-p"], capture_output=True, text=True, timeout=PROBE_S, check=False)
    return None if done.returncode == 0 else f"no systemd can be booted: {done.stdout or done.stderr}".strip()


def needs_systemd() -> None:
    """Skip the test, with the reason, where no systemd can be booted."""
    if reason := why_not():
        pytest.skip(reason)


def under_systemd(*command: str | Path, limit_s: int = 60) -> subprocess.CompletedProcess[str]:
    """Run a command as root in a throw-away view of this machine with a systemd of its own.

    Its stdout and stderr come together in `stdout`. After `limit_s` seconds everything in there is killed.
    """
    return subprocess.run(
        [UNDER_SYSTEMD, "-t", str(limit_s), *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit_s + BOOT_S,
        check=False,
    )
