"""Reloading: what changed in the config changes, and nothing else notices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from client_shim import BrokerClient, wire
from client_shim.errors import ServerDied, ServerDisabled, ServerDown, UnknownServer
from tests.e2e.harness import PATIENCE_S, RunningBroker, is_alive, rogue, running
from tests.e2e.test_command import command


def reload(broker: RunningBroker) -> dict[str, Any]:
    """Reload by the command, as a script does."""
    done = command("reload", "--json", endpoint=broker.endpoint)
    assert done.returncode == 0, (done.stdout, done.stderr)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def what(said: Mapping[str, Any]) -> dict[str, str]:
    """What became of each server."""
    return {one["name"]: one["what"] for one in said["servers"]}


async def in_flight(broker: RunningBroker, name: str, count: int = 1) -> None:
    """Until the server has so many calls."""
    while (await asyncio.to_thread(broker.server, name))["in_flight"] != count:
        await asyncio.sleep(0.01)


def test_what_changed_changes_and_the_rest_keeps_its_process() -> None:
    """Added, removed, changed, retuned, switched on and off, renamed; the others stay."""
    before = {name: rogue() for name in ("same", "gone", "other", "tuned", "off", "old-name")}
    with running({**before, "on": rogue(enabled=False)}) as broker:
        pids = broker.pids()
        after = {
            "same": rogue(),
            "new": rogue("--era", "modern"),
            "other": rogue("--era", "modern"),
            "tuned": rogue(timeout=9.0),
            "off": rogue(enabled=False),
            "on": rogue(),
            "new-name": rogue(),
        }
        broker.write(after)
        said = reload(broker)
        assert what(said) == {
            "same": "unchanged",
            "gone": "removed",
            "new": "added",
            "other": "restarted",
            "tuned": "retuned",
            "off": "disabled",
            "on": "enabled",
            "old-name": "removed",
            "new-name": "added",
        }
        rows = {row["name"]: row for row in broker.status()["servers"]}
        assert list(rows) == sorted(after)
        states = {name: row["state"] for name, row in rows.items()}
        assert states == {**dict.fromkeys(after, "ready"), "off": "disabled"}
        assert rows["other"]["era"] == "modern"
        now = broker.pids()
        assert {name for name in now if now[name] == pids.get(name)} == {"same", "tuned"}
        assert not [name for name in ("gone", "off", "old-name", "other") if is_alive(pids[name])]
        with broker.client() as client:
            for name in now:
                assert client.request(name, "tools/call", {"name": "echo", "arguments": {}})
            with pytest.raises(ServerDisabled, match="mcp-broker reload"):
                client.request("off", "tools/list")
            with pytest.raises(UnknownServer, match="no server 'gone'; the broker has new, new-name, off"):
                client.request("gone", "tools/list")


def test_calls_at_a_changed_server_end_and_what_waits_goes_on_waiting() -> None:
    """Like a restart: the call in flight has its answer, the one in line is answered by the new process."""
    with running({"s": rogue(serialized=True)}, limits={"drain_sec": 30.0}) as broker:

        async def main() -> None:
            async with BrokerClient("page", broker.endpoint) as client:
                first = asyncio.create_task(client.call_tool("s", "sleep", {"seconds": 0.5}))
                await in_flight(broker, "s")
                broker.write({"s": rogue("--era", "modern", serialized=True)})
                done = asyncio.create_task(asyncio.to_thread(reload, broker))
                second = asyncio.create_task(client.call_tool("s", "echo", {"n": 2}))
                assert (await first).content[0].text == "slept"
                assert (await second).content[0].text == '{"n":2}'
                (said,) = (await done)["servers"]
                assert (said["what"], said["keys"], said["cut"]) == ("restarted", ["args"], 0)

        pid = broker.pids()["s"]
        asyncio.run(main())
        assert not is_alive(pid)
        assert broker.server("s")["calls"] == 2


def test_a_start_meanwhile_cuts_no_call_that_the_reload_waits_for() -> None:
    """Who starts a server that a reload is about to replace gets the new process, in its time."""
    with running({"s": rogue()}, limits={"drain_sec": 30.0}) as broker:

        async def main() -> None:
            async with BrokerClient("page", broker.endpoint) as client:
                first = asyncio.create_task(client.call_tool("s", "sleep", {"seconds": 3}))
                await in_flight(broker, "s")
                broker.write({"s": rogue("--era", "modern")})
                done, others = asyncio.create_task(asyncio.to_thread(reload, broker)), []
                while not (await asyncio.to_thread(broker.server, "s"))["queued"]:
                    others.append(asyncio.create_task(client.call_tool("s", "echo", {"n": 2})))
                    await asyncio.sleep(0.02)
                await client.request(wire.MANAGEMENT, "start", {"server": "s"})
                assert (await first).content[0].text == "slept"
                assert {(await other).content[0].text for other in others} == {'{"n":2}'}
                (said,) = (await done)["servers"]
                assert (said["what"], said["cut"]) == ("restarted", 0)

        pid = broker.pids()["s"]
        asyncio.run(main())
        assert not is_alive(pid)


def test_a_stop_meanwhile_is_kept_and_cuts_no_call_either() -> None:
    """Who stops a server that a reload is about to replace finds it stopped, after the calls that it had."""
    with running({"s": rogue()}, limits={"drain_sec": 30.0}) as broker:

        async def main() -> None:
            async with BrokerClient("page", broker.endpoint) as client:
                first = asyncio.create_task(client.call_tool("s", "sleep", {"seconds": 3}))
                await in_flight(broker, "s")
                broker.write({"s": rogue("--era", "modern")})
                done, waiting = asyncio.create_task(asyncio.to_thread(reload, broker)), []
                while not (await asyncio.to_thread(broker.server, "s"))["queued"]:
                    waiting.append(asyncio.create_task(client.call_tool("s", "echo", {"n": 2})))
                    await asyncio.sleep(0.02)
                moved = await client.request(wire.MANAGEMENT, "stop", {"server": "s"})
                assert (moved["state"], moved["cut"]) == ("stopped", 0)
                assert (await first).content[0].text == "slept"
                ends = await asyncio.gather(*waiting, return_exceptions=True)
                assert isinstance(ends[-1], ServerDown)
                (said,) = (await done)["servers"]
                assert (said["what"], said["cut"]) == ("changed", 0)

        asyncio.run(main())
        assert broker.pids() == {}
        assert broker.log().count("server.handshake server=s") == 1


def test_calls_of_a_removed_server_end_clearly() -> None:
    """Law 2: what waits is refused at once, what is in flight may end or is cut, new calls are refused."""
    servers, limits = {"s": rogue(serialized=True), "stays": rogue()}, {"drain_sec": 0.3}
    with running(servers, limits=limits) as broker:

        async def main() -> None:
            async with BrokerClient("page", broker.endpoint) as client:
                hanging = asyncio.create_task(client.call_tool("s", "hang"))
                await in_flight(broker, "s")
                waiting = asyncio.create_task(client.call_tool("s", "echo"))
                while (await client.status())["servers"][0]["queued"] != 1:
                    await asyncio.sleep(0.01)
                broker.write({"stays": rogue()}, limits=limits)
                done = asyncio.create_task(asyncio.to_thread(reload, broker))
                with pytest.raises(UnknownServer, match=r"'s' was removed from the config.*not passed on"):
                    await waiting
                with pytest.raises(ServerDied, match=r"removed from the config.*unknown"):
                    await hanging
                assert [(one["what"], one["cut"]) for one in (await done)["servers"]] == [
                    ("removed", 1),
                    ("unchanged", 0),
                ]
                with pytest.raises(UnknownServer, match="the broker has stays"):
                    await client.call_tool("s", "echo")

        pid = broker.pids()["s"]
        asyncio.run(main())
        assert not is_alive(pid)


def test_a_bad_config_changes_nothing_and_says_every_mistake() -> None:
    """In the command's output, in the log, and in the status until a good reload."""
    with running({"s": rogue()}) as broker:
        pids, good = broker.pids(), broker.config.read_text()
        broker.write({"s": rogue(timout=3), "new": rogue(env={"KEY": "${NOT_SET_ANYWHERE}"})})
        done = command("reload", endpoint=broker.endpoint)
        assert done.returncode == 1
        for mistake in ("servers.s.timout: there is no such key; did you mean timeout?", "NOT_SET_ANYWHERE"):
            assert mistake in done.stderr
            assert mistake in broker.log()
            assert mistake in "".join(broker.status()["broker"]["config_error"]["problems"])
            assert mistake in " ".join(command("status", endpoint=broker.endpoint).stdout.split())
        assert "nothing changed" in done.stderr
        assert broker.status()["broker"]["reload"]["refused"]
        assert broker.pids() == pids
        broker.config.write_text("[servers", encoding="utf-8")
        assert "不是有效的 TOML" in command("reload", endpoint=broker.endpoint, MCP_BROKER_LANG="zh").stderr
        broker.config.unlink()
        assert "No such file" in command("reload", endpoint=broker.endpoint).stderr
        broker.config.write_text(good, encoding="utf-8")
        assert what(reload(broker)) == {"s": "unchanged"}
        about = broker.status()["broker"]
        assert (about["config_error"], about["reload"]["refused"]) == (None, False)
        assert about["config_since_s"] < about["uptime_s"]
        assert broker.pids() == pids


