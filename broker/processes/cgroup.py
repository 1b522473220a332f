"""A control group for each server, if systemd has delegated the broker's own cgroup (`Delegate=yes`).

Every process that a server starts is in its cgroup, even if it detaches itself, and one write kills all of
them. The broker never touches a cgroup that was not delegated to it, even as root.

The broker's own process stays in the delegated cgroup, and no controller is enabled. So the rule that inner
cgroups have no processes does not apply, `DelegateSubgroup=` is not needed, and the limits of the unit hold
for all servers together.

Source: the kernel's cgroup-v2 documentation; systemd's *Control Group APIs and Delegation*.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_DELEGATED = ("user.delegate", "trusted.delegate")
"""Extended attributes that systemd sets. Versions before 251 set the second one, which only root can read."""


class Cgroup(NamedTuple):
    """The cgroup of one process tree, with the cgroups below it."""

    path: Path

    @property
    def procs(self) -> Path:
        """The file that a process writes to in order to enter."""
        return self.path / "cgroup.procs"

    def pids(self) -> list[int]:
        """Return the pids of all processes in it."""
        return [
            int(pid) for folder in _with_nested(self.path) for pid in _read(folder / "cgroup.procs").split()
        ]

    def cpu_s(self) -> float:
        """Return the CPU time of all its processes, also of those that have ended."""
        taken = re.search(r"usage_usec (\d+)", _read(self.path / "cpu.stat"))
        return int(taken[1]) / 1e6 if taken else 0.0

    def kill(self) -> None:
        """Send SIGKILL to everything in it at once: no process escapes by forking."""
        with suppress(OSError):  # it is gone
            (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> bool:
        """Remove a cgroup without processes. Return whether it is gone."""
        for folder in _with_nested(self.path):
            with suppress(OSError):  # a process that the kernel keeps
                folder.rmdir()
        return not self.path.exists()


def is_removed(cgroup: Cgroup | None) -> bool:
    """Remove the cgroup of a process tree that is gone, if it had one. Return whether it is gone."""
    return cgroup is None or cgroup.remove()


class Delegation(NamedTuple):
    """A cgroup in which the broker may make cgroups."""

    path: Path

    def make(self, server: str, cookie: str) -> Cgroup:
        """Make the cgroup of one process tree.

        Raises:
            OSError: it cannot be made.
        """
        made = self.of(server, cookie)
        made.path.mkdir()
        return made

    def of(self, server: str, cookie: str) -> Cgroup:
        """Return the cgroup of one process tree, made or not."""
        return Cgroup(self.path / f"server-{server}.{cookie}")

    def left(self, owner: str) -> Iterator[tuple[str, str, Cgroup]]:
        """Yield server, cookie and cgroup of each cgroup that brokers of this owner made and did not
        remove."""
        name = re.compile(rf"server-(.+)\.({re.escape(owner)}\.[^.]+)")
        for path in sorted(self.path.iterdir()):
            if found := name.fullmatch(path.name):
                yield found[1], found[2], Cgroup(path)


def delegation() -> Delegation | None:
    """Return the cgroup that was delegated to this process, if any.

    Raises:
        OSError: it was delegated, but cannot be used.
    """
    own = _own_cgroup()
    path = next((one for one in (own, own.parent) if _is_delegated(one)), None) if own else None
    if path is None or not (path / "cgroup.kill").exists():  # before Linux 5.14
        return None
    trial = Delegation(path).make("trial", str(os.getpid()))
    trial.remove()
    return Delegation(path)


def _own_cgroup() -> Path | None:
    own = re.search(r"^0::(/.*)$", _read(Path("/proc/self/cgroup")), re.MULTILINE)
    mounts = re.findall(r"^\S+ \S+ \S+ (\S+) (\S+) .* - cgroup2 ", _read(Path("/proc/self/mountinfo")), re.M)
    if own is None or not mounts:
        return None
    root, point = mounts[-1]
    path = Path(point, os.path.relpath(own[1], root))
    return path if path.is_dir() and ".." not in path.parts else None


def _is_delegated(path: Path) -> bool:
    for name in _DELEGATED:
        with suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def _with_nested(path: Path) -> list[Path]:
    """Return a cgroup and all below it, the lowest first."""
    return [Path(folder) for folder, _, _ in os.walk(path, topdown=False)]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
