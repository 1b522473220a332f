"""No way out of the broker shows a secret: one is planted in every place, and every output is searched.

The servers repeat their secrets wherever they can say anything: on stderr, in errors of tools and lists, in
the reason why they ended. What a tool answers to its caller is the caller's, and passes as the bytes it came
in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from client_shim.errors import BrokerError
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, running, script

SECRETS = {
    "env": "planted-env-1",
    "variable": "planted-variable-2",
    "inherited": "planted-inherited-3",
    "option": "planted-option-4",
    "equals": "planted-equals-5",
    "header": "planted-header-6",
    "bearer": "planted-bearer-7",
    "query": "planted-query-8",
    "userinfo": "planted-userinfo-9",
    "url_in_env": "planted-url-10",
}
ALL = list(SECRETS.values())
SAID = (
    f'it failed with {" ".join(ALL)} and Bearer stray-bearer-11 ?token=stray-query-12 "password": "stray-13"'
)
"""Also secrets of nobody here, which are known by how they are written."""

STRAY = ("stray-bearer-11", "stray-query-12", "stray-13")
ARGS = [
    *("--token", SECRETS["option"], f"--api-key={SECRETS['equals']}"),
    *("-H", f"X-Api-Key: {SECRETS['header']}", "--header", f"Authorization: Bearer {SECRETS['bearer']}"),
    *(f"https://h/?a=b&api_key={SECRETS['query']}", f"https://me:{SECRETS['userinfo']}@h/x"),
]
ENV = {
    "SERVICE_TOKEN": SECRETS["env"],
    "MINE": "${PLANTED_VARIABLE}",
    "ENDPOINT": f"https://h/?token={SECRETS['url_in_env']}",
    "CITY": "fukuoka",
    "MODE": "test",
}
OURS = {"PLANTED_VARIABLE": SECRETS["variable"], "INHERITED_KEY": SECRETS["inherited"]}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """A server that answers with errors, one whose list is an error, and one that ends with all of it."""
    keys: dict[str, Any] = {"env": {**ENV, "WORDS": json.dumps(SAID)}, "env_inherit": ["INHERITED_KEY"]}
    dies = f"import sys; sys.exit({SAID!r})"
    servers = {
        "wordy": script("tests/e2e/wordy.py", *ARGS, **keys),
        "mute": script("tests/e2e/wordy.py", *ARGS, env={**keys["env"], "MUTE": "1"}),
        "dies": {"command": sys.executable, "args": ["-c", dies, *ARGS], "restart_sec": 60, **keys},
        "gone": {"command": f"/nowhere/{SECRETS['env']}", "args": ARGS, "restart_sec": 60, **keys},
    }
    with running(servers, ready=False, env=OURS) as broker:
        for name in ("wordy", "mute"):
            broker.wait_state(name, "ready")
        for name in ("dies", "gone"):
            broker.wait_state(name, "backoff", "broken")
        yield broker


def output(broker: RunningBroker, *args: str) -> str:
    """What the command prints, on stdout and stderr."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_BROKER_ENDPOINT": broker.endpoint, **OURS}
    done = subprocess.run(
        [sys.executable, "-m", "broker", *args],
        cwd=broker.folder,
        env={**environ, "MCP_BROKER_LANG": "en"},
        capture_output=True,
        timeout=PATIENCE_S,
        text=True,
    )
    return done.stdout + done.stderr


def shown(text: str) -> list[str]:
    """The secrets that are in it."""
    return [secret for secret in (*ALL, *STRAY) if secret in text]


@pytest.mark.parametrize(
    "args",
    [
        ("status",),
        ("status", "--json"),
        ("logs", "wordy"),
        ("logs", "wordy", "--json"),
        ("logs", "dies"),
        ("logs", "mute"),
        ("restart", "dies"),
        ("restart", "dies", "--json"),
        ("reload",),
        ("doctor", "--cycles", "2"),
        ("doctor", "--cycles", "2", "--json"),
        ("doctor", "--cycles", "2", "--markdown"),
        ("check", "--config", "broker.toml"),
    ],
    ids=" ".join,
)
def test_no_command_shows_one(broker: RunningBroker, args: tuple[str, ...]) -> None:
    """Whatever the servers repeat; the answers of the doctor's calls are errors that do."""
    said = output(broker, *args)
    assert said
    assert not shown(said), said


def test_the_log_shows_none(broker: RunningBroker) -> None:
    """At level `debug`: stderr, the reasons of ends, `catalogue.unread` and everything else."""
    output(broker, "restart", "dies")
    output(broker, "tools")
    log = broker.log()
    assert "catalogue.unread" in log
    assert "server.stderr" in log
    assert not shown(log), [line for line in log.splitlines() if shown(line)]


def test_no_answer_of_the_brokers_own_shows_one(broker: RunningBroker) -> None:
    """Management as any client asks for it, and what a call to a server that is down ends in."""
    with broker.client() as client:
        for method in ("status", "servers"):
            assert not shown(json.dumps(client.request(MANAGEMENT, method)))
        assert not shown(json.dumps(client.request(MANAGEMENT, "logs", {"server": "dies"})))
        for server, method in (("dies", "tools/list"), ("gone", "tools/list"), ("mute", "tools/list")):
            with pytest.raises(BrokerError) as caught:
                client.request(server, method, timeout_s=2.0)
            assert not shown(f"{caught.value!r} {caught.value}"), server


def test_import_says_none(broker: RunningBroker) -> None:
    """Its remarks name keys and servers; the file it writes has what it was given, with mode 0600."""
    entry = {"command": "python3", "args": ARGS, "env": {"SERVICE_TOKEN": SECRETS["env"]}, "url": ARGS[-1]}
    (broker.folder / "hosts.json").write_text(json.dumps({"mcpServers": {"one": entry, "two": entry}}))
    said = output(broker, "import", "hosts.json", "--output", "imported.toml")
    assert "one" in said
    assert not shown(said), said


def test_ordinary_values_stay_readable(broker: RunningBroker) -> None:
    """A city, a mode and what else is no secret are not stars in every line."""
    text = output(broker, "status") + broker.log()
    assert "***" in text
    assert "config=" in text or "pid=" in text
    assert "te***" not in text
    assert "mcp-broker" in text