def test_what_needs_a_restart_is_said_and_the_rest_is_done() -> None:
    """What can only change with a restart is said, by the command and in the status."""
    with running({"s": rogue()}) as broker:
        broker.write({"s": rogue()}, limits={"credit_bytes": 65_536, "calls_per_channel": 1})
        done = command("reload", endpoint=broker.endpoint)
        assert done.returncode == 0
        assert "limits.credit_bytes: takes effect after a restart of the broker" in done.stdout
        assert "applied now: limits.calls_per_channel" in done.stdout
        assert broker.status()["broker"]["restart_needed"] == ["limits.credit_bytes"]
        assert "limits.credit_bytes" in command("status", endpoint=broker.endpoint).stdout
        broker.write({"s": rogue()})
        assert reload(broker)["restart_needed"] == []


def test_the_socket_is_opened_to_whom_the_config_names() -> None:
    """`socket_mode` holds at once; a group that is not there is a mistake like any other."""
    with running({"s": rogue()}) as broker:
        socket = Path(broker.endpoint.removeprefix("ipc://"))
        broker.write({"s": rogue()}, broker={"socket_mode": "0660"})
        assert reload(broker)["adjusted"] == ["broker.socket_mode"]
        assert socket.stat().st_mode & 0o777 == 0o660
        broker.write({"s": rogue(), "t": rogue()}, broker={"socket_group": "no-such-group"})
        assert "no group 'no-such-group'" in command("reload", endpoint=broker.endpoint).stderr
        assert socket.stat().st_mode & 0o777 == 0o660
        assert list(broker.pids()) == ["s"]


