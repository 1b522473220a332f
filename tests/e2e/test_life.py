"""Starting, failing, restarting and ending: of servers, and of the broker itself."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from client_shim import BrokerClient
from client_shim.errors import (
    BrokerLost,
    BrokerRefused,
    CallError,
    NoBroker,
    ServerDied,
    ServerDisabled,
    ServerDown,
    ServerStarting,
    UnknownServer,
    UnknownTool,
)
from client_shim.wire import VERSION, Hello
from tests.e2e.harness import (
    PATIENCE_S,
    ROOT,
    RunningBroker,
    descendants,
    is_alive,
    rogue,
    running,
    toml,
    wait_until,
)
from tests.e2e.raw import Peers, RawPeer


def call(
    broker: RunningBroker, server: str, tool: str, arguments: dict[str, Any] | None = None, **keys: Any
) -> str:
    """One call from a client of its own; the text of the answer."""
    with broker.client() as client:
        params = {"name": tool, "arguments": arguments or {}}
        result = client.request(server, "tools/call", params, **keys)
    text: str = result["content"][0]["text"]
    return text


def test_five_ways_of_not_being_there_are_five_messages() -> None:
    """Law 10: unknown server, unknown tool, disabled, starting, down: each says what to do."""
    servers = {
        "fine": rogue(),
        "off": rogue(enabled=False),
        "slow": rogue("--silent", protocol="legacy"),
        "broken": rogue("--exit-at-start", "3", start_limit_burst=1),
    }
    with running(servers, ready=False) as broker:
        broker.wait_state("fine", "ready")
        broker.wait_state("slow", "handshake")
        broker.wait_state("broken", "broken")
        cases: list[tuple[type[CallError], str, str, str]] = [
            (UnknownServer, "fin", "echo", r"no server 'fin'.*did you mean fine\?.*broker.toml"),
            (UnknownTool, "fine", "eco", r"no tool 'eco'.*did you mean echo\?.*mcp-broker tools fine"),
            (ServerDisabled, "off", "echo", r"'off' is switched off.*enabled = true"),
            (ServerStarting, "slow", "echo", r"'slow' is still starting.*try again"),
            (ServerDown, "broken", "echo", r"'broken' is down: it exited with status 3.*mcp-broker status"),
        ]
        for kind, server, tool, words in cases:
            with pytest.raises(kind, match=words):
                call(broker, server, tool, timeout_s=0.3)


def test_a_call_waits_for_a_server_that_starts() -> None:
    """A page that opens right after the boot gets its answer, not an error."""
    with running({"late": rogue("--start-delay", "0.5")}, ready=False) as broker:
        broker.wait_state("late", "handshake")
        assert call(broker, "late", "echo", {"text": "early"}) == '{"text":"early"}'


@pytest.mark.parametrize("how", [{"exit": 1}, {"exit": 0}, {"signal": int(signal.SIGSEGV)}])
def test_a_server_that_dies_is_started_again(how: dict[str, int]) -> None:
    """Law 1 and 2: its call ends at once, outcome unknown; then there is one process again, another one."""
    with running({"server": rogue(restart_sec=0.05), "other": rogue()}) as broker:
        before = broker.pids()
        with pytest.raises(ServerDied, match=r"during tools/call.*unknown") as caught:
            call(broker, "server", "crash", how)
        assert caught.value.outcome_unknown
        assert call(broker, "server", "echo", {"n": 1}) == '{"n":1}'
        after = broker.pids()
        assert before["server"] != after["server"]
        assert before["other"] == after["other"]
        row = broker.server("server")
        assert (row["processes"], row["restarts"], row["state"]) == (1, 1, "ready")
        assert row["last_error"].startswith("it ")
        killed = {"word": "killed", "signal": "SIGSEGV"}
        assert row["last_cause"] == ({"word": "exited", "status": how["exit"]} if "exit" in how else killed)


def test_lists_are_answered_while_a_server_is_down() -> None:
    """The catalogue outlives the process: a page that opens meanwhile sees its tools."""
    with running({"server": rogue(restart_sec=600.0)}) as broker:
        with pytest.raises(ServerDied):
            call(broker, "server", "crash")
        broker.wait_state("server", "backoff")
        with broker.client() as client:
            assert client.request("server", "tools/list")["tools"]
        with pytest.raises(ServerDown, match="tried again in"):
            call(broker, "server", "echo", timeout_s=5)


ERAS = {
    "modern": (("--era", "modern"), "modern", "2026-07-28"),
    "dual": (("--era", "dual"), "modern", "2026-07-28"),
    "legacy": (("--era", "legacy"), "legacy", "2025-11-25"),
    "older": (("--protocol", "2024-11-05"), "legacy", "2024-11-05"),
    "silent at the probe": (("--silent-on-discover",), "legacy", "2025-11-25"),
    "exits at the probe": (("--exit-on-discover", "2"), "legacy", "2025-11-25"),
    "prints a banner": (("--banner", "Welcome to my server!"), "legacy", "2025-11-25"),
    "ends lines with CR LF": (("--crlf",), "legacy", "2025-11-25"),
    "is flooded by itself": (("--flood-stderr",), "legacy", "2025-11-25"),
}


def test_servers_of_every_era_and_manner_open() -> None:
    """The probe finds out what a server is, whatever it does when it is asked; an exit then is no failure."""
    names = {manner: manner.replace(" ", "-") for manner in ERAS}
    servers = {names[manner]: rogue(*flags, timeout_start_sec=8.0) for manner, (flags, _, _) in ERAS.items()}
    with running(servers) as broker:
        for manner, (_, era, protocol) in ERAS.items():
            row = broker.server(names[manner])
            assert (row["era"], row["protocol"]) == (era, protocol), manner
            assert (row["restarts"], row["processes"], row["last_error"]) == (0, 1, None), manner
            assert call(broker, names[manner], "echo", {"text": manner}) == f'{{"text":"{manner}"}}'


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no such command": (
        {"command": "no-such-command-anywhere"},
        "there is no command 'no-such-command-anywhere'",
    ),
    "no such file": ({"command": "/no/such/file"}, "there is no file '/no/such/file'"),
    "not executable": ({"command": str(ROOT / "pyproject.toml")}, "may not be run"),
    "wrong cwd": ({"command": "true", "cwd": "/no/such/folder"}, "'/no/such/folder' is not a folder"),
    "bad interpreter": ({"command": "./script"}, "names /no/such/interpreter, which is not there"),
    "unknown version": (rogue("--bad-version", protocol="legacy"), "protocol version 1999-01-01"),
    "dies in the handshake": (rogue("--die-in-handshake", protocol="legacy"), "it exited with status 1"),
    "never answers": (rogue("--silent", protocol="legacy", timeout_start_sec=0.5), "not ready within 0.5 s"),
    "wrong era": (rogue("--era", "legacy", protocol="2026-07-28"), "refused server/discover"),
    "closes its output": (rogue("--close-stdout-after", "1", protocol="legacy"), "it closed its output"),
}


CAUSES = {
    "no such command": {"word": "no-command", "command": "no-such-command-anywhere"},
    "dies in the handshake": {"word": "exited", "status": 1},
    "never answers": {"word": "not-ready", "within_s": 0.5},
}
"""Which of them are said for programs, too."""


def test_every_cause_of_a_failed_start_is_told_in_words() -> None:
    """Law 10: `status` says why a server is not there."""
    servers = {
        name.replace(" ", "-"): {**table, "start_limit_burst": 1, "timeout_stop_sec": 0.2}
        for name, (table, _) in MISTAKES.items()
    }
    with running(servers, ready=False) as broker:
        (broker.folder / "script").write_text("#!/no/such/interpreter\n")
        (broker.folder / "script").chmod(0o755)
        broker.stop(signal.SIGTERM)
        broker.start()
        broker.wait(lambda status: all(server["state"] == "broken" for server in status["servers"]))
        for name, (_, words) in MISTAKES.items():
            row = broker.server(name.replace(" ", "-"))
            assert words in row["last_error"], name
            assert row["last_cause"] == CAUSES.get(name), name


@pytest.mark.parametrize("how", ["child", "setsid", "double_fork", "bare", "bare_setsid"])
def test_descendants_end_with_their_server(how: str) -> None:
    """Law 1: also those that left the session, were adopted by init, or have no environment."""
    with running({"server": rogue(restart_sec=0.05)}) as broker:
        pid = int(call(broker, "server", "spawn", {"how": how}))
        broker.wait(lambda status: status["servers"][0]["processes"] == 2)
        with pytest.raises(ServerDied):
            call(broker, "server", "crash")
        wait_until(lambda: not is_alive(pid))
        assert call(broker, "server", "echo") == "{}"
        left = int(call(broker, "server", "spawn", {"how": how}))
    assert not is_alive(left)


def test_a_wrapper_that_does_not_wait_is_told_to() -> None:
    """Law 1 and 10: the server is over when what the broker started is, though a child of it answers."""
    python = f"{sys.executable} -I -S {ROOT / 'tests/servers/rogue.py'}"
    wrapper = {"command": "sh", "args": ["-c", f"exec 3<&0; {python} <&3 & exit 0"]}
    with running(
        {"server": {**wrapper, "protocol": "legacy", "start_limit_burst": 1}}, ready=False
    ) as broker:
        row = broker.wait_state("server", "broken")
        assert row["processes"] == 0
        assert "it exited with status 0" in row["last_error"]
        assert "and left 1 of its processes running" in row["last_error"]
        assert "`exec`" in row["last_error"]


def test_the_end_is_in_order() -> None:
    """SIGTERM: no new calls, those in flight may end, the stubborn are killed, nothing is left.

    A call that is made meanwhile waits in the client; where no other broker comes, it ends with the reason.
    """
    servers = {
        "polite": rogue(),
        "stubborn": rogue("--ignore-sigterm", "--ignore-eof", timeout_stop_sec=0.2),
    }
    with running(servers, limits={"drain_sec": 30.0}) as broker:

        async def main() -> None:
            async with BrokerClient("last", broker.endpoint) as client:
                running_call = asyncio.create_task(client.call_tool("polite", "sleep", {"seconds": 1}))
                while not (await client.status())["servers"][0]["in_flight"]:
                    await asyncio.sleep(0.01)
                broker.process.send_signal(signal.SIGTERM)
                while "broker.ending" not in broker.log():
                    await asyncio.sleep(0.01)
                with pytest.raises(BrokerRefused, match="shutting down"):
                    await client.call_tool("polite", "echo", timeout=0.2)
                waiting = asyncio.create_task(client.call_tool("polite", "echo", timeout=3))
                assert (await running_call).content[0].text == "slept"
                with pytest.raises((NoBroker, BrokerRefused)):
                    await waiting

        pids = broker.pids()
        asyncio.run(main())
        assert broker.stop() == 0
        assert not [pid for pid in pids.values() if is_alive(pid)]
        assert not Path(broker.endpoint.removeprefix("ipc://")).exists()


def test_calls_that_outlast_the_wait_are_cut_with_an_error() -> None:
    """Law 2: the wait for calls in flight is bounded, and each gets its ending."""
    with running({"server": rogue()}, limits={"drain_sec": 0.1}) as broker:

        async def main() -> None:
            async with BrokerClient("cut", broker.endpoint) as client:
                hanging = asyncio.create_task(client.call_tool("server", "hang"))
                while not (await client.status())["servers"][0]["in_flight"]:
                    await asyncio.sleep(0.01)
                broker.process.send_signal(signal.SIGINT)
                with pytest.raises((CallError, BrokerLost)):
                    await hanging

        asyncio.run(main())
        assert broker.stop() == 0


def test_a_killed_broker_leaves_no_server() -> None:
    """Law 1: the servers die with a broker that could do nothing any more, and the next one starts."""
    with running({"one": rogue(), "two": rogue()}) as broker:
        pids = descendants(broker.pid)
        assert len(pids) >= 2
        broker.stop(signal.SIGKILL)
        wait_until(lambda: not [pid for pid in pids if is_alive(pid)])
        broker.start()
        broker.wait_ready()
        assert not set(pids) & set(broker.pids().values())


def test_what_a_killed_broker_could_not_end_the_next_one_ends() -> None:
    """Law 1: descendants of servers that outlived their broker are found by their cookie."""
    with running({"server": rogue()}) as broker:
        left = [int(call(broker, "server", "spawn", {"how": how})) for how in ("setsid", "double_fork")]
        broker.stop(signal.SIGKILL)
        assert all(is_alive(pid) for pid in left)
        broker.start()
        broker.wait_ready()
        assert not [pid for pid in left if is_alive(pid)]
        assert broker.log().count("broker.leftover_killed") == 2


def test_the_broker_has_more_descriptors_than_its_servers() -> None:
    """Its soft limit is raised for its clients' sake, and restored in the servers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running({"server": rogue()}) as broker:
        assert resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)[0] == min(hard, 65_536)
        assert resource.prlimit(broker.pids()["server"], resource.RLIMIT_NOFILE) == (soft, hard)


