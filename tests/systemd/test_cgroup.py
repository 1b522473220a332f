"""A cgroup for each server, where a real systemd delegated the broker's: nothing escapes it."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.systemd.inside import ROOT, needs_systemd, under_systemd

EXPECTED = {
    "left in": ("server-one", "what a server starts is in the server's own cgroup"),
    "processes": (3, "law 1: `status` counts the whole tree"),
    "alive after restart": ([], "law 1: `cgroup.kill` ends what nothing else can find"),
    "groups after restart": (1, "law 6: the cgroup of a process that is gone is removed, with those in it"),
    "alive after the broker was killed": (True, "otherwise the next line would show nothing"),
    "alive with the next broker": (False, "law 1: the next broker ends it before it starts its own"),
    "groups with the next broker": (1, "and removes its cgroup"),
    "logged": (1, "law 9: what was killed is logged"),
    "alive after stop": (False, "law 1: shutdown ends the whole tree"),
    "groups without delegation": ([], "a cgroup that was not delegated is never touched, even by root"),
    "states without delegation": ("ready", "and is not needed"),
    "states of a protected one": ("ready", "a cgroup that cannot be used stops no server"),
    "logged by a protected one": (1, "law 10: and its reason is told"),
}


@pytest.fixture(scope="module")
def observed() -> dict[str, Any]:
    """What the session has told."""
    needs_systemd()
    session = ROOT / "tests" / "systemd" / "cgroup_session.py"
    done = under_systemd("env", f"PYTHONPATH={ROOT}", sys.executable, session)
    assert done.returncode == 0, done.stdout
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


@pytest.mark.parametrize("what", EXPECTED)
def test_the_tree_of_a_server_is_its_cgroup(what: str, observed: dict[str, Any]) -> None:
    """One tree, found whole, by a cgroup with `cgroup.kill` where one was delegated."""
    expected, law = EXPECTED[what]
    assert observed[what] == expected, law


def test_the_cpu_time_is_the_cgroup_s(observed: dict[str, Any]) -> None:
    """With that of processes that have ended."""
    assert observed["cpu"] > 0
