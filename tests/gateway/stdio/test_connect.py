"""`mcp-broker connect`: what an MCP host starts in place of a server.

The host must notice neither that many hosts share one process, nor that a gateway or a broker was restarted.
`held` is a bridge that finds no gateway and so holds the conversation itself: all must be the same there.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from broker.gateway.stdio.lines import MAX_LINE_BYTES
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running, script, wait_until
from tests.gateway.bridges import (
    INITIALIZE,
    MODERN_META,
    Bridge,
    channels_of,
    cpu_s,
    gateway_of,
    pss_bytes,
    socket_door,
    socket_of,
    sockets_of,
    wait_for_sockets,
)
from tests.gateway.gateways import RunningGateway

BOTH = pytest.mark.parametrize("held", [False, True], ids=["relay", "held"])

MAX_PSS_BYTES = 8 * 1024 * 1024
ENDS_WITHIN_S = 0.2
LOAD = 10
"""How much slower a loaded machine may be where a time is measured."""


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    servers = {
        "modern": script("tests/servers/sdk2_server.py"),
        "asks": script("tests/servers/everything.py"),
        "rogue": rogue(),
    }
    with running(servers) as broker:
        yield broker


@pytest.fixture
def gateway(broker: RunningBroker) -> Iterator[RunningGateway]:
    with socket_door(broker, "modern", "asks", "rogue") as gateway:
        yield gateway


def is_quiet(broker: RunningBroker) -> bool:
    """Whether nothing is open at the broker any more."""
    return not any(server["in_flight"] or server["queued"] for server in broker.status()["servers"])


@BOTH
def test_a_legacy_host_is_served(gateway: RunningGateway, broker: RunningBroker, held: bool) -> None:
    """The handshake, the lists, a call, an error of the tool, an error of the protocol."""
    with Bridge(broker, "modern", held=held) as bridge:
        result = bridge.initialize()
        assert (result["protocolVersion"], result["serverInfo"]["name"]) == ("2025-11-25", "sdk2")
        assert {tool["name"] for tool in bridge.ask("tools/list")["result"]["tools"]} >= {"add", "slow"}
        assert bridge.call("add", {"a": 2, "b": 3})["result"]["structuredContent"] == {"result": 5}
        assert bridge.call("broken")["result"]["isError"]
        assert bridge.ask("no/such/method")["error"]["code"] == -32601
        assert bridge.ask("ping")["result"] == {}
        assert bridge.close() < LOAD * ENDS_WITHIN_S


@BOTH
def test_a_modern_host_is_served(gateway: RunningGateway, broker: RunningBroker, held: bool) -> None:
    with Bridge(broker, "modern", held=held) as bridge:
        found = bridge.ask("server/discover", {"_meta": MODERN_META})["result"]
        assert found["supportedVersions"] == ["2026-07-28"]
        listed = bridge.ask("tools/list", {"_meta": MODERN_META})["result"]
        assert (listed["resultType"], listed["cacheScope"]) == ("complete", "private")
        called = {"name": "add", "arguments": {"a": 2, "b": 3}, "_meta": MODERN_META}
        assert bridge.ask("tools/call", called)["result"]["structuredContent"] == {"result": 5}
        assert bridge.ask("ping", {"_meta": MODERN_META})["error"]["code"] == -32601


@BOTH
def test_progress_has_the_token_of_the_host(
    gateway: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    """A host that gave no token gets no progress; one that gave one gets that one."""
    with Bridge(broker, "modern", held=held) as bridge:
        bridge.initialize()
        slow = {"name": "slow", "arguments": {"steps": 3}}
        bridge.ask("tools/call", slow)
        assert bridge.unasked == []
        bridge.ask("tools/call", {**slow, "_meta": {"progressToken": "7"}})
        assert [one["params"]["progressToken"] for one in bridge.unasked] == ["7"] * 3


@BOTH
def test_a_question_of_the_server_reaches_the_host(
    gateway: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    """A 2026-07-28 server asks in its result, a legacy host is asked by a request."""
    with Bridge(broker, "asks", held=held) as bridge:
        bridge.initialize()
        id = bridge.start("tools/call", {"name": "test_input_required_result_elicitation", "arguments": {}})
        question = bridge.hear()
        assert question["method"] == "elicitation/create"
        bridge.say({"id": question["id"], "result": {"action": "accept", "content": {"name": "Ann"}}})
        assert bridge.answer(id)["result"]["content"][0]["text"] == "Hello, Ann!"


@BOTH
def test_a_host_hears_of_a_list_that_changed(
    gateway: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    with Bridge(broker, "asks", held=held) as bridge:
        bridge.initialize()
        bridge.call("test_trigger_tool_change")
        while not bridge.unasked:
            bridge.unasked.append(bridge.hear())
        assert bridge.unasked[0]["method"] == "notifications/tools/list_changed"


@BOTH
def test_a_cancelled_call_is_cancelled_at_the_server(
    gateway: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    with Bridge(broker, "modern", held=held) as bridge:
        bridge.initialize()
        id = bridge.start("tools/call", {"name": "slow", "arguments": {"delay_s": 60}})
        wait_until(lambda: broker.server("modern")["in_flight"] == 1)
        bridge.say({"method": "notifications/cancelled", "params": {"requestId": id}})
        wait_until(lambda: is_quiet(broker))
        assert bridge.ask("ping")["result"] == {}
        assert bridge.unasked == []


@BOTH
@pytest.mark.parametrize("how", ["closed", "killed", "terminated", "output closed"])
def test_a_host_that_is_gone_leaves_nothing(
    gateway: RunningGateway, broker: RunningBroker, held: bool, how: str
) -> None:
    """EOF, a dead host, SIGTERM: the bridge ends at once, and its call is cancelled at the server."""
    with Bridge(broker, "modern", held=held) as bridge:
        bridge.initialize()
        bridge.start("tools/call", {"name": "slow", "arguments": {"delay_s": 60}})
        wait_until(lambda: broker.server("modern")["in_flight"] == 1)
        if how == "killed":
            bridge.process.kill()
        elif how == "terminated":
            bridge.process.terminate()
        elif how == "output closed":
            assert bridge.process.stdout is not None
            bridge.process.stdout.close()
            bridge.process.wait(LOAD * ENDS_WITHIN_S)
        took_s = bridge.close()
        assert took_s < LOAD * ENDS_WITHIN_S
        wait_until(lambda: is_quiet(broker))


@BOTH
def test_a_host_whose_pipe_fails_leaves_nothing(
    gateway: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    """An error of stdin in place of its end: that of a socket whose other side left bytes unread."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_BROKER_ENDPOINT": broker.endpoint}
    env["MCP_BROKER_SOCKETS"] = str(broker.folder / "no-gateway" if held else sockets_of(broker))
    host, end = socket.socketpair()
    with host:
        with end:
            command = [sys.executable, "-m", "broker", "connect", "modern"]
            bridge = subprocess.Popen(command, cwd=ROOT, env=env, stdin=end.fileno(), stdout=end.fileno())
        call = {"name": "slow", "arguments": {"delay_s": 60}, "_meta": MODERN_META}
        for id, method, params in ((1, "ping", {}), (2, "tools/call", call)):
            message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
            host.sendall(json.dumps(message).encode() + b"\n")
        wait_until(lambda: broker.server("modern")["in_flight"] == 1, lambda: broker.server("modern"))
        assert host.recv(1, socket.MSG_PEEK)
    assert bridge.wait(LOAD * ENDS_WITHIN_S) == 0
    wait_until(lambda: is_quiet(broker), broker.status)