def test_few_descriptors_are_refused_at_the_start_or_left_to_the_servers(tmp_path: Path) -> None:
    """Laws 5, 6 and 10: libzmq aborts when it cannot accept a connection. So its clients never have them all,
    however many the servers take."""
    servers = {f"s{number}": rogue(restart_sec=0.05) for number in range(4)}
    broker = RunningBroker(tmp_path, servers, {}, {}, before=few_descriptors(79))
    assert broker.process.wait(PATIENCE_S) == 2
    assert "only 79 files may be open at once, and 4 servers with their clients need 80" in broker.log()
    with running(servers, before=few_descriptors(80)) as broker, closing(Peers(broker.endpoint)) as peers:
        pids, cut_off = broker.pids(), 0
        greeted = peers.hello()
        for _ in range(40):  # one after the other: each is turned away before the next one comes
            peer = peers.connect()
            peer.say(Hello(0, 0, [VERSION], {}))
            wait_until(partial(has_an_answer_or_the_end, peer))
            cut_off += peer.is_cut_off(0)
        assert 10 < cut_off < 40
        greeted.ping()
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        for name in servers:
            broker.wait_log(f"server.ready server={name}", times=2)
        assert "connection.turned_away" in broker.log()


def has_an_answer_or_the_end(peer: RawPeer) -> bool:
    """Whether the broker has taken it in or turned it away."""
    return bool(peer.socket.poll(0)) or peer.is_cut_off(0)