def test_a_mistake_of_any_kind_does_not_end_the_broker() -> None:
    """Law 5: a file that nests without end, a socket that somebody has removed."""
    with running({"s": rogue()}) as broker, broker.client() as client:
        broker.config.write_text("a = " + "[" * 5000, encoding="utf-8")
        broker.process.send_signal(signal.SIGHUP)
        broker.wait_log("config.refused")
        Path(broker.endpoint.removeprefix("ipc://")).unlink()
        broker.write({"s": rogue()}, broker={"socket_mode": "0660"})
        broker.process.send_signal(signal.SIGHUP)
        broker.wait_log("config.refused", times=2)
        assert "restart the broker, which makes the socket anew" in broker.log()
        assert client.request("s", "ping") == {}


def test_a_server_that_was_down_is_tried_at_once_with_what_was_mended() -> None:
    """Nobody who has mended a command waits for the breaker."""
    with running({"s": {"command": "no-such-command", "start_limit_burst": 1}}, ready=False) as broker:
        broker.wait_state("s", "broken")
        broker.write({"s": rogue(start_limit_burst=1)})
        (said,) = reload(broker)["servers"]
        assert (said["what"], said["state"]) == ("restarted", "ready")


def test_a_server_that_is_being_switched_off_cannot_be_started() -> None:
    """Law 1: what was decided is carried out, and no process is started that is to end at once."""
    table = rogue("--ignore-eof", "--ignore-sigterm", timeout_stop_sec=0.5)
    with running({"s": table, "other": rogue()}) as broker:
        broker.write({"s": {**table, "enabled": False}, "other": rogue()})
        broker.process.send_signal(signal.SIGHUP)
        broker.wait_log("server.draining server=s")
        assert "is switched off in broker.toml" in command("start", "s", endpoint=broker.endpoint).stderr
        broker.wait_log("config.reloaded")
        assert broker.log().count("server.handshake server=s") == 1


