"""A server that says nothing: asked whether it lives, left alone while it is busy, replaced when it hangs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.mcp.methods import Era
from broker.core.servers.health import GRACE_S, LOOKS, QUESTIONS, Health, HealthVerdict, Looks
from broker.core.servers.lifecycle import State
from client_shim.wire import Code
from tests.core.fake_server import Process
from tests.core.spans import spans
from tests.core.world import World, ready

WATCH_S = 30.0
HUNG_S = (QUESTIONS + 1) * WATCH_S + GRACE_S
"""So long a server that has nothing to do may be silent, its answers included."""

QUESTION = {Era.LEGACY: "ping", Era.MODERN: "server/discover"}
MUTE = {"ping", "server/discover", "initialize"}
ERAS = pytest.mark.parametrize("era", Era)


def at_rest(era: Era = Era.LEGACY, *, mute: bool = True, **table: object) -> World:
    """A server that is ready and known to answer when it is asked; if it is mute, it does not any more."""
    world = World({"time": {"watchdog_sec": WATCH_S, **table}})
    world.scripts["time"].era = era
    world.start()
    if mute:
        world.engine.servers["time"].answers_checks = True
        world.engine.servers["time"].watch(world.now)
        world.scripts["time"].mute = set(MUTE)
    return world


def process(world: World) -> Process:
    """The process that runs."""
    return world.processes["time"]


def questions(world: World, era: Era = Era.LEGACY) -> int:
    """How often it was asked since it is ready."""
    asked = len(process(world).got(QUESTION[era]))
    return asked - (era is Era.MODERN)  # the handshake


def state(world: World) -> State:
    """Where it is in its life."""
    return world.lifecycles["time"].state


# --- nothing to do -----------------------------------------------------------------------------------


@ERAS
def test_a_silent_server_is_asked_and_one_that_answers_lives(era: Era) -> None:
    """A server that writes nothing gets one check of its era in each `watchdog_sec`."""
    world = at_rest(era, mute=False)
    world.wait(WATCH_S - 0.001)
    assert questions(world, era) == 0
    world.wait(0.001)
    assert questions(world, era) == 1
    world.wait(99 * WATCH_S)
    assert questions(world, era) == 100
    assert (state(world), world.spawned["time"]) == (State.READY, 1)
    assert world.engine.counters["dropped.late.reply"] == 0


@ERAS
def test_one_that_answers_nothing_is_asked_twice_and_then_replaced(era: Era) -> None:
    """Two unanswered checks are a failure, with the reason in words."""
    world = at_rest(era)
    world.wait(HUNG_S - 0.001)
    assert (questions(world, era), state(world)) == (QUESTIONS, State.READY)
    world.wait(0.001)
    assert state(world) is State.BACKOFF
    error = world.lifecycles["time"].last_error
    assert error == f"it answered neither calls nor health checks for {HUNG_S:.0f} s"
    world.scripts["time"].mute.clear()
    world.wait(1.0)
    assert (state(world), world.spawned["time"]) == (State.READY, 2)


@ERAS
@pytest.mark.parametrize(
    "sign", ["error", "broken answer", "late answer", "notification", "request", "banner", "other id"]
)
def test_any_line_is_a_sign_of_life(era: Era, sign: str) -> None:
    """An old server that does not know `ping` answers with an error, which is a sign of life."""
    world = at_rest(era)
    for _ in range(5):
        world.wait(2 * WATCH_S)
        asked = process(world).got(QUESTION[era])
        answers: dict[str, Any] = {
            "error": {"id": asked[-1]["id"], "error": {"code": -32601, "message": "no such method"}},
            "broken answer": b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % asked[-1]["id"],
            "late answer": {"id": asked[-2]["id"], "result": {}},
            "notification": {"method": "notifications/message", "params": {"level": "info", "data": 1}},
            "request": {"id": 1, "method": "ping"},
            "banner": b"still here",
            "other id": {"id": "x", "result": {}},
        }
        process(world).say(answers[sign])
    assert (state(world), world.spawned["time"]) == (State.READY, 1)


def test_stderr_is_no_sign_of_life() -> None:
    """A thread that logs goes on when the one that answers hangs."""
    world = at_rest()
    for _ in range(int(HUNG_S)):
        world.wait(1.0)
        world.run(world.engine.registry.heard, "time")
    assert state(world) is State.BACKOFF


def test_a_server_that_talks_is_not_asked() -> None:
    """There are no checks while calls are being answered."""
    world = at_rest()
    client = world.client()
    for _ in range(20):
        client.call()
        world.wait(WATCH_S / 3)
        process(world).reply(process(world).calls[-1], "ok")
    assert questions(world) == 0


def test_zero_switches_it_off() -> None:
    """As systemd's WatchdogSec=0."""
    world = at_rest(watchdog_sec=0)
    world.wait(100_000.0)
    assert (questions(world), state(world), world.engine.wake_at()) == (0, State.READY, None)


# --- busy, and hung ----------------------------------------------------------------------------------