def few_descriptors(limit: int) -> tuple[str, ...]:
    """A command that becomes another one, which has no more descriptors than these."""
    return ("sh", "-c", f'ulimit -n {limit}; exec "$0" "$@"')


def test_a_parent_that_ignores_its_children_does_not_make_the_broker_do_so() -> None:
    """wait(2): where SIGCHLD is ignored, which is inherited, nobody learns how a child has ended."""
    ignore = "signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    servers = {"server": rogue("--exit-at-start", "3")}
    with running(
        servers, ready=False, before=[sys.executable, "-c", f"import os, signal, sys; {ignore}"]
    ) as broker:
        assert "status 3" in broker.wait_state("server", "backoff")["last_error"]


def test_a_server_gets_what_is_listed_and_no_more() -> None:
    """The environment is an allow-list: what the SDK passes on, proxies, mirrors, locale; and what
    the config inherits and sets."""
    given = {
        "HTTPS_PROXY": "http://proxy:1",
        "UV_INDEX_URL": "http://mirror",
        "LC_ALL": "C",
        "MINE": "inherited",
    }
    broker_only = {"OTHER": "x", "AWS_SECRET_ACCESS_KEY": "x", "LD_PRELOAD": "", "PYTHONPATH": str(ROOT)}
    table = rogue(env={"SET": "by the config", "LC_ALL": "over"}, env_inherit=["MINE", "MISSING"])
    with running({"server": table}, env={**given, **broker_only}) as broker:
        names = [*given, *broker_only, "SET", "MISSING", "PATH", "HOME"]
        got = json.loads(call(broker, "server", "env", {"names": names}))
        assert {name for name in got if got[name] is not None} == {*given, "SET", "PATH", "HOME"}
        assert (got["MINE"], got["SET"], got["LC_ALL"]) == ("inherited", "by the config", "over")


