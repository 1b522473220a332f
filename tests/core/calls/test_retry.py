"""The calls that a server has when it dies: sent again, once, where that does no harm, or told why not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.core.calls import retry
from broker.core.calls.retry import NoRetry
from broker.core.mcp.methods import Era
from broker.core.servers.lifecycle import Event, State
from client_shim import wire
from client_shim.wire import Code
from tests.core.fake_server import Process
from tests.core.world import Client, World

READ_ONLY = {"readOnlyHint": True}
IDEMPOTENT = {"idempotentHint": True, "readOnlyHint": False}


def begin(annotations: Any = READ_ONLY, **table: object) -> World:
    """A broker with a ready server whose one tool has these annotations; a death costs it a second."""
    world = World({"time": table})
    world.scripts["time"].annotations = {"echo": annotations}
    world.scripts["time"].capabilities = {"tools": {}, "resources": {}, "prompts": {}, "completions": {}}
    world.start()
    return world


def now(world: World) -> Process:
    """The process that runs."""
    return world.processes["time"]


def not_sent_again(client: Client, id: int) -> str:
    """Why a call was not sent again, as its one ending says."""
    fault = client.fault(id)
    assert (fault.code, fault.data["outcome"]) == (Code.SERVER_DIED, "unknown")
    why: str = fault.data["not_sent_again"]
    return why


# --- which calls -------------------------------------------------------------------------------------

HARMLESS = {
    "read-only tool": (READ_ONLY, "tools/call", {"name": "echo"}),
    "idempotent tool": (IDEMPOTENT, "tools/call", {"name": "echo"}),
    "resource": ({}, "resources/read", {"uri": "x:y"}),
    "prompt": ({}, "prompts/get", {"name": "p"}),
    "completion": ({}, "completion/complete", {"ref": {}, "argument": {}}),
}


@pytest.mark.parametrize(("annotations", "method", "params"), HARMLESS.values(), ids=HARMLESS.keys())
def test_what_does_no_harm_is_sent_again_word_for_word(annotations: Any, method: str, params: Any) -> None:
    """Law 2: a harmless call goes once to the new process, under a new id; its client sees only an answer."""
    world = begin(annotations)
    client, old = world.client(), now(world)
    id = client.request("time", method, params, meta={"k": 1})
    world.exit()
    assert client.endings(id) == []
    world.wait(1.0)
    (first,), (second,) = old.got(method), now(world).got(method)
    assert second["params"] == first["params"] == {**params, "_meta": {"k": 1}}
    assert second["id"] != first["id"]
    now(world).reply(second, "ok")
    assert client.result(id) == "ok"
    server = world.engine.servers["time"]
    assert (server.calls, server.again, server.lost) == (1, 1, 0)
    world.assert_empty()


NOT_SO: dict[str, tuple[Any, str, Any, dict[str, Any], NoRetry]] = {
    "plain tool": ({}, "tools/call", {"name": "echo"}, {}, NoRetry.TOOL),
    "hint is false": ({"readOnlyHint": False}, "tools/call", {"name": "echo"}, {}, NoRetry.TOOL),
    "hint is no boolean": ({"readOnlyHint": "yes"}, "tools/call", {"name": "echo"}, {}, NoRetry.TOOL),
    "annotations are none": ([1], "tools/call", {"name": "echo"}, {}, NoRetry.TOOL),
    "another method": (READ_ONLY, "acme/do", {}, {"allow_methods": ["acme/do"]}, NoRetry.METHOD),
    "answer": (READ_ONLY, "tools/call", {"name": "echo", "requestState": "s"}, {}, NoRetry.ANSWER),
    "answers": (READ_ONLY, "tools/call", {"name": "echo", "inputResponses": {}}, {}, NoRetry.ANSWER),
    "stateful": (READ_ONLY, "tools/call", {"name": "echo"}, {"stateful": True}, NoRetry.STATEFUL),
    "stateful read": ({}, "resources/read", {"uri": "x:y"}, {"stateful": True}, NoRetry.STATEFUL),
}


@pytest.mark.parametrize(
    ("annotations", "method", "params", "table", "why"), NOT_SO.values(), ids=NOT_SO.keys()
)
def test_what_may_do_harm_ends_at_once_and_says_why(
    annotations: Any, method: str, params: Any, table: dict[str, Any], why: NoRetry
) -> None:
    """Law 8: whether it was carried out is unknown, and the broker does not make it twice."""
    world = begin(annotations, **table)
    client = world.client()
    id = client.request("time", method, params)
    world.exit(reason="it was killed by SIGKILL")
    assert not_sent_again(client, id) == why.value
    fault = client.fault(id)
    assert "SIGKILL" in fault.message
    assert why.words in fault.data["hint"]
    world.wait(100.0)
    assert now(world).got(method) == []
    assert world.engine.servers["time"].lost == 1
    world.assert_empty()


def test_the_catalogue_that_counts_is_the_one_it_was_sent_under() -> None:
    """Law 8: annotations of a later list do not apply to a call that was made before it."""
    for before, after, again in ((READ_ONLY, {}, True), ({}, READ_ONLY, False)):
        world = begin(before)
        client = world.client()
        id = client.call()
        world.scripts["time"].annotations = {"echo": after}
        now(world).say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        world.exit()
        world.wait(1.0)
        assert (len(now(world).calls) == 1, client.endings(id) == []) == (again, again)


@pytest.mark.parametrize("era", Era)
def test_every_method_has_its_word(era: Era) -> None:
    """Nothing is repeated that is not known to be harmless, in either era."""
    harmless = {"resources/read", "prompts/get", "completion/complete"}
    for method in ("tools/call", "acme/do", "tasks/get", *harmless):
        why = retry.no_retry(method, repeatable_tool=False, answers=False, stateful=False)
        assert (why is None) is (method in harmless), (era, method)


# --- once, and in time -------------------------------------------------------------------------------


def test_a_call_that_was_there_at_two_deaths_is_never_sent_again() -> None:
    """Law 5: the call may be the reason why the server dies."""
    world = begin()
    client = world.client()
    id = client.call(timeout_ms=600_000)
    world.exit()
    world.wait(1.0)
    assert len(now(world).calls) == 1
    world.exit(reason="it died again")
    fault = client.fault(id)
    assert not_sent_again(client, id) == "twice"
    assert "it died again" in fault.message
    assert "safe to repeat" not in fault.data["hint"]
    world.wait(100.0)
    assert now(world).calls == []


def test_what_waited_in_line_was_at_no_death() -> None:
    """Law 5: only calls that the server had received count; a queued call cannot be the cause."""
    world = begin(serialized=True)
    client = world.client()
    first, waiting = client.call(timeout_ms=600_000), client.call(timeout_ms=600_000)
    for _ in range(2):
        world.exit()
        world.wait(2.0)
    assert not_sent_again(client, first) == "twice"
    world.exit()
    world.wait(8.0)
    now(world).reply(now(world).calls[0], "ok")
    assert client.result(waiting) == "ok"


def test_a_call_whose_time_is_up_before_the_next_process_is_ready_says_so() -> None:
    """Law 2: it waits within its own deadline; it may be repeated, for it does no harm."""
    world = begin()
    client = world.client()
    id = client.call(timeout_ms=2000)
    world.scripts["time"].mute = {"initialize"}
    world.exit(reason="it fell over")
    world.wait(1.9)
    assert client.endings(id) == []
    world.wait(0.1)
    assert not_sent_again(client, id) == "late"
    assert "it fell over" in client.fault(id).message
    assert "safe to repeat" in client.fault(id).data["hint"]


@pytest.mark.parametrize("table", [{"restart": "never"}, {"start_limit_burst": 1}, {"restart_sec": 60.0}])
def test_a_call_whose_server_is_not_back_in_time_for_certain_ends_at_once(table: dict[str, Any]) -> None:
    """Law 2: calls in flight are answered at once where waiting cannot help."""
    world = begin(**table)
    client = world.client()
    id = client.call()
    world.exit()
    assert not_sent_again(client, id) == "late"
    world.assert_empty()


def test_after_the_deadline_at_the_new_process_it_is_an_ordinary_deadline() -> None:
    """Law 2: the time of a call goes on when it is sent again."""
    world = begin()
    client = world.client()
    id = client.call(timeout_ms=3000)
    world.exit()
    world.wait(2.9)
    assert client.endings(id) == []
    world.wait(0.1)
    assert client.fault(id).code == Code.DEADLINE
    assert len(now(world).got("notifications/cancelled")) == 1


# --- stopped, restarted ------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["while it runs", "while it drains", "while it rests", "while it starts"])
def test_after_a_stop_nothing_is_sent_again(when: str) -> None:
    """An operator who stops a server does not want its calls carried out later."""
    world = begin()
    client = world.client()
    id = client.call(timeout_ms=600_000)
    if when == "while it drains":
        world.slow_to_end.add("time")
    if when == "while it starts":
        world.scripts["time"].mute = {"initialize"}
    if when != "while it runs":
        world.exit()
    if when == "while it starts":
        world.wait(1.0)
    world.stop()
    if when == "while it drains":
        world.bury("time")
    assert not_sent_again(client, id) == "stopped"
    world.scripts["time"].mute = set()
    assert world.start().calls == []
    world.assert_empty()


def test_a_stop_answers_at_once_and_a_start_thereafter_does_not_take_it_back() -> None:
    """Law 2: no call waits for the end of the process, and a refused call stays refused."""
    world = begin()
    client = world.client()
    id = client.call(timeout_ms=600_000)
    world.slow_to_end.add("time")
    world.stop()
    assert not_sent_again(client, id) == "stopped"
    world.feed("time", Event.START)
    world.bury("time")
    assert now(world).calls == []


def test_a_restart_sends_again_what_does_no_harm() -> None:
    """Law 2: `mcp-broker restart` loses no harmless call that it cuts off."""
    world = begin()
    client = world.client()
    id = client.call()
    world.restart()
    now(world).reply(now(world).calls[0], "ok")
    assert client.result(id) == "ok"


def test_a_restart_says_so_to_whom_it_cuts_off() -> None:
    """Law 10: the cause is the operator's restart, and no crash."""
    world = begin({})
    client = world.client()
    id = client.call()
    world.restart()
    assert "it was restarted" in client.fault(id).message


