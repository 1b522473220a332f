"""The machine of a run, and the kernel's figures of a process."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("mcp-broker", "pyzmq", "msgpack", "msgspec", "trio", "mcp")


def describe() -> dict[str, str]:
    """Return the machine and the versions for the report."""
    import zmq

    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "libzmq": zmq.zmq_version(),
        **{name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, more exactly than /proc/PID/stat."""
    tasks = Path("/proc", str(pid), "task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
