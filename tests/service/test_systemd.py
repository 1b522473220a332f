"""What the broker takes from systemd and tells it: the protocol, the status line, the sign of life."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from broker.command.texts.chinese import in_a_line
from broker.config.schema import ServerConfig
from broker.core.servers.backoff import Backoff
from broker.core.servers.lifecycle import Ending, Event, Lifecycle
from broker.core.servers.server import Server
from broker.service.systemd import ServiceManager, status_lines

ME = 4711


class Listener:
    """The manager's end of the notify socket."""

    def __init__(self, address: str) -> None:
        self._plug = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._plug.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[str]:
        """Every message since the last time."""
        messages = []
        while True:
            try:
                messages.append(self._plug.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._plug.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"@mcp-broker-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")


@pytest.fixture
def listener(address: str) -> Iterator[Listener]:
    listener = Listener(address)
    yield listener
    listener.close()


def test_each_thing_is_one_message(address: str, listener: Listener) -> None:
    """sd_notify(3): what is told, at a path and at an abstract address."""
    manager = ServiceManager(address)
    manager.ready()
    manager.reloading()
    manager.stopping(within_s=12.5)
    ready, reloading, stopping = listener.heard()
    assert ready == "READY=1"
    assert stopping == "STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000"
    head, _, monotonic_us = reloading.partition("\nMONOTONIC_USEC=")
    assert head == "RELOADING=1"
    assert 0 <= time.monotonic() * 1e6 - int(monotonic_us) < 60e6


def test_a_status_is_told_once_and_stays_one_line(address: str, listener: Listener) -> None:
    """What a server wrote may be part of it: a second line would be a message of its own."""
    manager = ServiceManager(address)
    manager.status("4 of 5\nREADY=1")
    manager.status("4 of 5; READY=1")
    manager.status("5 of\t5")
    assert listener.heard() == ["STATUS=4 of 5; READY=1", "STATUS=5 of 5"]


def test_a_manager_that_does_not_listen_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 9: it is logged, and the broker goes on."""
    logging.getLogger("mcp-broker").propagate = True
    ServiceManager(str(tmp_path / "nobody")).ready()
    assert [record.getMessage() for record in caplog.records] == ["manager.not_told"]
    ServiceManager(None).ready()


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(ME)}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_the_process_that_it_names(
    environ: dict[str, str], watchdog_s: float | None
) -> None:
    """sd_watchdog_enabled(3): WATCHDOG_PID, where there is one, is who must give the sign."""
    assert ServiceManager.of(dict(environ), ME).watchdog_s == watchdog_s


def test_what_the_manager_says_is_taken_out_of_the_environment() -> None:
    """No server inherits what is meant for the broker."""
    told = dict.fromkeys(["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"], "1")
    told |= {"LISTEN_FDS": "2", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a:b", "PATH": "/bin"}
    assert ServiceManager.of(told, ME).sockets == {}
    assert told == {"PATH": "/bin"}


# --- the sign of life --------------------------------------------------------------------------------


async def _watch(manager: ServiceManager, stuck: trio.Event, for_s: float) -> None:
    with trio.move_on_after(for_s):
        await manager.feed(stuck.wait, trio.lowlevel.checkpoint)


def test_a_broker_that_lives_says_so_twice_in_the_time(address: str, listener: Listener) -> None:
    """sd_watchdog_enabled(3): at half of WATCHDOG_USEC."""
    alive = trio.Event()
    alive.set()
    trio.run(_watch, ServiceManager(address, 30.0), alive, 61.0, clock=MockClock(autojump_threshold=0))
    assert listener.heard() == ["WATCHDOG=1"] * 5


def test_a_part_that_is_stuck_keeps_the_sign_back(address: str, listener: Listener) -> None:
    """Fed from the loop that serves requests, so that a stuck one is started again."""
    trio.run(
        _watch, ServiceManager(address, 30.0), trio.Event(), 300.0, clock=MockClock(autojump_threshold=0)
    )
    assert listener.heard() == []


# --- the status line ---------------------------------------------------------------------------------


def _server(
    name: str, *events: Event, reason: str = "it exited with status 1", enabled: bool = True
) -> Server:
    backoff = Backoff(first_delay_s=1, burst=5, interval_s=60, rng=lambda: 0.5)
    lifecycle = Lifecycle(restart="always", start_s=90, backoff=backoff)
    for event in events:
        lifecycle.on(event, 0.0, Ending(reason) if event is Event.EXITED else None)
    return Server(ServerConfig(name=name, command="any", enabled=enabled), lifecycle)


READY = (Event.START, Event.SPAWNED, Event.OPENED)
CRASHED = (*READY, Event.EXITED, Event.GONE)


@pytest.mark.parametrize(
    ("servers", "text"),
    [
        ([], "0 of 0 servers ready"),
        ([_server("a", *READY), _server("off", enabled=False)], "1 of 1 servers ready"),
        (
            [_server("a", *READY), _server("b", *CRASHED), _server("c", Event.START)],
            "1 of 3 servers ready; b: backoff (it exited with status 1); c: starting",
        ),
        (
            [_server("a", *READY), _server("b", Event.IDLE), _server("c", Event.START)],
            "1 of 3 servers ready; 1 idle; c: starting",
        ),
        (
            [_server(str(number)) for number in range(7)],
            "0 of 7 servers ready; 0: stopped; 1: stopped; 2: stopped; 3: stopped; 4: stopped; and 2 more",
        ),
    ],
)
def test_the_status_says_how_many_are_ready_and_which_are_not(servers: list[Server], text: str) -> None:
    """`STATUS=` says how many servers are ready and which are not, and why."""
    assert "; ".join(status_lines(servers)) == text


def test_the_status_says_what_is_wrong_with_the_config() -> None:
    """A bad config says why in `STATUS=`, and what needs a restart is said."""
    said = status_lines([_server("a", *READY)], ["servers.a.x: mistake", "another"], ["limits.connections"])
    assert list(said) == [
        "1 of 1 servers ready",
        "config not reloaded: servers.a.x: mistake (and 1 more)",
        "without effect until a restart: limits.connections",
    ]


def test_a_long_reason_is_clipped() -> None:
    """Law 6: the last line of a server may be of any length, and so may the name of a key."""
    assert len("".join(status_lines([_server("a", *CRASHED, reason="x" * 10_000)]))) < 300
    assert len("".join(status_lines([], ["x" * 10_000] * 9, ["y" * 10_000]))) < 500


def test_a_message_of_several_lines_is_one_status(address: str, listener: Listener) -> None:
    """Every mistake of a config is in it."""
    ServiceManager(address).status("broker.toml: 2 mistakes\n  one\n  two")
    assert listener.heard() == ["STATUS=broker.toml: 2 mistakes; one; two"]


def test_a_status_is_in_the_language_of_its_reader(
    address: str, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's own variables say which; a word that a program reads stays."""
    monkeypatch.setenv("MCP_BROKER_LANG", "zh")
    manager = ServiceManager(address, in_a_line=in_a_line())
    monkeypatch.setenv("MCP_BROKER_LANG", "en")  # as `serve` sets it for its log
    servers = [_server("a", *READY), _server("b", *CRASHED), _server("c", Event.IDLE)]
    manager.status(*status_lines(servers, ["servers.a.comand: there is no such key; did you mean command?"]))
    (said,) = listener.heard()
    assert said.split("；") == [
        *("STATUS=3 个服务器中有 1 个就绪", "1 个空闲", "b：等待重启（以状态 1 退出）"),
        *("配置未重新加载：servers.a.comand：没有这个键", "是否应为 command？"),
    ]
