"""What `make`, the installer and the scripts of `make` say: in both languages, chosen as for the command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SCRIPTS = (
    *(".ci/make-venv", "systemd/host", "systemd/install", "systemd/package"),
    *("systemd/debian/preinst", "systemd/debian/postinst", "systemd/debian/postrm"),
    "tests/docker/with-docker",
)
CHINESE = re.compile(r"[\u4e00-\u9fff]")
VARIABLE = re.compile(r"\$\{[^}]*\}|\$\w+")
TWO = {"$1", "$2"}
"""The arguments of a function that passes its two texts on."""

TEXT = r'"(?:[^"\\]|\\.)*"'


def make(*arguments: str, **environ: str) -> str:
    """What make prints, in an environment that names no language but these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG", "MAKE", "MCP_BROKER_"))
    }
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**kept, **environ}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("environ", "chinese"),
    [
        ({}, False),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, False),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "zh_TW.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8", "MCP_BROKER_LANG": "zh"}, True),
        ({"LANG": "zh_CN.UTF-8", "MCP_BROKER_LANG": "en"}, False),
    ],
    ids=str,
)
def test_the_language_is_chosen_as_for_the_command(environ: dict[str, str], chinese: bool) -> None:
    """Every line of `make help` is in the reader's language."""
    lines = make("help", **environ).splitlines()
    assert len(lines) > 10
    assert {bool(CHINESE.search(line)) for line in lines} == {chinese}


def test_every_target_is_told_in_both_languages() -> None:
    """`## English | Chinese` behind the target."""
    told = re.findall(r"^[a-z-]+:.*## (.*)$", MAKEFILE, re.MULTILINE)
    halves = [text.split(" | ") for text in told]
    assert [text for text in halves if len(text) != 2 or not CHINESE.search(text[1])] == []


def test_make_prints_no_text_of_one_language() -> None:
    """A text that a recipe prints goes through `say`."""
    echoes = re.findall(r'echo "(.*?)[")]', MAKEFILE, re.MULTILINE)
    assert len(echoes) > 5
    assert [text for text in echoes if not text.startswith("$(call say,")] == []


def test_ci_installs_the_commands_that_the_tests_run(tmp_path: Path) -> None:
    """On a minimal Debian as root, where a missing command would skip tests or fail them."""
    for name in ("apt-get", "make"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*"\n', encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "")
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    script = script.replace("EUID", "0").replace("${BASH_SOURCE[0]}", str(ROOT / ".ci/run"))
    command = ["/bin/bash", "-c", script]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    told, *installed, made = done.stdout.splitlines()
    packages = {"iproute2", "mount", "nodejs", "npm", "procps", "python3", "python3-venv", "util-linux"}
    assert packages <= {*told.split()}
    assert packages <= {*installed[-1].split()}
    assert made == "make test"


@pytest.mark.parametrize("path", SCRIPTS)
def test_each_script_says_all_in_both_languages(path: str) -> None:
    """`say`, `fail` and `lacks` have two texts, the second of them Chinese, with the same facts."""
    source = re.sub(r"\\\n\s*", " ", (ROOT / path).read_text(encoding="utf-8"))
    calls = re.findall(rf"\b(?:say|fail|lacks) ({TEXT})( +{TEXT})?", source)
    assert calls
    for english, chinese in calls:
        if re.search(r"[a-z]{2}", VARIABLE.sub("", english)):  # else it only passes on what it is given
            assert CHINESE.search(chinese), english
        assert {*VARIABLE.findall(english)} - TWO == {*VARIABLE.findall(chinese)} - TWO, english
