"""Broken first lines: found by `check`, and told as the reason of a start that fails because of one."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from broker.config.schema import ServerConfig
from broker.processes.program import SpawnError, program_of
from broker.processes.shebang import NotRunnable, needed_by
from tests.e2e.harness import running, toml
from tests.e2e.test_command import command

PATH = "/usr/local/bin:/usr/bin:/bin"


def file(folder: Path, content: bytes, name: str = "server") -> Path:
    """A file that may be run."""
    path = folder / name
    path.write_bytes(content)
    path.chmod(0o755)
    return path


BROKEN = {
    "CRLF behind the interpreter": (
        b"#!/bin/sh\r\necho\r\n",
        r"'/bin/sh\\r' is looked for; convert it with `sed",
    ),
    "CRLF behind the command of env": (
        b"#!/usr/bin/env python3\r\nimport x\r\n",
        r"'python3\\r' is looked for",
    ),
    "CRLF behind an option": (b"#!/bin/sh -e\r\n", r"'-e\\r' is looked for"),
    "a virtual environment that was moved": (
        b"#!/home/nobody/old/.venv/bin/python3\nimport x\n",
        "it was moved or removed: make the environment /home/nobody/old/.venv again",
    ),
    "an interpreter that was moved": (
        b"#!/opt/none/bin/ruby -w\n",
        "names /opt/none/bin/ruby, which is not there",
    ),
    "a first line that pip splits": (
        b"#!/bin/sh\n'''exec' \"/home/my old/.venv/bin/python\" \"$0\" \"$@\"\n' '''\nimport x\n",
        "the second line of .* names /home/my old/.venv/bin/python, which is not there; it was moved",
    ),
    "one that uv splits": (
        b"#!/bin/sh\n'''exec' '/home/my old/.venv/bin/python3' \"$0\" \"$@\"\n' '''\n",
        "names /home/my old/.venv/bin/python3, which is not there",
    ),
    "env finds nothing": (
        b"#!/usr/bin/env no-such-node\n",
        "`env` look for 'no-such-node', which is not in PATH",
    ),
    "env -S finds nothing": (b"#!/usr/bin/env -S no-such-node --x\n", "look for 'no-such-node'"),
    "env with variables": (b"#!/usr/bin/env -S A=1 no-such-node\n", "look for 'no-such-node'"),
    "env with options and no -S": (b"#!/usr/bin/env sh -e\n", "one word 'sh -e'; write `env -S sh -e`"),
    "env at a place of its own": (
        b"#!/usr/bin/env /opt/none/node\n",
        "names /opt/none/node, which is not there",
    ),
    "a folder": (b"#!/usr/bin\n", "names /usr/bin, which may not be run"),
    "a file that may not be run": (b"#!/etc/passwd\n", "names /etc/passwd, which may not be run"),
    "nothing": (b"#!\n", "names nothing in its first line"),
    "blanks": (b"#!  \t\n", "names nothing in its first line"),
    "too long": (b"#!/" + b"x" * 300 + b"\n", "has a first line above 255 bytes"),
    "a mark of Windows": (b"\xef\xbb\xbf#!/bin/sh\n", "begins with a byte-order mark"),
    "empty": (b"", "is empty"),
    "no first line": (b"import mcp\n", "is a script without a first line"),
    "no first line, in Chinese": ("# 时间服务器\nimport mcp\n".encode(), "is a script without a first line"),
}
WHOLE = {
    "sh": b"#!/bin/sh\n",
    "blanks": b"#! /bin/sh -e \n",
    "a tab": b"#!\t/bin/sh\t-e\n",
    "no end": b"#!/bin/sh",
    "env": b"#!/usr/bin/env sh\n",
    "env -S": b"#!/usr/bin/env -S A=1 sh -e\n",
    "env that clears": b"#!/usr/bin/env -i no-such\n",
    "CR within": b"#!/bin/sh\necho '\r'\r\n",
    "this Python": f"#!{sys.executable}\n".encode(),
    "something else": b"PK\x03\x04\0\0",
    "a long line of options": b"#!/bin/sh " + b"x" * 300 + b"\n",
}


@pytest.mark.parametrize(("content", "said"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_run(content: bytes, said: str, tmp_path: Path) -> None:
    """Each break by name, with what to do; what the kernel or `env` says of the same file is no better."""
    program = file(tmp_path, content)
    if not content.startswith(b"#!") and len(os.listdir("/proc/sys/fs/binfmt_misc")) > 2:
        pytest.skip("this machine runs files of other kinds too")
    with pytest.raises(NotRunnable, match=said):
        needed_by(str(program), tmp_path, PATH)


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_a_file_that_can_be_run(content: bytes, tmp_path: Path) -> None:
    """Nothing is refused that may run."""
    needed_by(str(file(tmp_path, content)), tmp_path, PATH)


@pytest.mark.parametrize("program", ["/bin/sh", sys.executable, shutil.which("env"), shutil.which("npx")])
def test_the_programs_of_this_machine_can_be_run(program: str | None) -> None:
    """Binaries with their loader, scripts with their interpreter."""
    if program is None:
        pytest.skip("it is not here")
    needed = needed_by(program, Path("/"), os.environ["PATH"])
    assert all(os.access(path, os.X_OK) for path in needed)


def test_a_binary_of_another_system(tmp_path: Path) -> None:
    """One of musl where there is glibc: its loader is not there."""
    content = bytearray(Path(os.path.realpath("/bin/sh")).read_bytes())
    loader = next(path for path in needed_by("/bin/sh", Path("/"), PATH))
    at = content.index(loader.encode())
    content[at : at + len(loader)] = b"/lib/ld-none.so".ljust(len(loader), b"x")
    with pytest.raises(NotRunnable, match="made for another system, whose loader /lib/ld-none"):
        needed_by(str(file(tmp_path, bytes(content))), tmp_path, PATH)


def test_a_virtual_environment_whose_python_is_gone(tmp_path: Path) -> None:
    """Its `python` is a link to a Python that was upgraded away: both ends are named."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/opt/none/bin/python3.10")
    script = file(tmp_path, f"#!{python}\n".encode())
    with pytest.raises(
        NotRunnable, match=f"names {python}, a link to /opt/none/bin/python3.10, which is not there"
    ):
        needed_by(str(script), tmp_path, PATH)
    config = ServerConfig(name="one", command=str(python))
    with pytest.raises(SpawnError, match=r"is a link to '/opt/none/bin/python3\.10', which is not there"):
        program_of(config, folder=tmp_path, environ={})