# --- whoever gives it up, and where it waits ---------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "channel", "lost"])
def test_a_call_that_is_given_up_before_it_is_sent_again_just_ends(how: str) -> None:
    """Law 4: nothing of it gets to the new process, not even its cancellation."""
    world = begin()
    client = world.client()
    id = client.call()
    world.exit()
    if how == "cancel":
        client.say(wire.Cancel(1, id, None))
        assert client.fault(id).code == Code.CANCELLED
    elif how == "channel":
        client.say(wire.Goodbye(1, 0, "closed"))
    else:
        world.cut(client)
    world.wait(1.0)
    assert (now(world).calls, now(world).got("notifications/cancelled")) == ([], [])
    world.assert_empty()


def test_what_is_sent_again_is_first_in_line_and_in_order() -> None:
    """Law 5: those calls had their turn."""
    world = begin(max_in_flight=2)
    client = world.client()
    for number in range(4):
        client.request("time", "tools/call", {"name": "echo", "arguments": {"number": number}})
    world.exit()
    client.request("time", "tools/call", {"name": "echo", "arguments": {"number": 4}})
    world.wait(1.0)
    for _ in range(5):
        now(world).reply(now(world).calls[-1], "ok")
    assert [call["params"]["arguments"]["number"] for call in now(world).calls] == [0, 1, 2, 3, 4]


