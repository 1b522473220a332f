"""A release: its version and its changelog; wheel, sdist and Debian package, which two builds make equal."""

from __future__ import annotations

import io
import os
import platform
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import tomli

import broker
from broker.config.loading import load
from client_shim.version import __version__ as version_of_the_shim
from tests.project.wheels import DEBIAN_PYTHON, PACKAGE_SETTINGS, package, why_no_package

ROOT = Path(__file__).parents[2]
NAME = f"mcp_shared_broker-{broker.__version__}"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")

pytestmark = pytest.mark.timeout(400)


def run(*command: str | Path, **environ: str) -> str:
    """The output of a command that must go well."""
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the version ---------------------------------------------------------------------------------------


def test_the_version_is_the_newest_of_the_changelog() -> None:
    """One version for broker and shim, with an entry, a date, and a summary in Chinese."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, newest, *_ = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert unreleased.startswith("[Unreleased]\n")
    assert re.match(rf"\[{re.escape(broker.__version__)}\] - \d{{4}}-\d\d-\d\d\n", newest), newest[:40]
    assert version_of_the_shim == broker.__version__
    for entry in (unreleased, newest):
        assert entry.count("\n### 中文摘要\n") == 1


# --- wheel and sdist -----------------------------------------------------------------------------------


def build(folder: Path, zone: str) -> dict[str, bytes]:
    """Build wheel and sdist into a folder, and return them."""
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    run(*command, SOURCE_DATE_EPOCH=PACKAGE_SETTINGS["SOURCE_DATE_EPOCH"], TZ=zone)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Wheel and sdist."""
    return build(tmp_path_factory.mktemp("dist"), "UTC")


def test_two_builds_of_wheel_and_sdist_are_equal(dist: dict[str, bytes], tmp_path: Path) -> None:
    """The same bytes at another time, in another place and zone; the wheel is made of the sdist."""
    assert set(dist) == {f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"}
    assert build(tmp_path, "Asia/Tokyo") == dist
    with tarfile.open(fileobj=io.BytesIO(dist[f"{NAME}.tar.gz"])) as sdist:
        held = {member.name.partition("/")[2] for member in sdist}
    assert {"Makefile", "systemd/package", "systemd/host", ".ci/make-venv", "docs/service.md"} <= held, (
        "the sdist can be installed as a service, tested, and released again"
    )
    assert not [path for path in held if path.endswith((".pyc", ".whl", ".deb")) or ".venv" in path]


# --- the Debian package --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> Path:
    """The package; a skip where it cannot be built."""
    if reason := why_no_package():
        pytest.skip(reason)
    return package()


class Unpacked(dict[str, tarfile.TarInfo]):
    """What the package has at each path below `/`."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        super().__init__((member.name.removeprefix("./"), member) for member in archive)
        self._archive = archive

    def text(self, path: str) -> str:
        """Return the text of a file."""
        file = self._archive.extractfile(self[path])
        assert file is not None
        return file.read().decode()


def unpack(built: Path, part: str) -> Unpacked:
    """Return the files (`fsys`) or the control files (`ctrl`) of the package."""
    done = subprocess.run(["dpkg-deb", f"--{part}-tarfile", built], capture_output=True, check=True)
    return Unpacked(tarfile.open(fileobj=io.BytesIO(done.stdout)))


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Unpacked:
    """The files of the package."""
    return unpack(built, "fsys")


def test_make_dist_builds_an_equal_package(built: Path, dist: dict[str, bytes], tmp_path: Path) -> None:
    """Of the unpacked sdist: the same bytes at another time, in another place, for another umask, zone and
    language. lintian, here a stand-in, is given the package.
    """
    with tarfile.open(fileobj=io.BytesIO(dist[f"{NAME}.tar.gz"])) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / NAME
    environment = f".venv/.installed-{DEBIAN_PYTHON.replace('/', '_')}"  # is not made
    tools = (f"BIN={Path(sys.executable).parent}", f"--assume-old={environment}")
    other = {"TZ": "Asia/Tokyo", "LANG": "zh_CN.UTF-8", "TMPDIR": str(tmp_path), "PYTHONHASHSEED": "7"}
    other["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    (tmp_path / "lintian").write_text('#!/bin/sh\necho "checked: $*"\n', encoding="utf-8")
    (tmp_path / "lintian").chmod(0o755)
    mask = os.umask(0o077)
    try:
        said = run("make", "--directory", source, "dist", *tools, **PACKAGE_SETTINGS, **other)
    finally:
        os.umask(mask)
    assert f"checked: --allow-root --fail-on error,warning dist/{built.name}" in said
    again = {path.name: path.read_bytes() for path in (source / "dist").iterdir()}
    assert again.keys() == {*dist, built.name}
    assert again[built.name] == built.read_bytes()
    assert again[f"{NAME}-py3-none-any.whl"] == dist[f"{NAME}-py3-none-any.whl"]


def test_the_package_depends_on_the_python_that_it_was_built_with(built: Path) -> None:
    """Its wheels are for one architecture and one version of Debian's Python, and apt knows both."""
    fields = dict(
        line.split(": ", 1) for line in run("dpkg-deb", "--field", built).splitlines() if ": " in line
    )
    architecture = run("dpkg", "--print-architecture").strip()
    assert built.name == f"mcp-shared-broker_{broker.__version__}_{architecture}.deb"
    minor = int(run(DEBIAN_PYTHON, "-c", "import sys; print(sys.version_info[1])"))
    assert f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1}~)" in fields["Depends"]
    assert fields["Architecture"] == architecture
    assert f"libc6 (>= {platform.libc_ver()[1]})" in fields["Depends"], "pip chose the wheels for it"


