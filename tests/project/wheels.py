"""The wheels that tests install from: made once for all tests and all workers, and kept in `build`."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build"
"""Kept from one run to the next, ignored by git, and removed by `make clean`."""

PACKAGES = ("broker", "client_shim")
INSTALL_S = 300
DEBIAN_PYTHON = "/usr/bin/python3"
PACKAGED = ("*.md", "*.toml", ".ci/make-venv", "systemd/**/*", "docs/*.md", "examples/**/*", "benchmarks/*.*")
"""What a Debian package has beside the wheels, and what builds it."""

PACKAGE_SETTINGS = {
    "WHEELS": str(FOLDER / "wheels"),
    "PYTHON": DEBIAN_PYTHON,
    "SOURCE_DATE_EPOCH": "1700000000",
    "COMPRESSION": "none",
}
"""The variables of systemd/package."""


@contextmanager
def alone(name: str) -> Iterator[None]:
    """No other worker does this meanwhile; what it has done is there afterwards."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def digest() -> str:
    """What the wheel is made of, in short."""
    files = [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    for package in PACKAGES:
        files += sorted(path for path in (ROOT / package).rglob("*") if "__pycache__" not in path.parts)
    whole = hashlib.sha256(sys.version.encode())
    for path in files:
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{path.relative_to(ROOT)} {content}\n".encode())
    return whole.hexdigest()


def wheel() -> Path:
    """That of this source tree, as it is now."""
    folder = FOLDER / "wheel"
    with alone("wheel"):
        if not is_stamped(folder, digest()):
            shutil.rmtree(folder, ignore_errors=True)
            pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
            stamp(folder, digest())
        (built,) = folder.glob("*.whl")
        return built


@functools.cache
def service_python() -> str:
    """The Python on which `make install` puts the service: perhaps another version than that of the tests."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    found = ["bash", "-c", ". systemd/install && find_python"]
    done = subprocess.run(found, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _version_of(python: str) -> str:
    version = "import sys; print(*sys.version_info[:2], sep='.')"
    return subprocess.run([python, "-c", version], capture_output=True, text=True, check=False).stdout.strip()


def wheels() -> Path:
    """A folder with that one and all that a service needs, on its Python: for a place without a network."""
    folder, own, python = FOLDER / "wheels", wheel(), service_python()
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + _version_of(python).encode()).hexdigest()
    with alone("wheels"):
        if not is_stamped(folder, wanted):
            shutil.rmtree(folder, ignore_errors=True)
            what = f"{own}[daemon,gateway,metrics,examples]"
            pip("--python", python, "wheel", "--wheel-dir", str(folder), what)
            stamp(folder, wanted)
        shutil.copy(own, folder)
    return folder


def why_no_package() -> str | None:
    """What is missing here for a Debian package to be built of those wheels; `None` where nothing is."""
    if not shutil.which("dpkg-deb"):
        return "there is no dpkg-deb here: the package is built on Debian or Ubuntu"
    if not Path(DEBIAN_PYTHON).exists():
        return f"there is no {DEBIAN_PYTHON} here, on which the package would depend"
    found, wanted = _version_of(DEBIAN_PYTHON), _version_of(service_python())
    if found != wanted:
        return f"{DEBIAN_PYTHON} is not Python {wanted}, for which the tests have wheels: {found}"
    owner = subprocess.run(["dpkg-query", "--search", os.path.realpath(DEBIAN_PYTHON)], capture_output=True)
    return None if owner.returncode == 0 else f"{DEBIAN_PYTHON} is not Debian's"


def package() -> Path:
    """The Debian package of this source tree, as it is now, without compression."""
    folder, ready = FOLDER / "package", wheels()
    wanted = hashlib.sha256("\n".join([digest(), *sorted(os.listdir(ready))]).encode())
    for pattern in PACKAGED:
        for path in sorted(path for path in ROOT.glob(pattern) if path.is_file()):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            wanted.update(f"{path.relative_to(ROOT)} {content}\n".encode())
    with alone("package"):
        if not is_stamped(folder, wanted.hexdigest()):
            shutil.rmtree(folder, ignore_errors=True)
            build_package(folder)
            stamp(folder, wanted.hexdigest())
        (built,) = folder.glob("*.deb")
        return built


def build_package(folder: Path) -> None:
    """Build the Debian package into a new folder."""
    folder.mkdir(parents=True)
    environ = {**os.environ, **PACKAGE_SETTINGS, "PIP": sys.executable}
    run(str(ROOT / "systemd/package"), str(folder), environ=environ)


def pip(*arguments: str) -> None:
    """Have pip do something that must go well."""
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def run(*command: str, environ: dict[str, str] | None = None) -> None:
    """A command that must go well."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=INSTALL_S, env=environ
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def is_stamped(folder: Path, wanted: str) -> bool:
    """Whether it was made, to its end, of just this."""
    stamp = folder / "made-of"
    return stamp.exists() and stamp.read_text(encoding="utf-8") == wanted


def stamp(folder: Path, made_of: str) -> None:
    """It has been made."""
    (folder / "made-of").write_text(made_of, encoding="utf-8")
