"""A control group for each server, where systemd delegated the broker's own (`Delegate=yes`).

Whatever a server starts is in its cgroup, however it detaches itself, and one write ends all of it. A cgroup
that was not delegated is somebody else's to arrange, and is never touched, even by root.

The broker's own process stays where it was started and no controller is switched on: so the rule that an
inner cgroup has no processes does not apply, the broker needs no cgroup of its own (`DelegateSubgroup=`, new
in systemd 254, is not needed and does no harm), and limits of the unit hold for all servers together.

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
"""The marks that systemd sets; the second one is of versions before 251, and only root can read it."""


class Cgroup(NamedTuple):
    """The cgroup of one server, with those that the server makes below it."""

    path: Path

    @property
    def procs(self) -> Path:
        """The file by which a process enters."""
        return self.path / "cgroup.procs"

    def pids(self) -> list[int]:
        """Every process in it; none where it is gone."""
        return [
            int(pid) for folder in _with_nested(self.path) for pid in _read(folder / "cgroup.procs").split()
        ]

    def cpu_s(self) -> float:
        """What all its processes have taken, those that have ended too."""
        taken = re.search(r"usage_usec (\d+)", _read(self.path / "cpu.stat"))
        return int(taken[1]) / 1e6 if taken else 0.0

    def kill(self) -> None:
        """SIGKILL to everything in it, at once: nothing can fork its way out."""
        with suppress(OSError):  # it is gone
            (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> bool:
        """Remove it, which has no process any more; whether it is gone."""
        for folder in _with_nested(self.path):
            with suppress(OSError):  # a process that the kernel keeps
                folder.rmdir()
        return not self.path.exists()


def is_removed(cgroup: Cgroup | None) -> bool:
    """Whether a process tree that is gone has no cgroup any more; it is removed where that can be."""
    return cgroup is None or cgroup.remove()


class Delegation(NamedTuple):
    """A cgroup in which the broker may make others."""

    path: Path

    def make(self, server: str, cookie: str) -> Cgroup:
        """A cgroup for one process tree.

        Raises:
            OSError: it cannot be made.
        """
        made = self.of(server, cookie)
        made.path.mkdir()
        return made

    def of(self, server: str, cookie: str) -> Cgroup:
        """The cgroup that is made for one process tree."""
        return Cgroup(self.path / f"server-{server}.{cookie}")

    def left(self, owner: str) -> Iterator[tuple[str, str, Cgroup]]:
        """Server, cookie and cgroup of what brokers of this owner made and did not remove."""
        name = re.compile(rf"server-(.+)\.({re.escape(owner)}\.[^.]+)")
        for path in sorted(self.path.iterdir()):
            if found := name.fullmatch(path.name):
                yield found[1], found[2], Cgroup(path)


def delegation() -> Delegation | None:
    """Where this process may make cgroups; `None` where nothing was delegated to it.

    Raises:
        OSError: it was delegated, and cannot be used all the same.
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
    """A cgroup and all below it, the lowest first."""
    return [Path(folder) for folder, _, _ in os.walk(path, topdown=False)]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