def test_a_client_survives_a_new_broker() -> None:
    """The call in flight gets its one error; the next call reaches the new broker by itself."""
    with running({"server": rogue()}) as broker:

        async def main() -> None:
            async with BrokerClient("patient", broker.endpoint, reconnect_s=PATIENCE_S) as client:
                hanging = asyncio.create_task(client.call_tool("server", "hang"))
                while not (await client.status())["servers"][0]["in_flight"]:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(broker.stop, signal.SIGKILL)
                with pytest.raises(BrokerLost) as caught:
                    await hanging
                assert caught.value.outcome_unknown
                broker.start()
                assert (await client.call_tool("server", "echo", {"n": 2})).content[0].text == '{"n":2}'

        asyncio.run(main())


def test_a_second_broker_says_who_holds_the_endpoint() -> None:
    """It refuses to start, and the first one is not disturbed."""
    with running({"server": rogue()}) as broker:
        second = subprocess.run(
            [sys.executable, "-m", "broker", "serve", "--config", str(broker.config)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert second.returncode == 1
        assert f"pid {broker.pid}" in second.stderr
        assert broker.endpoint in second.stderr
        assert call(broker, "server", "echo") == "{}"


@pytest.mark.parametrize("what", ["the port is taken", "the lock cannot be had"])
def test_an_endpoint_that_cannot_be_had_is_told_with_the_mend(what: str, tmp_path: Path) -> None:
    """Law 10: in one line and no traceback."""
    (tmp_path / "b.sock.lock").symlink_to("/nowhere/at/all")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        endpoint = port if what == "the port is taken" else f"ipc://{tmp_path}/b.sock"
        broker = RunningBroker(tmp_path, {"server": rogue()}, {"broker": {"endpoint": endpoint}}, {})
        assert broker.process.wait(PATIENCE_S) == 1
    (line,) = broker.log().splitlines()
    assert line.startswith("mcp-broker: ")
    assert line.endswith("give another endpoint by --endpoint or in [broker]")


def test_the_socket_has_the_mode_and_the_group_of_the_config() -> None:
    """`socket_mode` and `socket_group`: who may connect is the operator's choice."""
    group = os.getgid()
    access = {"socket_mode": "0660", "socket_group": grp.getgrgid(group).gr_name}
    with running({"server": rogue()}, broker=access) as broker:
        seen = os.stat(broker.endpoint.removeprefix("ipc://"))
        assert (stat.S_IMODE(seen.st_mode), seen.st_gid) == (0o660, group)
    with running({"server": rogue()}) as broker:
        assert stat.S_IMODE(os.stat(broker.endpoint.removeprefix("ipc://")).st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="another user can only be tried as root")
def test_another_user_is_told_that_it_is_not_allowed() -> None:
    """A clear error at once, where libzmq would retry in silence for ever."""
    stranger = (  # it imports as root, because nobody else need be able to read this checkout
        "import asyncio, grp, os, pwd, sys; from client_shim import BrokerClient\n"
        "from client_shim.errors import NotAllowed\n"
        "client = BrokerClient('x', sys.argv[1])\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: asyncio.run(client.connect())\n"
        "except NotAllowed as error: print(error)"
    )
    with running({"server": rogue()}) as broker:
        broker.folder.chmod(0o755)
        told = subprocess.run(
            [sys.executable, "-c", stranger, broker.endpoint],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        assert "socket_group" in told.stdout


def test_nobody_there_is_told_at_once() -> None:
    """No such file, and a socket that nobody listens at: two causes, two texts, no waiting."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        path = f"{folder}/b.sock"

        async def connect() -> None:
            await BrokerClient("x", f"ipc://{path}").connect()

        with pytest.raises(NoBroker, match="there is no such file"):
            asyncio.run(connect())
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        with pytest.raises(NoBroker, match="the broker that made it has ended"):
            asyncio.run(connect())


def test_servers_start_in_parallel_but_not_all_at_once() -> None:
    """`starts_at_once` bounds the load of a boot; clients are served meanwhile."""
    slow = {"command": "sleep", "args": ["100"], "timeout_stop_sec": 0.1}
    with running({f"s{n}": slow for n in range(5)}, ready=False, limits={"starts_at_once": 2}) as broker:
        seen = broker.wait(lambda status: states(status).count("handshake") == 2)
        assert states(seen) == ["handshake"] * 2 + ["starting"] * 3


def test_a_server_that_only_waits_holds_up_no_other_start() -> None:
    """Law 5: one that has read its first message runs. Whether it answers is no load."""
    silent = {f"s{n}": rogue("--silent", protocol="legacy", timeout_stop_sec=0.1) for n in range(5)}
    with running({**silent, "t": rogue()}, ready=False, limits={"starts_at_once": 1}) as broker:
        seen = broker.wait(lambda status: states(status).count("ready") == 1)
        assert set(states(seen)) <= {"handshake", "starting", "ready"}


def states(status: dict[str, Any]) -> list[str]:
    """The states of all servers, in order."""
    return sorted(server["state"] for server in status["servers"])


def test_noise_on_stdout_harms_nothing() -> None:
    """What is no message is counted, kept in the log, and no call suffers."""
    with running({"server": rogue()}) as broker:
        assert call(broker, "server", "stdout_noise", {"lines": 500}) == "written"
        assert call(broker, "server", "echo") == "{}"
        assert broker.counter("dropped.noise") == 500
        assert "this is no JSON" in broker.log()


def test_a_line_without_end_ends_the_server_and_not_the_broker() -> None:
    """Law 6: beyond the largest message nothing is kept; the server is started again."""
    limits = {"max_message_bytes": 65_536}
    with running({"server": rogue(restart_sec=0.05)}, limits=limits) as broker:
        with pytest.raises(ServerDied, match="above"):
            call(broker, "server", "endless_reply", {"bytes": 300_000})
        assert call(broker, "server", "echo") == "{}"
        assert broker.server("server")["restarts"] == 1


def test_a_config_path_that_is_no_text_is_shown_all_the_same() -> None:
    """Law 10: a path is bytes, and an answer is text; `status` is told what can be shown of it."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        path, address = Path(folder, os.fsdecode(b"\xff.toml")), f"ipc://{folder}/b.sock"
        path.write_text(toml({"broker": {"endpoint": address}, "servers.s": rogue()}), encoding="utf-8")
        with running(
            {"s": rogue()}, arguments=("--config", str(path)), broker={"endpoint": address}
        ) as broker:
            assert broker.status()["broker"]["config"] == f"{folder}/\N{REPLACEMENT CHARACTER}.toml"