def test_a_whole_command_line_is_told_as_one(tmp_path: Path) -> None:
    """`command = "sh -c x"`: as many hosts write it."""
    config = ServerConfig(name="one", command="sh -c 'x y'")
    said = r"write only 'sh' as command in \[servers.one\], and its other words as args, each a string"
    with pytest.raises(SpawnError, match=said):
        program_of(config, folder=tmp_path, environ={"PATH": PATH})
    with pytest.raises(SpawnError, match="install it, or write its whole path as command"):
        program_of(ServerConfig(name="one", command=" "), folder=tmp_path, environ={"PATH": PATH})


def test_an_interpreter_may_be_a_script(tmp_path: Path) -> None:
    """The first one whose own is missing is named."""
    inner = file(tmp_path, b"#!/opt/none/sh\n", "inner")
    outer = file(tmp_path, f"#!{inner}\n".encode(), "outer")
    with pytest.raises(NotRunnable, match=f"the first line of {inner} names /opt/none/sh"):
        needed_by(str(outer), tmp_path, PATH)
    ring = file(tmp_path, f"#!{tmp_path}/ring\n".encode(), "ring")
    needed_by(str(ring), tmp_path, PATH)  # the kernel says what it thinks of that


def test_what_may_not_be_read_may_be_run(tmp_path: Path) -> None:
    """A program of mode 0711, as another user sees it."""
    program = file(tmp_path, b"#!/opt/none/sh\n")
    program.chmod(stat.S_IXUSR)
    if os.access(program, os.R_OK):
        pytest.skip("root may read everything")
    assert needed_by(str(program), tmp_path, PATH) == []


@pytest.mark.parametrize("name", ["CRLF behind the command of env", "a virtual environment that was moved"])
def test_check_and_status_name_it(name: str, tmp_path: Path) -> None:
    """`check` ends with status 1, and a start fails for the same reason in the same words."""
    content, _ = BROKEN[name]
    program = file(tmp_path, content)
    table = {"command": str(program), "start_limit_burst": 1}
    config = tmp_path / "broker.toml"
    config.write_text(toml({"servers.one": table}), encoding="utf-8")
    done = command("check", "--config", str(config))
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("one: it could not be run: "))
    with running({"one": table}, ready=False) as broker:
        assert f"one: {broker.wait_state('one', 'broken')['last_error']}" == line
