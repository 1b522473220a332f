"""Environments with the base install and nothing else, one for each Python that this machine has.

They are kept from one run to the next; another source tree is installed into them anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.project.wheels import FOLDER, alone, digest, is_stamped, pip, run, stamp, wheel

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSIONS = ("3.10", "3.11", "3.12", "3.13")


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
    folder, made_of = FOLDER / "thin" / version, f"{base} {digest()}"
    python = folder / "bin" / "python"
    with alone(f"thin-{version}"):
        if not is_stamped(folder, made_of):
            shutil.rmtree(folder, ignore_errors=True)
            run(base, "-m", "venv", "--without-pip", str(folder))
            pip("--python", str(python), "install", str(wheel()))
            stamp(folder, made_of)
    return python
