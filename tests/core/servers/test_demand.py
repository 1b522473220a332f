"""A call for a server that is down; a server that is about to be stopped, and goes on."""

from __future__ import annotations

from broker.core.servers.lifecycle import State
from client_shim.wire import Code
from tests.core.world import World, ready

# --- a broken server that is called --------------------------------------------------------------------


def broken(**table: object) -> World:
    """A server that has failed too often, half a minute ago."""
    world = ready(start_limit_burst=1, **table)
    world.exit(reason="no network")
    world.wait(30.0)
    assert world.lifecycles["time"].state is State.BROKEN
    return world


def test_a_call_heals_a_broken_server() -> None:
    """A host that booted before its network recovers with the first page that is opened."""
    world = broken()
    client = world.client()
    id = client.call()
    assert world.lifecycles["time"].state is State.READY
    process = world.processes["time"]
    process.reply(process.calls[0], "ok")
    assert client.result(id) == "ok"


def test_a_storm_of_calls_is_one_start() -> None:
    """Law 6: calls during the try wait for it; calls after a failed try are refused at once."""
    world = broken()
    world.scripts["time"].mute = {"initialize"}
    client = world.client()
    ids = [client.call() for _ in range(20)]
    assert world.spawned["time"] == 2
    world.exit(reason="still no network")
    for id in (*ids, client.call()):
        fault = client.fault(id)
        assert (fault.code, fault.data["retry_after_s"]) == (Code.SERVER_DOWN, 30.0)
        assert "still no network" in fault.message
    world.wait(29.0)
    assert client.fault(client.call()).data["retry_after_s"] == 1.0
    assert world.spawned["time"] == 2
    world.wait(1.0)
    world.scripts["time"].mute = set()
    client.call()
    assert (world.spawned["time"], world.lifecycles["time"].state) == (3, State.READY)


def test_a_call_waits_for_the_try_within_its_deadline() -> None:
    """Law 2: and is told that a try is under way, and why the server was broken."""
    world = broken()
    world.scripts["time"].mute = {"initialize"}
    client = world.client()
    id = client.call(timeout_ms=2000)
    world.wait(2.0)
    fault = client.fault(id)
    assert fault.code == Code.SERVER_DOWN
    assert "no network" in fault.message
    assert "being started again" in fault.data["hint"]
    assert world.lifecycles["time"].state is State.HANDSHAKE


def test_a_call_that_is_refused_for_a_limit_starts_nothing() -> None:
    """Law 6: only a call that is taken in has a server tried."""
    world = World({"time": {"start_limit_burst": 1}}, queue_bytes=65_536)
    world.start()
    world.exit()
    world.wait(30.0)
    client = world.client()
    params = {"name": "echo", "arguments": {"x": "x" * 70_000}}
    assert client.fault(client.request("time", "tools/call", params)).code == Code.BUSY
    assert world.lifecycles["time"].state is State.BROKEN


def test_a_call_does_not_start_what_was_stopped() -> None:
    """A stopped server stays stopped; the refusal says so, and why."""
    world = ready(restart="never")
    client = world.client()
    world.exit(reason="it exited with status 7")
    world.wait(60.0)
    fault = client.fault(client.call())
    assert (fault.code, world.spawned["time"]) == (Code.SERVER_DOWN, 1)
    assert "status 7" in fault.message
    assert "mcp-broker start time" in fault.data["hint"]
    world.start()
    world.stop()
    world.wait(60.0)
    assert "was stopped" in client.fault(client.call()).message
    assert world.spawned["time"] == 2


# --- a server that is about to be stopped ----------------------------------------------------------------


def test_a_line_that_was_paused_without_a_process_is_open_to_the_next_one() -> None:
    """After `stop` of a server that waits for its next start, `start` serves calls again."""
    world = ready(restart_sec=10.0)
    world.exit()
    line = world.engine.servers["time"].queue
    line.paused = True
    world.stop()
    process = world.start()
    client = world.client()
    id = client.call()
    process.reply(process.calls[0], "ok")
    assert client.result(id) == "ok"


def test_a_server_that_is_not_stopped_after_all_is_given_what_waited() -> None:
    """`start` takes back a `stop` that still waits for calls."""
    world = ready()
    world.engine.servers["time"].queue.paused = True
    client = world.client()
    id = client.call()
    assert not world.processes["time"].calls
    world.run(world.engine.registry.resume, "time")
    world.processes["time"].reply(world.processes["time"].calls[0], "ok")
    assert client.result(id) == "ok"