def test_a_server_busy_for_two_minutes_with_one_call_is_left_alone() -> None:
    """A server with a call in flight is busy, not dead, and is not asked."""
    world = at_rest()
    client = world.client()
    id = client.call(timeout_ms=180_000)
    world.wait(120.0)
    assert (questions(world), state(world)) == (0, State.READY)
    process(world).reply(process(world).calls[0], "done")
    assert client.result(id) == "done"
    assert world.spawned["time"] == 1


def test_one_whose_only_call_has_run_out_of_time_is_asked() -> None:
    """A server hangs if it answers no check *and* all its calls are past their deadlines."""
    world = at_rest()
    client = world.client()
    id = client.call(timeout_ms=45_000)
    world.wait(45.0)
    assert (client.fault(id).code, questions(world)) == (Code.DEADLINE, 1)
    world.wait(2 * WATCH_S + GRACE_S)
    assert state(world) is State.BACKOFF


def test_one_call_that_has_time_excuses_those_that_ran_out_of_it() -> None:
    """A server that handles one call at a time leaves the others to their deadlines."""
    world = at_rest()
    client = world.client()
    client.call(timeout_ms=300_000)
    for _ in range(9):
        client.call(timeout_ms=5000)
        world.wait(30.0)
    assert (questions(world), state(world)) == (0, State.READY)
    world.wait(30.0 + 2 * WATCH_S + GRACE_S)
    assert state(world) is State.BACKOFF


def test_a_hung_server_is_found_although_it_is_called_all_the_time() -> None:
    """Calls that came after the first doubt are no excuse, or busy clients would keep a dead server."""
    world = at_rest(restart_sec=600.0)
    client = world.client()
    for _ in range(24):
        client.call(timeout_ms=30_000)
        world.wait(5.0)
    assert state(world) is State.READY
    world.wait(5.0)
    assert state(world) is State.BACKOFF
    assert world.lifecycles["time"].last_error is not None


def test_a_call_that_is_given_up_does_not_excuse_for_long() -> None:
    """No client waits for a cancelled call any more, so it excuses nothing."""
    world = at_rest(restart_sec=600.0)
    client = world.client()
    client.call(timeout_ms=3_600_000)
    world.wait(100.0)
    world.cut(client)
    world.wait(HUNG_S)
    assert state(world) is State.BACKOFF


def test_calls_of_a_hung_server_share_the_fate_of_others() -> None:
    """A hung server counts as dead: harmless calls are sent again to the next process."""
    world = at_rest()
    world.scripts["time"].annotations = {"echo": {"readOnlyHint": True}}
    process(world).say({"method": "notifications/tools/list_changed"})
    client = world.client()
    world.wait(HUNG_S - 10.0)
    id = client.call()
    world.scripts["time"].mute.clear()
    world.wait(11.0)
    assert world.spawned["time"] == 2
    process(world).reply(process(world).calls[0], "ok")
    assert client.result(id) == "ok"


def test_the_next_process_is_judged_by_itself() -> None:
    """What the old one left unanswered is forgotten with it."""
    world = at_rest(restart_sec=600.0)
    for number in range(1, 4):
        assert world.spawned["time"] == number
        world.wait(HUNG_S - 0.001)
        assert state(world) is State.READY
        world.wait(0.001)
        assert state(world) is State.BACKOFF
        world.scripts["time"].mute.clear()
        world.start()
        world.scripts["time"].mute = set(MUTE)


def test_a_broker_that_did_not_run_itself_hears_what_came_meanwhile() -> None:
    """Law 8: after a pause of the broker's own, an answer may wait in the pipe; it counts."""
    world = at_rest()
    world.wait(2 * WATCH_S)
    asked = process(world).got("ping")[-1]
    world.now += 1000.0
    world.run(world.engine.tick)
    assert state(world) is State.READY
    process(world).reply(asked, {})
    world.wait(WATCH_S)
    assert state(world) is State.READY


def test_a_server_that_is_being_ended_is_not_asked() -> None:
    """Nothing is written to a process that is on its way out."""
    world = at_rest()
    world.slow_to_end.add("time")
    world.stop()
    world.wait(1000.0)
    assert questions(world) == 0
    world.bury("time")
    assert world.engine.wake_at() is None


# --- servers that do not know the question -------------------------------------------------------------


def untried(**table: object) -> World:
    """A server of the older era that is mute when it is asked, and was never heard to answer."""
    world = World({"time": {"watchdog_sec": WATCH_S, **table}})
    world.scripts["time"].mute = {"ping"}
    world.start()
    return world


def test_a_server_that_ignores_the_question_is_not_taken_for_hung() -> None:
    """A check must not kill a healthy server, and must not be repeated without an end."""
    world = untried()
    client = world.client()
    for _ in range(5):
        world.wait(1000.0)
        assert (questions(world), state(world)) == (QUESTIONS, State.READY)
        client.call()
        process(world).reply(process(world).calls[-1], "ok")
        process(world).lines.clear()
    assert world.spawned["time"] == 1


