"""What `systemd/install` may remove: the folder that it has made. Run below a folder of the test."""

from __future__ import annotations

import grp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.systemd.inside import ROOT

LINK = "usr/local/bin/mcp-broker"
SHARED = ("bin/mcp-broker", "bin/another", "lib/another/data")
"""What is in a folder such as /usr/local, where pip has put a command of our name."""


class Host:
    """A folder that stands for `/`, with a folder in it for programs."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.programs = folder / "programs"

    def put(self, prefix: Path, *names: str) -> None:
        """Make files in a folder of the host."""
        for name in names:
            path = self.at(prefix) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name, encoding="utf-8")

    def link(self, prefix: Path) -> None:
        """Make the command lead to an installation in this folder."""
        path = self.root / LINK
        path.parent.mkdir(parents=True)
        path.symlink_to(prefix / "bin/mcp-broker")

    def at(self, path: Path) -> Path:
        """Return where a path of the host really is."""
        return self.root / path.relative_to("/")

    def files(self) -> set[Path]:
        """Return every file and link of the host."""
        return {path for path in self.root.rglob("*") if path.is_symlink() or path.is_file()}

    def run(self, action: str, prefix: Path | str) -> subprocess.CompletedProcess[str]:
        """Run the installer. What it installs from is empty: it gets no further than its checks."""
        named = {"DESTDIR": str(self.root), "PREFIX": str(prefix), "WHEELS": "/nonexistent"}
        return subprocess.run(
            [ROOT / "systemd/install", action],
            env={**os.environ, "MCP_BROKER_LANG": "en", "PYTHON": sys.executable, **named},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("action", ["install", "uninstall", "purge"])
@pytest.mark.parametrize("also", [(), ("pyvenv.cfg",), ("share/install",)], ids=["shared", "venv", "no venv"])
def test_a_folder_that_it_has_not_made_is_refused_unchanged(
    host: Host, action: str, also: tuple[str, ...]
) -> None:
    """PREFIX=/usr/local, or the environment of another program: nothing there is removed or overwritten."""
    host.put(host.programs, *SHARED, *also)
    before = host.files()
    done = host.run(action, host.programs)
    assert done.returncode == 1, done.stdout
    assert "is no installation of mcp-broker; nothing is changed" in done.stderr
    assert "rm -r" not in done.stderr
    assert host.files() == before


@pytest.mark.parametrize("mark", [".installed-by-mcp-broker", "share/install"])
def test_what_it_has_made_is_removed(host: Host, mark: str) -> None:
    """By the mark of the installer; before that there was a copy of the installer."""
    host.put(host.programs, *SHARED, "pyvenv.cfg", mark)
    host.link(host.programs)
    done = host.run("uninstall", f"{host.programs}/")
    assert done.returncode == 0, done.stderr
    assert host.files() == set()
    assert host.run("uninstall", host.programs).returncode == 0, "a second one finds nothing to do"


def test_without_prefix_it_finds_the_installation_by_the_command(host: Host) -> None:
    """An operator need not remember PREFIX."""
    host.put(host.programs, "pyvenv.cfg", "share/install")
    host.link(host.programs)
    assert host.run("uninstall", "").returncode == 0
    assert host.files() == set()


@pytest.mark.parametrize("left", [(), ("lib/python",), ("pyvenv.cfg",)], ids=["nothing", "a part", "a venv"])
def test_what_an_interrupted_command_has_left_is_removed_or_installed_over(
    host: Host, left: tuple[str, ...]
) -> None:
    """Ctrl-C or a power cut while the environment is made or removed: the same command again mends it."""
    host.put(host.programs, *left)
    host.put(host.programs.parent, f"{host.programs.name}.incomplete")
    assert "is no installation" not in host.run("install", host.programs).stderr
    assert host.run("uninstall", host.programs).returncode == 0
    assert host.files() == set()


def test_a_slash_in_the_link_of_an_earlier_installation_makes_no_difference(host: Host) -> None:
    host.put(host.programs, "pyvenv.cfg", "share/install")
    link = host.root / LINK
    link.parent.mkdir(parents=True)
    link.symlink_to(f"{host.programs}//bin/mcp-broker")
    assert host.run("uninstall", "").returncode == 0
    assert host.files() == set()


@pytest.mark.parametrize("action", ["install", "uninstall", "purge"])
def test_another_prefix_than_that_of_the_installation_is_refused(host: Host, action: str) -> None:
    """Else the units would be removed, or lead elsewhere, and the program would stay."""
    host.put(host.programs, "pyvenv.cfg", "share/install")
    host.link(host.programs)
    before = host.files()
    done = host.run(action, host.programs.with_name("other"))
    assert done.returncode == 1
    assert f"installed in {host.programs} here" in done.stderr
    assert host.files() == before


def test_the_command_of_another_installation_stays(host: Host) -> None:
    """That of `pip install` as root, say."""
    host.put(Path("/usr/local"), "bin/mcp-broker")
    assert host.run("uninstall", host.programs).returncode == 0
    assert host.files() == {host.root / LINK}
    done = host.run("install", host.programs)
    assert (done.returncode, host.files()) == (1, {host.root / LINK})
    assert "is another program" in done.stderr


@pytest.mark.parametrize("prefix", ["/", "programs"])
def test_a_prefix_is_an_absolute_path(host: Host, prefix: str) -> None:
    assert "is no absolute path" in host.run("purge", prefix).stderr


def test_a_folder_with_a_python_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    """`make-venv /usr/local` in an image of Python, where /usr/local/bin/python has pip."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    (tmp_path / "bin/python").chmod(0o755)
    done = subprocess.run(
        [ROOT / ".ci/make-venv", tmp_path, sys.executable],
        env={**os.environ, "MCP_BROKER_LANG": "en"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "is no virtual environment; nothing is changed" in done.stderr
    assert "rm -r" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_link_among_the_keys_of_a_backup_changes_nothing_elsewhere(tmp_path: Path) -> None:
    """Law 8: the installer is root, and a restored folder may be one in which somebody else can write."""
    etc, another = tmp_path / "etc", tmp_path / "another"
    (etc / "authorized_keys").mkdir(parents=True)
    for path in (another, etc / "broker.toml", etc / "authorized_keys" / "page.key"):
        path.write_text("", encoding="utf-8")
        path.chmod(0o600)
    (etc / "authorized_keys" / "link.key").symlink_to(another)
    group = grp.getgrgid(os.getgid()).gr_name
    script = f'. "{ROOT}/systemd/host"; etc="{etc}" config_group="{group}"; adopt_config new'
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], env={"PATH": os.environ["PATH"]}, check=True)
    modes = [
        oct(path.stat().st_mode)[-3:] for path in (etc / "broker.toml", etc / "authorized_keys/page.key")
    ]
    assert (modes, oct(another.stat().st_mode)[-3:]) == (["640", "640"], "600")