def test_a_body_that_may_be_needed_again_is_counted_with_those_that_wait() -> None:
    """Law 6: `queue_bytes` bounds both, and a call that must not be repeated keeps nothing."""
    for hints, free in ((READ_ONLY, False), ({}, True)):
        world = World({"time": {}}, queue_bytes=65_536)
        world.scripts["time"].annotations = {"echo": hints}
        world.start()
        client = world.client()
        params = {"name": "echo", "arguments": {"x": "x" * 40_000}}
        first = client.request("time", "tools/call", params)
        second = client.request("time", "tools/call", params)
        assert (client.endings(second) == []) is free
        if not free:
            assert client.fault(second).data["limit"] == "queue_bytes"
        now(world).reply(now(world).calls[0], "ok")
        assert client.result(first) == "ok"
        third = client.request("time", "tools/call", params)
        assert client.endings(third) == []


def test_progress_begins_again_under_the_token_of_the_client() -> None:
    """Law 3: what was passed on stays passed on; the old process's token means nothing any more."""
    world = begin()
    client = world.client()
    id = client.call(flags=wire.WANTS_PROGRESS)
    old = now(world).calls[0]["params"]["_meta"]["progressToken"]
    now(world).progress(old, 1)
    world.exit()
    world.wait(1.0)
    token = now(world).calls[0]["params"]["_meta"]["progressToken"]
    assert token != old
    now(world).progress(old, 5)
    now(world).progress(token, 2)
    seen = [
        json.loads(body or b"") for message, body in client.inbox if isinstance(message, wire.Notification)
    ]
    assert seen == [{"progressToken": id, "progress": 1}, {"progressToken": id, "progress": 2}]


def test_when_the_broker_ends_a_call_that_was_begun_says_that_it_was() -> None:
    """Law 8: it waits to be sent again, and yet it may have been carried out."""
    world = begin()
    client = world.client()
    id = client.call()
    world.exit()
    world.run(world.engine.clients.goodbye, "the broker is shutting down")
    fault = client.fault(id)
    assert (fault.code, fault.data["outcome"]) == (Code.SHUTTING_DOWN, "unknown")


def test_what_a_death_did_is_counted_and_logged() -> None:
    """Law 9: how many calls were lost, and how many are to be sent again; nothing where there were none."""
    world = begin()
    client = world.client()
    client.call()
    client.request("time", "tools/call", {"name": "echo", "requestState": "s"})
    world.exit()
    (said,) = [note.facts for note in world.notes if note.event == "server.had_calls"]
    assert said == {"server": "time", "lost": 1, "again": 1}
    assert world.engine.counters["calls.again"] == 1
    world.wait(1.0)
    now(world).reply(now(world).calls[0], "ok")
    world.exit()
    assert len([note for note in world.notes if note.event == "server.had_calls"]) == 1
    assert world.lifecycles["time"].state is State.BACKOFF