@BOTH
def test_an_idle_bridge_stays_and_does_nothing(
    gateway: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    """Hosts do not start a server again that has ended; and hundreds of bridges must not cost anything."""
    with Bridge(broker, "modern", held=held) as bridge:
        bridge.initialize()
        bridge.ask("ping")
        before = cpu_s(bridge.process.pid)
        time.sleep(1.0)
        assert cpu_s(bridge.process.pid) - before <= 0.02
        assert bridge.ask("ping")["result"] == {}


def test_a_relay_is_small(gateway: RunningGateway, broker: RunningBroker) -> None:
    """Hosts start hundreds: 259 of them are to take less than 2 GiB."""
    with Bridge(broker, "modern") as bridge:
        bridge.initialize()
        bridge.ask("tools/list")
        assert pss_bytes(bridge.process.pid) <= MAX_PSS_BYTES
        assert gateway.figures()["bridges"] == 1


@BOTH
def test_malformed_lines_are_answered(gateway: RunningGateway, broker: RunningBroker, held: bool) -> None:
    with Bridge(broker, "modern", held=held) as bridge:
        bridge.initialize()
        bridge._stdin.write(b"\n  \n{]\n" + b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]\r\n')
        bridge._stdin.flush()
        assert [bridge.hear()["error"]["code"] for _ in range(2)] == [-32700, -32600]


@BOTH
def test_an_unknown_server_is_an_error_with_a_hint(
    gateway: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    with Bridge(broker, "modem", held=held) as bridge:
        error = bridge.ask("initialize", INITIALIZE)["error"]
        assert "modern" in error["message"]
        assert error["data"]["hint"]


def test_a_large_result_passes_whole(gateway: RunningGateway, broker: RunningBroker) -> None:
    """Pipes and sockets that take a part at a time."""
    with Bridge(broker, "modern") as bridge:
        bridge.initialize()
        text = "x" * 3_000_000
        assert len(bridge.call("echo", {"text": text})["result"]["content"][0]["text"]) > len(text)


@BOTH
def test_a_message_without_end_ends_the_bridge(
    gateway: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    """Law 6. Nobody could say whose answer is missing, so the host is to see that its server is gone."""
    with Bridge(broker, "modern", held=held) as bridge:
        bridge.initialize()
        with suppress(BrokenPipeError):
            for _ in range(MAX_LINE_BYTES // 1_000_000 + 20):
                bridge._stdin.write(b"x" * 1_000_000)
            bridge._stdin.write(b"\n")
            bridge._stdin.flush()
        assert bridge.process.wait(PATIENCE_S) == 1


@BOTH
def test_what_the_broker_does_not_take_is_refused_under_its_id(
    gateway: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    """`max_message_bytes` of the broker is 32 MiB."""
    with Bridge(broker, "modern", held=held) as bridge:
        bridge.initialize()
        error = bridge.call("echo", {"text": "x" * 34_000_000})["error"]
        assert (error["code"], error["data"]["code"]) == (-32602, "too-large")


# --- restarts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_restart_of_the_gateway_is_not_noticed(broker: RunningBroker, number: signal.Signals) -> None:
    """The session goes on; a call that was under way ends once, with an error that says what is not known."""
    gateway = gateway_of(broker)
    try:
        wait_for_sockets(broker, "modern")
        with Bridge(broker, "modern") as bridge:
            bridge.initialize()
            lost = bridge.start("tools/call", {"name": "slow", "arguments": {"delay_s": 60}})
            wait_until(lambda: broker.server("modern")["in_flight"] == 1)
            gateway.stop(number)
            error = bridge.answer(lost)["error"]
            assert "unknown" in error["message"]
            id = bridge.start("tools/call", {"name": "add", "arguments": {"a": 1, "b": 1}})
            gateway.start()
            assert bridge.answer(id)["result"]["structuredContent"] == {"result": 2}
            assert all(one["method"].endswith("changed") for one in bridge.unasked)
            wait_until(lambda: is_quiet(broker))
    finally:
        gateway.stop()


def test_a_host_whose_gateway_does_not_come_back_is_served_all_the_same(broker: RunningBroker) -> None:
    """The bridge then holds the conversation itself."""
    gateway = gateway_of(broker)
    try:
        wait_for_sockets(broker, "modern")
        with Bridge(broker, "modern") as bridge:
            bridge.initialize()
            gateway.stop()
            assert bridge.call("add", {"a": 1, "b": 1})["result"]["structuredContent"] == {"result": 2}
            assert bridge.call("add", {"a": 1, "b": 2})["result"]["structuredContent"] == {"result": 3}
    finally:
        gateway.stop()


def test_a_bridge_without_its_gateway_waits_and_does_nothing(broker: RunningBroker) -> None:
    """It looks for the gateway once a second; a host that says nothing needs no conversation."""
    gateway = gateway_of(broker)
    try:
        wait_for_sockets(broker, "modern")
        with Bridge(broker, "modern") as bridge:
            bridge.initialize()
            gateway.stop(signal.SIGKILL)
            time.sleep(1.0)  # the first tries come sooner
            before = cpu_s(bridge.process.pid)
            time.sleep(1.0)
            assert cpu_s(bridge.process.pid) - before <= 0.02
            assert bridge.close() < LOAD * ENDS_WITHIN_S
    finally:
        gateway.stop()


def test_a_gateway_that_drops_connections_is_tried_ever_more_slowly(
    broker: RunningBroker, tmp_path: Path
) -> None:
    """And a host that waits is served nevertheless: by the bridge itself."""
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(str(tmp_path / "modern.sock"))
        plug.listen()
        plug.settimeout(PATIENCE_S)
        with Bridge(broker, "modern", sockets=tmp_path) as bridge:
            id = bridge.start("initialize", INITIALIZE)
            began, taken = time.monotonic(), 0
            while time.monotonic() - began < 1.0:
                plug.accept()[0].close()
                taken += 1
            assert taken < 20
            plug.close()
            assert "result" in bridge.answer(id)


@BOTH
def test_a_restart_of_the_broker_is_not_noticed(held: bool) -> None:
    with (
        running({"one": script("tests/servers/sdk2_server.py")}) as broker,
        socket_door(broker, "one"),
        Bridge(broker, "one", held=held) as bridge,
    ):
        bridge.initialize()
        assert bridge.call("add", {"a": 1, "b": 1})["result"]["structuredContent"] == {"result": 2}
        assert broker.stop() == 0
        id = bridge.start("tools/call", {"name": "add", "arguments": {"a": 2, "b": 2}})
        broker.start()
        assert bridge.answer(id)["result"]["structuredContent"] == {"result": 4}


@BOTH
def test_a_broker_that_comes_later_is_waited_for(held: bool) -> None:
    """A host may start before the broker; it gives up on `initialize` after 30 s."""
    with running({"one": script("tests/servers/sdk2_server.py")}) as broker, socket_door(broker, "one"):
        assert broker.stop() == 0
        with Bridge(broker, "one", held=held) as bridge:
            id = bridge.start("initialize", INITIALIZE)
            time.sleep(0.5)
            broker.start()
            assert "result" in bridge.answer(id)
        broker.wait_ready()


# --- the sockets -----------------------------------------------------------------------------------------


def test_the_socket_of_a_server_speaks_lines(gateway: RunningGateway, broker: RunningBroker) -> None:
    """Any client of the stdio framing may connect to it."""
    with socket.socket(socket.AF_UNIX) as plug:
        plug.connect(str(socket_of(broker, "modern")))
        plug.sendall(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n{"jsonrpc":"2.0","id":2,')
        plug.sendall(b'"method":"ping"}\n')
        with plug.makefile("rb") as lines:
            assert [json.loads(lines.readline())["id"] for _ in range(2)] == [1, 2]


def test_what_a_client_says_without_use_is_counted_and_logged(
    gateway: RunningGateway, broker: RunningBroker
) -> None:
    """Law 9."""
    with Bridge(broker, "modern") as bridge:
        bridge.initialize()
        bridge.say({"id": "no-question", "result": {}})
        bridge.say({"method": "notifications/cancelled", "params": {"requestId": 99}})
        bridge.ask("ping")
        bridge.close()
    wait_until(lambda: "1 late cancellation, 1 stray answer" in gateway.log(), gateway.log)


def test_the_sockets_are_open_to_whom_the_broker_s_is() -> None:
    """Who may use the broker may use them, and nobody else."""
    with (
        running({"one": rogue()}, broker={"socket_mode": "0660"}) as broker,
        socket_door(broker, "one"),
    ):
        theirs, ours = os.stat(broker.endpoint.removeprefix("ipc://")), os.stat(socket_of(broker, "one"))
        assert (ours.st_mode, ours.st_gid) == (theirs.st_mode, theirs.st_gid)
        assert os.stat(sockets_of(broker)).st_mode & 0o777 == 0o710


def test_a_second_gateway_does_not_take_over_the_sockets(broker: RunningBroker) -> None:
    """It says so, and makes them once the first one has ended."""
    with socket_door(broker, "modern"), Bridge(broker, "modern") as bridge:
        bridge.initialize()
        second = gateway_of(broker, "second")
        try:
            wait_until(lambda: "another gateway holds the folder" in second.log())
            (said,) = [line for line in second.log().splitlines() if "another gateway holds" in line]
            assert "gateway.no_sockets" in said  # of no server more than of another
            assert str(sockets_of(broker)) in said
            assert bridge.ask("ping")["result"] == {}
        finally:
            assert second.stop() == 0
        assert bridge.ask("ping")["result"] == {}


def test_sockets_follow_a_reload() -> None:
    """A new server gets a socket; that of a server that is gone is removed, and its clients are told."""
    with (
        running({"one": rogue(), "two": rogue()}) as broker,
        socket_door(broker, "one", "two"),
        Bridge(broker, "one") as bridge,
    ):
        bridge.initialize()
        broker.write({"two": rogue(), "three": rogue()})
        with broker.client() as client:
            client.request("$broker", "reload")
        wait_for_sockets(broker, "two", "three")
        wait_until(lambda: not socket_of(broker, "one").exists())
        assert "error" in bridge.call("echo")


def test_a_socket_that_was_cleaned_away_is_made_again(gateway: RunningGateway, broker: RunningBroker) -> None:
    socket_of(broker, "modern").unlink()
    wait_for_sockets(broker, "modern")
    wait_until(socket_of(broker, "modern").exists)
    with Bridge(broker, "modern") as bridge:
        bridge.initialize()


# --- many ------------------------------------------------------------------------------------------------


def test_bridges_that_come_and_go_leave_nothing(gateway: RunningGateway, broker: RunningBroker) -> None:
    """Half of them end with a call under way. docs/soak.md counts thousands."""
    with Bridge(broker, "modern") as bridge:
        bridge.initialize()
        bridge.close()
    descriptors, channels = len(os.listdir(f"/proc/{gateway.process.pid}/fd")), channels_of(broker, gateway)
    for _ in range(8):
        bridges = [Bridge(broker, "modern") for _ in range(5)]
        for number, bridge in enumerate(bridges):
            bridge.initialize()
            if number % 2:
                bridge.start("tools/call", {"name": "slow", "arguments": {"delay_s": 60}})
        for bridge in bridges:
            bridge.close()
    wait_until(lambda: is_quiet(broker))
    wait_until(lambda: len(os.listdir(f"/proc/{gateway.process.pid}/fd")) <= descriptors)
    wait_until(lambda: channels_of(broker, gateway) <= channels)


def test_bad_arguments_are_a_usage_error() -> None:
    """Nothing on stdout: it belongs to messages."""
    for arguments in ([], ["one", "two"], ["--what"], ["one", "--endpoint"]):
        command = [sys.executable, "-m", "broker", "connect", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"usage" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_without_a_pipe_there_is_no_host(tmp_path: Path, closed: str) -> None:
    """It ends at once, and says why."""
    command = f"exec {shlex.quote(sys.executable)} -m broker connect one {closed}"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_BROKER_SOCKETS": str(tmp_path)}
    ended = subprocess.run(["sh", "-c", command], cwd=ROOT, env=env, capture_output=True, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert b"closed" in ended.stderr
    assert b"Traceback" not in ended.stderr


@BOTH
def test_stdout_may_be_a_file(
    gateway: RunningGateway, broker: RunningBroker, held: bool, tmp_path: Path
) -> None:
    """A host may keep what it hears, as `tee` and redirections do."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_BROKER_ENDPOINT": broker.endpoint}
    env["MCP_BROKER_SOCKETS"] = str(tmp_path if held else sockets_of(broker))
    path = tmp_path / "out"
    with path.open("wb") as out:
        command = [sys.executable, "-m", "broker", "connect", "rogue"]
        bridge = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=out)
        assert bridge.stdin is not None
        bridge.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        bridge.stdin.flush()
        wait_until(lambda: path.read_bytes() == b'{"jsonrpc":"2.0","id":1,"result":{}}\n')
        bridge.stdin.close()
        assert bridge.wait(PATIENCE_S) == 0
