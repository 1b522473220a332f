"""What others say is shown, and does nothing: neither on a terminal nor, later, out of a file.

A server, a config file and a file of another program hold escape sequences wherever they can hold text. Each
command is run on a terminal and into a pipe.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import unicodedata
from collections.abc import Iterator

import pytest

from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, running, script

WORDS = (
    "\x1b]52;c;cm0gLXJmIH4=\x07\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b2J\x9d0;t\x9c\x7f\x08\r\u202egnp.exe\u2066\u200b"
    "![x](http://192.0.2.1/x.png) @octocat <img src=x> `"
)
COLOUR = re.compile(r"\x1b\[[0-9;]*[mKHJ]|\x1b\[\?(?:25|1049)[lh]|\x1b\[[0-9]+[AG]")
"""What rich and click write themselves: colours, and on a terminal moves of the cursor. (The words' own `2J`
and `31m` would pass: they are looked for as a whole.)"""

COMMANDS = (
    ("tools",),
    ("tools", "--json"),
    ("tools", "wordy"),
    ("call", "wordy", "say"),
    ("call", "wordy", "say", "--json"),
    ("call", "wordy", "list_fails"),
    ("call", "wordy", "show_error"),
    ("call", "wordy", WORDS.replace("\0", "")),
    ("call", WORDS, "say"),
    ("logs", "wordy"),
    ("logs", "wordy", "--json"),
    ("status",),
    ("status", "--json"),
    ("restart", "dies"),
    ("reload",),
    ("reload", "--json"),
    ("doctor", "--cycles", "2"),
    ("doctor", "--cycles", "2", "--json"),
    ("doctor", "--cycles", "2", "--markdown"),
    ("check", "--config", "{config}"),
    ("check", "--config", "{bad}"),
    ("import", "{hosts}", "--dry-run"),
)


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """A server that says the words, two whose schema is odd, one without a list, one that does not start."""
    env = {"WORDS": json.dumps(WORDS)}
    dies = "import sys; sys.stderr.write(sys.argv[1]); sys.exit(1)"
    servers = {
        "wordy": script("tests/e2e/wordy.py", env=env),
        "odd": script("tests/e2e/wordy.py", env={"SCHEMA": '"x"'}),
        "odder": script("tests/e2e/wordy.py", env={"SCHEMA": '{"properties": 5, "required": "y"}'}),
        "mute": script("tests/e2e/wordy.py", env={**env, "MUTE": "1"}),
        "dies": {"command": sys.executable, "args": ["-c", dies, WORDS], "restart_sec": 60},
    }
    with running(servers, ready=False) as broker:
        for name in ("wordy", "odd", "odder", "mute"):
            broker.wait_state(name, "ready")
        broker.wait_state("dies", "backoff")
        bad = {"wordy": {"command": WORDS, "args": [1], WORDS: 1}}
        (broker.folder / "bad.toml").write_text(
            f"[servers.{json.dumps(WORDS)}]\ncommand = {json.dumps(WORDS)}\n"
            + "".join(f"{json.dumps(key)} = 1\n" for key in bad["wordy"]),
            encoding="utf-8",
        )
        entry = {"command": WORDS, "args": [WORDS], "env": {WORDS: WORDS}, WORDS: WORDS}
        (broker.folder / "hosts.json").write_text(json.dumps({"mcpServers": {WORDS: entry}}))
        yield broker


def arguments(broker: RunningBroker, command: tuple[str, ...]) -> list[str]:
    places = {
        "config": broker.config,
        "bad": broker.folder / "bad.toml",
        "hosts": broker.folder / "hosts.json",
    }
    filled = [word.format(**places) if word.startswith("{") else word for word in command]
    return [sys.executable, "-m", "broker", *filled]


def environ(broker: RunningBroker) -> dict[str, str]:
    more = {"PYTHONPATH": str(ROOT), "MCP_BROKER_ENDPOINT": broker.endpoint, "MCP_BROKER_LANG": "en"}
    return {**os.environ, **more, "TERM": "xterm-256color", "COLUMNS": "100"}


def on_a_terminal(broker: RunningBroker, command: tuple[str, ...]) -> str:
    """All that the command writes to a terminal, stdout and stderr."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        arguments(broker, command), cwd=broker.folder, env=environ(broker), stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while select.select([ours], [], [], PATIENCE_S)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # its other end is closed: that is how Linux says so
                break
        process.wait(PATIENCE_S)
    os.close(ours)
    return seen.decode("utf-8", "replace").replace("\r\n", "\n")


def into_a_pipe(broker: RunningBroker, command: tuple[str, ...]) -> str:
    done = subprocess.run(
        arguments(broker, command),
        cwd=broker.folder,
        env=environ(broker),
        capture_output=True,
        timeout=PATIENCE_S,
    )
    return (done.stdout + done.stderr).decode("utf-8")


def controls(text: str) -> set[str]:
    """What is in it that moves a cursor, hides, or turns the direction of writing."""
    return {c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_no_command_prints_a_raw_control_character(broker: RunningBroker, command: tuple[str, ...]) -> None:
    """On a terminal but for the colours of the command's own, in a pipe none at all."""
    piped = into_a_pipe(broker, command)
    assert not controls(piped), piped
    assert "Traceback" not in piped
    drawn = on_a_terminal(broker, command)
    assert not re.search("\x1b\\]|\x1b\\[2J", drawn)
    left = controls(COLOUR.sub("", drawn).replace("\r", ""))
    assert not left, (left, drawn)
    assert "Traceback" not in drawn


def test_json_keeps_the_value(broker: RunningBroker) -> None:
    """What is escaped for the terminal is the same value to a program."""
    found = json.loads(into_a_pipe(broker, ("call", "wordy", "say", "--json")).partition("\n1 ")[0])
    assert found["content"][0]["text"] == WORDS


def test_one_odd_server_costs_a_line(broker: RunningBroker) -> None:
    """Its schema may be anything; a list that cannot be had is named, and the others are shown."""
    done = subprocess.run(
        arguments(broker, ("tools",)), env=environ(broker), capture_output=True, timeout=PATIENCE_S, text=True
    )
    assert "say(…)" in done.stdout
    assert "say()" in done.stdout
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["mute"]


def test_markdown_has_neither_images_nor_mentions(broker: RunningBroker) -> None:
    """Outside code, where GitHub would fetch an image and tell a person."""
    text = into_a_pipe(broker, ("doctor", "--cycles", "2", "--markdown"))
    report = text[text.index("## ") :]
    outside = re.sub(r"`[^`\n]*`", "", report)
    assert "octocat" in report
    assert not re.search(r"!\[|\]\(http|@octocat|<img", outside)
    assert all(line.count("`") % 2 == 0 for line in report.splitlines())
