"""What a server asks of its client: answered from the config, or refused with the reason; never guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.core.effects import Level
from broker.core.mcp.methods import Era
from tests.core.fake_server import Json, Process
from tests.core.world import World, ready

ROOTS = ["file:///srv/notes", "file:///srv/maps"]
META = "io.modelcontextprotocol/"


def ask(process: Process, method: str, id: object = "q") -> Any:
    """The server asks something; the answer."""
    process.say({"jsonrpc": "2.0", "id": id, "method": method, "params": {}})
    return process.lines[-1]


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "x/y"])
def test_a_question_is_refused_with_what_its_author_can_do(method: str) -> None:
    """Issue 5: which of the clients it is for cannot be known."""
    world = ready()
    answer = ask(world.processes["time"], method)
    assert (answer["id"], answer["error"]["code"]) == ("q", -32601)
    assert "input_required" in answer["error"]["message"]
    assert "argument" in answer["error"]["message"]


def test_questions_are_counted_and_told_of_once_for_each_process() -> None:
    """Law 9: loud enough to be seen, and not a line for each of a thousand."""
    world = ready()
    for _ in range(2):
        for id in range(3):
            ask(world.processes["time"], "sampling/createMessage", id)
        world.exit()
        world.wait(5.0)
    levels = [note.level for note in world.notes if note.event == "server.question"]
    assert levels == [Level.WARNING, Level.DEBUG, Level.DEBUG] * 2
    assert world.engine.servers["time"].questions == world.engine.counters["dropped.question"] == 6


def test_roots_are_those_of_the_config() -> None:
    """Issue 5: and the capability is declared where there are any, and nowhere else."""
    world = ready(roots=ROOTS)
    process = world.processes["time"]
    assert ask(process, "roots/list")["result"] == {"roots": [{"uri": uri} for uri in ROOTS]}
    assert process.got("initialize")[0]["params"]["capabilities"] == {"roots": {}}
    assert world.engine.servers["time"].questions == 0


def test_without_roots_in_the_config_it_is_told_of_the_key() -> None:
    """2025-11-25: a client without the capability answers −32601."""
    process = ready().processes["time"]
    answer = ask(process, "roots/list")["error"]
    assert answer["code"] == -32601
    assert "broker.toml" in answer["message"]
    assert process.got("initialize")[0]["params"]["capabilities"] == {}


@pytest.mark.parametrize("method", ["sampling/createMessage", "roots/list", "ping"])
def test_a_question_of_a_server_that_may_not_ask_gets_no_response(method: str) -> None:
    """2026-07-28, stdio: "The client MUST NOT write JSON-RPC responses". Law 9: it is counted."""
    world = World({"time": {"roots": ROOTS}})
    world.scripts["time"].era = Era.MODERN
    process = world.start()
    before = len(process.lines)
    process.say({"jsonrpc": "2.0", "id": "q", "method": method, "params": {}})
    assert process.lines[before:] == []
    assert world.engine.servers["time"].questions == 1
    assert [note.facts["method"] for note in world.notes if note.event == "server.question"] == [method]


def test_a_question_in_a_result_passes_untouched_and_so_does_the_retry() -> None:
    """Law 7: the broker neither reads nor keeps anything of it."""
    world = World()
    world.scripts["time"].era = Era.MODERN
    process, client = world.start(), world.client()
    capabilities: Json = {META + "clientCapabilities": {"elicitation": {}}}
    id = client.call(meta=capabilities)
    assert process.calls[0]["params"]["_meta"][META + "clientCapabilities"] == {"elicitation": {}}
    wanted = b'{"resultType":"input_required", "inputRequests":{"a":{"method":"x"}},"requestState":"1.0"}'
    process.say(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (process.calls[0]["id"], wanted))
    ((_, body),) = client.endings(id)
    assert body == wanted
    retry = b'{"name":"echo","inputResponses":{"a":{"action":"accept", "n":1.0}},"requestState":"1.0"}'
    client.request("time", "tools/call", body=retry, meta=capabilities)
    sent: Json = process.calls[1]["params"]
    del sent["_meta"]
    assert sent == json.loads(retry)
    assert process.calls[1]["id"] != process.calls[0]["id"]


@pytest.mark.parametrize("era", list(Era))
def test_the_trace_of_a_client_is_the_trace_of_the_call(era: Era) -> None:
    """W3C trace context: `traceparent`, `tracestate` and `baggage` are nobody's but the client's."""
    world = World()
    world.scripts["time"].era = era
    process, client = world.start(), world.client()
    trace = {"traceparent": "00-ab-cd-01", "tracestate": "a=1", "baggage": "k=v"}
    client.call(meta=trace)
    assert trace.items() <= process.calls[0]["params"]["_meta"].items()