def test_a_server_that_was_stopped_stays_stopped() -> None:
    """What an operator has stopped is not started by somebody who edits its table."""
    with running({"s": rogue(), "t": rogue("--exit-at-start", "0", restart="never")}, ready=False) as broker:
        broker.wait_state("s", "ready")
        broker.wait_state("t", "stopped")
        assert command("stop", "s", endpoint=broker.endpoint).returncode == 0
        broker.write({"s": rogue("--era", "modern"), "t": rogue(restart="never")})
        assert what(reload(broker)) == {"s": "changed", "t": "changed"}
        assert broker.pids() == {}
        assert command("start", "s", endpoint=broker.endpoint).returncode == 0
        assert broker.server("s")["era"] == "modern"


def test_a_server_that_cannot_be_started_is_told_and_the_reload_fails() -> None:
    """Exit status 1 says to a script that something it wanted is not so."""
    with running({"s": rogue()}) as broker:
        broker.write({"s": rogue(), "t": {"command": "no-such-command"}})
        done = command("reload", endpoint=broker.endpoint)
        assert done.returncode == 1
        assert "there is no command 'no-such-command'" in done.stderr
        assert broker.server("s")["state"] == "ready"
        broker.write({"s": rogue()})
        assert what(reload(broker)) == {"s": "unchanged", "t": "removed"}


def test_who_does_not_want_to_wait_does_not() -> None:
    """`--no-wait`, as the service's unit has it: done is that the config was taken."""
    with running({"s": rogue()}) as broker:
        broker.write({"s": rogue(), "t": {"command": "no-such-command"}})
        done = command("reload", "--no-wait", endpoint=broker.endpoint)
        assert (done.returncode, done.stderr) == (0, "")
        assert "t: added" in done.stdout
        broker.write({"s": rogue(timout=3)})
        assert command("reload", "--no-wait", endpoint=broker.endpoint).returncode == 1


def test_sighup_reloads_and_reloads_take_turns() -> None:
    """`systemctl reload` sends it. Two at once are one after the other, and the last file counts."""
    with running({"s": rogue(), "t": rogue()}) as broker:
        pids = broker.pids()
        broker.write({"s": rogue(), "t": rogue("--ignore-eof", timeout_stop_sec=0.5)})
        broker.process.send_signal(signal.SIGHUP)
        broker.wait_log("config.reloaded by=SIGHUP restarted=t")
        broker.write({"s": rogue()})  # the reload that removes it takes a while
        broker.process.send_signal(signal.SIGHUP)
        broker.wait_log("server.draining server=t", 2)
        broker.write({"s": rogue(), "t": rogue()})
        assert what(reload(broker)) == {"s": "unchanged", "t": "added"}
        assert broker.log().count("config.reloaded by=SIGHUP") == 2
        assert broker.pids()["s"] == pids["s"]


