"""Environments with the thin shim and nothing else, one for each Python that this machine has."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
FOLDER = ROOT / "build" / "thin"
"""Kept from one run to the next, ignored by git, and removed by `make clean`."""

INSTALL_S = 300


def thin_python(version: str) -> Path | None:
    """The interpreter of an environment with the shim only; `None` where there is no such Python here."""
    base = next((found for found in _candidates(version) if _version_of(found) == version), None)
    return None if base is None else _environment(version, base)


def _candidates(version: str) -> Iterator[str]:
    """The running one, on the PATH, or in pyenv."""
    if version == THIS:
        yield sys.executable
    if on_path := shutil.which(f"python{version}"):
        yield on_path
    yield from map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))


def _version_of(python: str) -> str:
    """What it says of itself: a pyenv shim is on the PATH for versions that are not active, too."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def _environment(version: str, base: str) -> Path:
    folder = FOLDER / version
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + base.encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run(base, "-m", "venv", "--without-pip", str(folder))
    pip = (sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", "--editable", str(ROOT))
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
