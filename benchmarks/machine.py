"""The machine of a run, and the kernel's figures of a process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("mcp-shared-broker", "pyzmq", "msgpack", "msgspec", "trio", "uvicorn", "uvloop", "mcp")


def describe() -> dict[str, str]:
    """Return the machine and the versions for the report."""
    import zmq

    return {
        "commit": _commit(),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": sys.version.split()[0],
        "libzmq": zmq.zmq_version(),
        **{name: version(name) for name in PACKAGES},
    }


def _commit() -> str:
    """Return the last commit that changed what is measured, as far as git knows."""
    log = ["git", "log", "-1", "--format=%h", "--", "broker", "client_shim"]
    ran = subprocess.run(log, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    return ran.stdout.strip() or "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, more exactly than /proc/PID/stat."""
    tasks = Path("/proc", str(pid), "task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def pss_bytes(pid: int) -> int:
    """Return the memory of a process, each page that it shares in equal parts with the others that do."""
    rollup = Path("/proc", str(pid), "smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