def test_a_broker_that_ends_is_not_reloaded() -> None:
    """The end goes on as it began; the new config is the next broker's."""
    with running({"s": rogue()}, limits={"drain_sec": 30.0}) as broker:

        async def main() -> None:
            async with BrokerClient("page", broker.endpoint) as client:
                call = asyncio.create_task(client.call_tool("s", "hang"))
                await in_flight(broker, "s")
                broker.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(broker.wait_log, "broker.ending")
                broker.write({"t": rogue()})
                refused = await asyncio.to_thread(command, "reload", endpoint=broker.endpoint)
                assert refused.returncode != 0
                assert "shutting down" in refused.stderr
                broker.process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(broker.wait_log, "broker.already_ending signal=SIGHUP")
                assert not call.done()
                call.cancel()

        asyncio.run(main())
        assert broker.stop() == 0
        assert "config.reloaded" not in broker.log()


def test_a_reload_does_not_kill_a_broker_that_exits() -> None:
    """`systemctl reload` may come at any moment of the end; the exit status stays 0."""
    with running({"s": rogue()}) as broker:
        broker.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + PATIENCE_S
        while broker.process.poll() is None and time.monotonic() < until:
            broker.process.send_signal(signal.SIGHUP)
            time.sleep(0.001)  # so that the broker has time to end
        assert broker.process.returncode == 0


IN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_closed_terminal_ends_the_broker_that_was_started_in_it() -> None:
    """SIGHUP has two meanings. In an open terminal it reloads; of a closed one no broker is left behind."""
    with running({"s": rogue()}) as broker:
        broker.stop()
        ours, theirs = os.openpty()
        try:
            broker.start(sys.executable, "-c", IN_TERMINAL, stdin=theirs)
            os.close(theirs)
            broker.wait_ready()
            broker.process.send_signal(signal.SIGHUP)
            broker.wait_log("config.reloaded by=SIGHUP unchanged=1")
        finally:
            os.close(ours)
        assert broker.process.wait(30) == 0
        assert "broker.ending signal=SIGHUP" in broker.log()


URI = "note://today"


def test_a_subscription_outlives_that_a_server_is_gone_for_a_while() -> None:
    """Gone by a reload and by a restart of the broker, the others are heard; back, so is it."""
    both = {name: rogue("--era", "modern") for name in ("stays", "goes")}

    async def main(broker: RunningBroker) -> None:
        heard: list[tuple[str, str]] = []
        said: list[tuple[str, str]] = []
        client = BrokerClient(
            "page",
            broker.endpoint,
            reconnect_s=60,
            on_resource_updated=lambda server, uri: heard.append((server, uri)),
            on_notification=lambda server, method, _: said.append((server, method)),
        )

        async def until(what: Callable[[], bool]) -> None:
            while not what():
                await asyncio.sleep(0.02)

        async def hears(server: str) -> None:
            heard.clear()
            while (server, URI) not in heard:  # until the stream upstream is replaced
                await client.call_tool(server, "touch", {"uri": URI})
                await asyncio.sleep(0.02)

        for name in both:
            await client.subscribe_resource(name, URI)
            await hears(name)
        broker.write({"stays": both["stays"]})
        await asyncio.to_thread(reload, broker)
        await asyncio.wait_for(until(lambda: ("goes", "$broker/not_subscribed") in said), 30)
        await hears("stays")
        said.clear()
        await asyncio.to_thread(broker.stop)
        broker.start()
        await asyncio.to_thread(broker.wait_ready)
        await client.ping(timeout=60)
        await asyncio.wait_for(until(lambda: ("goes", "$broker/not_subscribed") in said), 30)
        await hears("stays")
        heard.clear()
        broker.write(both)
        await asyncio.to_thread(reload, broker)
        await asyncio.wait_for(until(lambda: ("goes", URI) in heard), 30)
        await hears("goes")
        await client.aclose()

    with running(both) as broker:
        asyncio.run(main(broker))