def test_every_file_of_the_package_has_its_place(built: Path, unpacked: Unpacked) -> None:
    """Below /opt and /usr, nothing in /usr/local or /etc, no pip, and no name of the folder of the build."""
    files = {name for name, member in unpacked.items() if not member.isdir()}
    assert {"/".join(file.split("/")[:2]) for file in files} == {
        "opt/mcp-broker",
        "usr/bin",
        "usr/lib",
        "usr/share",
    }
    assert {f"usr/lib/systemd/{kind}/mcp-broker.socket" for kind in ("system", "user")} <= files
    assert not [file for file in files if "/site-packages/pip" in file or file.endswith("/share/install")]
    assert unpacked["usr/bin/mcp-broker"].linkname == "/opt/mcp-broker/bin/mcp-broker"
    assert b"/root/opt/mcp-broker" not in built.read_bytes()


def test_its_units_are_those_of_make_install(unpacked: Unpacked) -> None:
    """One source of units."""
    for path in (ROOT / "systemd").glob("*.s*[et]"):
        for kind in ("system", "user"):
            made = run(ROOT / "systemd/unit", kind, path)
            assert unpacked.text(f"usr/lib/systemd/{kind}/{path.name}") == made


def test_a_first_install_runs_no_server_that_nobody_asked_for(unpacked: Unpacked) -> None:
    """Its config shows every key, and one server, which is not enabled."""
    text = unpacked.text("opt/mcp-broker/share/broker.toml")
    (server,) = load(tomli.loads(text), {}).servers.values()
    assert not server.enabled
    whole = (ROOT / "broker.toml").read_text(encoding="utf-8")
    shown = {line.partition(" = ")[0].strip("#") for line in text.splitlines() if " = " in line}
    keys = {line.partition(" = ")[0].strip("#") for line in whole.splitlines() if line.startswith("#")}
    assert {key for key in keys if re.fullmatch(r"\w+", key)} <= shown


def test_a_maintainer_script_needs_no_file_of_the_package(built: Path, tmp_path: Path) -> None:
    """preinst runs before they are there, postrm after they are gone. No variable moves it."""
    control = unpack(built, "ctrl")
    assert {*SCRIPTS} < {*control}
    for name in SCRIPTS:
        text = control.text(name)
        assert text.startswith("#!/bin/bash\nset -e\nunset DESTDIR CONFIG IMPORT\nPREFIX=/opt/mcp-broker\n")
        assert not re.search(r"^\s*(\.|source) ", text, re.MULTILINE)
        (tmp_path / name).write_text(text, encoding="utf-8")
        run("bash", "-n", tmp_path / name)
