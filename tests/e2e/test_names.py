"""Servers with names of every script: in the config, on the wire, in commands, in files and after a kill."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.command.texts.wrapping import display_width
from client_shim.errors import UnknownServer
from tests.e2e.harness import RunningBroker, is_alive, rogue, running
from tests.e2e.test_command import command

NAMES = ["Ünïcode", "my server", "हिन्दी", "时间", "שלום"]
DECOMPOSED = "U\u0308ni\u0308code"


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """One server of each name; TOML quotes them."""
    with running({json.dumps(name, ensure_ascii=False): rogue() for name in NAMES}) as broker:
        yield broker


@pytest.mark.parametrize("name", [*NAMES, DECOMPOSED])
def test_a_call_reaches_it(broker: RunningBroker, name: str) -> None:
    """By the shim and by the command, however its letters are put together."""
    with broker.client() as client:
        result = client.request(name, "tools/call", {"name": "echo", "arguments": {"text": "heard"}})
    assert "heard" in result["content"][0]["text"]
    done = command("call", name, "echo", '{"text": "heard"}', endpoint=broker.endpoint)
    assert (done.returncode, "heard" in done.stdout) == (0, True), done.stderr
    assert command("logs", name, "--json", endpoint=broker.endpoint).returncode == 0
    assert command("restart", name, endpoint=broker.endpoint).returncode == 0
    broker.wait_ready()


def test_the_table_stays_a_table(broker: RunningBroker) -> None:
    """Wide characters take two columns, combining marks none: the second column begins at one place."""
    done = command("status", endpoint=broker.endpoint)
    rows = [line for line in done.stdout.splitlines() if " ready " in line]
    assert len(rows) == len(NAMES)
    assert len({display_width(row.partition(" ready ")[0]) for row in rows}) == 1, done.stdout


def test_what_is_said_can_be_copied(broker: RunningBroker) -> None:
    """The nearest name is found, and a command that is named takes it."""
    done = command("stop", "my server", endpoint=broker.endpoint)
    assert done.returncode == 0
    status = command("status", endpoint=broker.endpoint).stdout
    assert "`mcp-broker start 'my server'`" in status
    done = command("tools", "my servr", endpoint=broker.endpoint)
    assert "did you mean my server?" in done.stderr
    assert command("start", "my server", endpoint=broker.endpoint).returncode == 0
    broker.wait_ready()


def test_a_name_that_is_none_is_unknown(broker: RunningBroker) -> None:
    """What only looks like a name that is there is another name."""
    with broker.client() as client, pytest.raises(UnknownServer):
        client.request("时间\u200b", "tools/list")


def test_what_a_killed_broker_left_is_found_by_its_records(broker: RunningBroker) -> None:
    """The files have names that every file system takes, and the next broker knows whose they are."""
    before = broker.pids()
    records = [path.name for path in Path(f"{broker.folder}/b.sock.state").glob("*.json")]
    assert len(records) == len(NAMES)
    assert all(name.isascii() for name in records)
    broker.stop(signal.SIGKILL)
    broker.start()
    broker.wait_ready()
    assert not [name for name, pid in before.items() if is_alive(pid)]
    assert set(broker.pids()) == set(NAMES)
