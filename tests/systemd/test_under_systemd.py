"""The systemd that the other tests here boot: it is a real one, and nothing of it stays behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.systemd.inside import ROOT, UNDER_SYSTEMD, needs_systemd, under_systemd

SESSION = """
cat >/etc/systemd/system/proof.service <<UNIT
[Service]
Type=notify
NotifyAccess=all
User=nobody
ExecStart=/bin/sh -c 'id -un; systemd-notify --ready --status="it is there"; exec sleep infinity'
UNIT
systemctl daemon-reload && systemctl start proof.service || exit 9
systemctl show --property ActiveState,StatusText proof.service
journalctl --sync && journalctl --output cat --unit proof.service
echo "inode of the root of the cgroups: $(stat --format %i /sys/fs/cgroup)"
touch tests/systemd/left-behind /run/left-behind
exit 3
"""


@pytest.fixture(scope="module")
def booted() -> subprocess.CompletedProcess[str]:
    needs_systemd()
    return under_systemd("bash", "-c", SESSION)


def test_a_unit_starts_as_another_user_and_says_that_it_is_ready(
    booted: subprocess.CompletedProcess[str],
) -> None:
    """systemctl, the notify protocol and the journal work inside as on a real host."""
    lines = booted.stdout.splitlines()
    assert {"ActiveState=active", "StatusText=it is there", "nobody"} <= set(lines), booted.stdout


def test_two_at_once_have_no_cgroup_in_common(booted: subprocess.CompletedProcess[str]) -> None:
    """Each has a root of its own: with the kernel's (inode 1) they would end each other's services."""
    roots = [line for line in booted.stdout.splitlines() if line.startswith("inode of the root")]
    assert len(roots) == 1, booted.stdout
    assert not roots[0].endswith(": 1")


def test_the_exit_status_is_the_commands(booted: subprocess.CompletedProcess[str]) -> None:
    """A session that fails must be seen to fail."""
    assert booted.returncode == 3, booted.stdout


def test_nothing_is_left_outside(booted: subprocess.CompletedProcess[str]) -> None:
    """What is written inside, and the folder that it was staged in, are gone."""
    left = [
        ROOT / "tests/systemd/left-behind",
        Path("/run/left-behind"),
        Path("/etc/systemd/system/proof.service"),
    ]
    assert not [path for path in left if path.exists()]
    assert not list(Path("/var/tmp").glob("under-systemd.*/root"))


def test_it_says_what_it_lacks() -> None:
    """Where root is missing, it says that it was skipped and why."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody who is not root")
    command = ["bash", "-s", "--", "-p"]  # by its stdin: another user may not enter every folder of root's
    with UNDER_SYSTEMD.open() as script:
        done = subprocess.run(
            command, stdin=script, user=65534, cwd="/", capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (77, "it needs root\n")