def test_it_is_hung_when_a_call_has_run_out_of_time_too() -> None:
    """A server that answers neither calls nor checks gets the time of two checks after its last call."""
    world = untried(restart_sec=600.0)
    client = world.client()
    world.wait(1000.0)
    id = client.call()
    world.wait(30.0)
    assert client.fault(id).code == Code.DEADLINE
    world.wait(2 * WATCH_S)
    assert state(world) is State.READY
    world.wait(WATCH_S + GRACE_S)
    assert (state(world), questions_ever(world)) == (State.BACKOFF, 2 * QUESTIONS)


def questions_ever(world: World) -> int:
    """How often any process was asked."""
    return sum(len(one.got("ping")) for one in world.ever)


def test_a_line_after_that_call_clears_the_server() -> None:
    """A server that was slow once is not replaced."""
    world = untried()
    client = world.client()
    client.call()
    world.wait(45.0)
    process(world).reply(process(world).calls[0], "late")
    world.wait(10_000.0)
    assert (state(world), world.spawned["time"]) == (State.READY, 1)


def test_one_answer_is_enough_for_all_later_processes() -> None:
    """After one answer the server is known to answer: a later process that hangs from the start is found."""
    world = untried(restart_sec=600.0)
    world.wait(WATCH_S)
    process(world).reply(process(world).got("ping")[0], {})
    world.exit()
    world.start()
    world.wait(HUNG_S)
    assert state(world) is State.BACKOFF


def test_a_server_that_ends_at_the_question_is_not_asked_again() -> None:
    """Otherwise the server would die of its health checks, once in each `watchdog_sec`."""
    world = untried()
    world.wait(WATCH_S)
    assert questions(world) == 1
    world.exit()
    world.wait(10_000.0)
    assert (questions(world), state(world), world.spawned["time"]) == (0, State.READY, 2)


@pytest.mark.parametrize("end", ["stop", "restart", "hung"])
def test_an_end_that_the_broker_made_teaches_nothing(end: str) -> None:
    """Law 8: it did not end at the question."""
    world = untried()
    if end == "hung":
        world.client().call(timeout_ms=1000)
        world.wait(HUNG_S)
    else:
        world.wait(WATCH_S + 1)
        world.stop() if end == "stop" else world.restart()
    assert world.engine.servers["time"].answers_checks is None


# --- the automaton alone -----------------------------------------------------------------------------


@given(
    st.lists(st.tuples(spans(0.125, 100.0), st.sampled_from(["line", "late look", "nothing"])), max_size=60),
    spans(0.5, 100.0),
)
def test_whoever_speaks_within_the_watch_is_never_doubted(
    steps: list[tuple[float, str]], patience_s: float
) -> None:
    """Law 8: however late the broker looks, a server is hung only after two questions, each with its time."""
    health, now = Health(patience_s, answers=True, now=0.0), 0.0
    asked: list[float] = []
    for pause_s, what in steps:
        now += pause_s
        if what == "line":
            health.heard(now)
            asked.clear()
        elif what == "late look" or (health.wake_at is not None and health.wake_at <= now):
            verdict = health.look(now, lambda _: None)
            if verdict is HealthVerdict.ASK:
                asked.append(now)
            elif verdict is HealthVerdict.HUNG:
                assert len(asked) == QUESTIONS
                assert asked[1] - asked[0] >= patience_s
                assert now - asked[1] >= patience_s
                return


@given(spans(0.125, 1000.0), spans(0.0, 5000.0))
def test_a_hung_server_is_found_within_a_stated_time(patience_s: float, busy_s: float) -> None:
    """Within three times `watchdog_sec` after its last line, or two after its last excuse."""
    health, now = Health(patience_s, answers=True, now=0.0), 0.0
    while health.wake_at is not None:
        now = health.wake_at
        health.look(now, lambda _: busy_s if busy_s > now else None)  # noqa: B023 - called at once
    assert now <= max(3 * patience_s, busy_s + 2 * patience_s) + GRACE_S


def test_answers_are_known_by_their_ids_and_only_the_last_are_waited_for() -> None:
    """Law 6: one that talks, but never answers what it is asked, leaves no row behind for each question."""
    health = Health(1.0, answers=False, now=0.0)
    for id in range(1, 100):
        health.asked(id)
    assert [id for id in range(100) if health.answered(id)] == [98, 99]
    assert not any(health.answered(id) for id in (98, 99, "98", True, None))


# --- stopped processes -------------------------------------------------------------------------------


def test_a_process_is_replaced_when_it_is_found_stopped_twice_in_a_row() -> None:
    """Stopped once may be a debugger; stopped twice is SIGSTOP."""
    looks = Looks()
    assert [looks.saw(stopped=seen) for seen in (True, False, True, False, False)] == [False] * 5
    assert [looks.saw(stopped=True) for _ in range(LOOKS)] == [False] * (LOOKS - 1) + [True]


def test_the_watch_begins_when_the_server_is_ready() -> None:
    """A start has a deadline of its own."""
    world = World({"time": {"watchdog_sec": 1.0}})
    world.scripts["time"].mute = set(MUTE)
    world.start()
    world.wait(60.0)
    assert state(world) is State.HANDSHAKE
    assert [line["method"] for line in process(world).lines] == ["server/discover", "initialize"]
    assert ready().engine.servers["time"].health is not None
