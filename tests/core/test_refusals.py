"""The broker's own errors: whose fault, what it is about, what to do next; and short, whoever wrote what."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import msgpack
import pytest

from broker.base.secrets import redact
from broker.config.schema import ServerConfig
from broker.core import refusals
from broker.core.calls.dispatch import fault
from broker.core.calls.retry import NoRetry
from broker.core.calls.table import Call
from broker.core.refusals import Blame, Refusal
from broker.core.servers import availability
from broker.core.servers.backoff import Backoff
from broker.core.servers.lifecycle import Ending, Event, Lifecycle, State
from client_shim import wire
from client_shim.wire import Code

NASTY = "\x1b[31m\r\nx\0" * 20_000
"""What a client or server may put into any text that the broker quotes."""


def call(
    *, sent: bool = True, death: str = "it exited with status 1", no_retry: NoRetry | None = None
) -> Call:
    """A call on server "time"."""
    return Call(
        id=9,
        channel_key=(b"a", 1),
        connection=b"a",
        channel=1,
        client_id=1,
        server="time",
        method="tools/call",
        name="echo",
        body=b"",
        meta=None,
        wants_progress=False,
        extends=False,
        token=1,
        timeout_s=2.5,
        deadline=2.5,
        since=0.0,
        sent=sent,
        death=death,
        no_retry=no_retry,
    )


def lifecycle(*events: Event, reason: str = "it exited with status 1") -> Lifecycle:
    """A server that all this has happened to, at second 0."""
    backoff = Backoff(first_delay_s=4.0, burst=3, interval_s=60.0, rng=lambda: 0.5)
    server = Lifecycle(restart="always", start_s=90.0, backoff=backoff)
    for event in events:
        server.on(event, 0.0, Ending(reason) if event is Event.EXITED else None)
    return server


CRASHED = (Event.START, Event.SPAWNED, Event.EXITED, Event.GONE)

ALL: dict[str, tuple[Refusal, Code, Blame]] = {
    "unknown server": (refusals.unknown_server(NASTY, ["time"]), Code.UNKNOWN_SERVER, Blame.CALLER),
    "no server at all": (refusals.unknown_server("x", []), Code.UNKNOWN_SERVER, Blame.CALLER),
    "unknown tool": (refusals.unknown_tool("time", NASTY, [NASTY]), Code.UNKNOWN_TOOL, Blame.CALLER),
    "no tool at all": (refusals.unknown_tool("time", "", []), Code.UNKNOWN_TOOL, Blame.CALLER),
    "no list": (refusals.no_list("time", "prompts/list"), Code.UNKNOWN_METHOD, Blame.SERVER),
    "unknown method": (refusals.unknown_method("time", NASTY), Code.UNKNOWN_METHOD, Blame.CALLER),
    "refused method": (
        refusals.refused_method("time", "ping", "ask the broker instead"),
        Code.METHOD_REFUSED,
        Blame.CALLER,
    ),
    "disabled": (
        availability.does_not_run(ServerConfig(name="time", command="x", enabled=False)),
        Code.SERVER_DISABLED,
        Blame.OPERATOR,
    ),
    "misconfigured": (
        availability.does_not_run(
            ServerConfig(name="time", command="", faults=("servers.time.command: none",))
        ),
        Code.SERVER_DOWN,
        Blame.OPERATOR,
    ),
    "starting": (
        availability.not_ready("time", lifecycle(Event.START), 1.0),
        Code.SERVER_STARTING,
        Blame.SERVER,
    ),
    "down": (availability.not_ready("time", lifecycle(*CRASHED), 1.0), Code.SERVER_DOWN, Blame.SERVER),
    "down, and it said a lot": (
        availability.not_ready("time", lifecycle(*CRASHED, reason=NASTY), 1.0),
        Code.SERVER_DOWN,
        Blame.SERVER,
    ),
    "stopped": (availability.not_ready("time", lifecycle(), 1.0), Code.SERVER_DOWN, Blame.OPERATOR),
    "died": (refusals.died(call(death=NASTY), NoRetry.TOOL), Code.SERVER_DIED, Blame.SERVER),
    "deadline": (refusals.deadline(call(), 1), Code.DEADLINE, Blame.SERVER),
    "deadline in line": (refusals.deadline(call(sent=False), 32), Code.DEADLINE, Blame.SERVER),
    "busy": (refusals.busy("calls", 5), Code.BUSY, Blame.CALLER),
    "too large": (refusals.too_large(10, 5), Code.TOO_LARGE, Blame.CALLER),
    "invalid body": (
        refusals.invalid_body(Code.META_IN_BODY, f"the params have a `_meta`{NASTY}"),
        Code.META_IN_BODY,
        Blame.CALLER,
    ),
    "invalid params": (refusals.invalid_params("tools/list"), Code.INVALID_PARAMS, Blame.CALLER),
    "invalid reply": (refusals.invalid_reply(call(), NASTY), Code.INVALID_REPLY, Blame.SERVER),
    "cancelled": (refusals.cancelled(), Code.CANCELLED, Blame.CALLER),
    "shutting down": (refusals.shutting_down(), Code.SHUTTING_DOWN, Blame.OPERATOR),
    "wrong instance": (refusals.wrong_instance(NASTY, "i-1"), Code.WRONG_INSTANCE, Blame.CALLER),
    "protocol": (refusals.protocol(Code.MALFORMED, NASTY), Code.MALFORMED, Blame.CALLER),
    "not listening": (refusals.not_listening(NASTY), Code.INVALID_BODY, Blame.CALLER),
    "broken": (refusals.broken("it did not work"), Code.INTERNAL, Blame.BROKER),
}


@pytest.mark.parametrize(("refusal", "code", "blame"), ALL.values(), ids=ALL.keys())
def test_a_refusal_says_what_whose_fault_and_what_next(refusal: Refusal, code: Code, blame: Blame) -> None:
    """Law 10: code and blame for programs, message and hint for people."""
    assert (refusal.code, refusal.blame) == (code, blame)
    assert len(refusal.message) > 10
    assert len(refusal.hint) > 10
    assert refusal.data() == {"blame": blame.value, "hint": refusal.hint, **refusal.about}


@pytest.mark.parametrize("refusal", [row[0] for row in ALL.values()], ids=ALL.keys())
def test_a_refusal_travels_whatever_it_quotes(refusal: Refusal) -> None:
    """Law 6: bounded, and without control characters that would act on a terminal."""
    header = wire.encode(fault(1, 2, refusal, redact))
    assert len(header) < 4096
    assert wire.decode(header) == wire.Fault(
        1, 2, refusal.code.value, refusal.message, msgpack.unpackb(msgpack.packb(refusal.data()))
    )
    texts = [refusal.message, refusal.hint, *(str(value) for value in refusal.about.values())]
    assert all(text.isprintable() for text in texts)


def test_many_names_are_not_all_told() -> None:
    """Law 6: a server with thousands of tools has a short list in its errors."""
    refusal = refusals.unknown_tool("time", "x", [f"tool-{number:04}" for number in range(5000)])
    assert "tool-0019 and 4980 more" in refusal.message
    assert "tool-0020" not in refusal.message


def test_of_many_names_the_nearest_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 5: a client may ask for what is not there time and again, of a server with thousands of tools."""
    compared: list[str] = []
    plain = difflib.get_close_matches

    def get_close_matches(word: str, names: Sequence[str], n: int) -> list[str]:
        compared.extend(names)
        return plain(word, names, n)

    monkeypatch.setattr(difflib, "get_close_matches", get_close_matches)
    refusal = refusals.unknown_tool("time", "tool-4711x", [f"tool-{number:04}" for number in range(5000)])
    assert refusal.hint.startswith("did you mean tool-4711? ")
    assert len(compared) < 100


@pytest.mark.parametrize(
    ("refusal", "hint"),
    [
        (refusals.unknown_server("tmie", ["time", "notes"]), "did you mean time? "),
        (refusals.unknown_server("a/b", ["a-b", "a-b-c14cddc0"]), "did you mean a-b-c14cddc0? "),
        (refusals.unknown_tool("time", "get_time", ["get_tiem", "other"]), "did you mean get_tiem? "),
        (refusals.unknown_server("qqq", ["time"]), "add a [servers.NAME] table"),
    ],
)
def test_a_near_miss_is_named(refusal: Refusal, hint: str) -> None:
    """Law 10: a slip of the pen is the likeliest cause."""
    assert refusal.hint.startswith(hint)


def test_a_server_that_is_down_says_why_and_until_when() -> None:
    """Law 10: the cause is in the message, and a program can read when to come back."""
    down = availability.not_ready("time", lifecycle(*CRASHED), 1.0)
    assert "it exited with status 1" in down.message
    assert down.about == {"server": "time", "state": "backoff", "retry_after_s": 3.0}
    assert "again in 3 s" in down.hint


def test_a_server_that_starts_anew_after_a_crash_is_down() -> None:
    """Law 10: "still starting" would hide that it failed before."""
    again = lifecycle(*CRASHED, Event.TIMEOUT)
    assert again.state is State.STARTING
    refusal = availability.not_ready("time", again, 1.0)
    assert refusal.code is Code.SERVER_DOWN
    assert "retry_after_s" not in refusal.about


def test_a_server_that_died_leaves_the_outcome_open() -> None:
    """Law 8: whether the call took effect cannot be known, so it is not said."""
    refusal = refusals.died(call(no_retry=NoRetry.TOOL), NoRetry.TOOL)
    assert refusal.about["outcome"] == "unknown"
    assert "unknown" in refusal.hint


@pytest.mark.parametrize("why", NoRetry)
def test_a_call_that_is_not_sent_again_says_why(why: NoRetry) -> None:
    """Law 10: and that it may be repeated, where that does no harm and will not end the server once more."""
    harmless = why in (NoRetry.STOPPED, NoRetry.LATE)
    refusal = refusals.died(call(no_retry=None if harmless or why is NoRetry.TWICE else why), why)
    assert f"not sent again, because {why.words}; " in refusal.hint
    assert ("safe to repeat" in refusal.hint) is harmless
    assert refusal.about["not_sent_again"] == why.value


def test_a_deadline_in_line_is_another_than_one_at_the_server() -> None:
    """Law 10: the one asks for a longer time, the other for more calls at once."""
    assert "max_in_flight" in refusals.deadline(call(sent=False), 32).hint
    assert "cancelled there" in refusals.deadline(call(), 32).hint


def test_busy_names_the_limit_and_when_to_come_back() -> None:
    """Law 6: every limit is named by its key."""
    refusal = refusals.busy("calls_per_channel", 1024)
    assert "limits.calls_per_channel is 1024" in refusal.message
    assert refusal.about == {"limit": "calls_per_channel", "value": 1024, "retry_after_s": 1.0}


def test_every_code_is_used_by_a_refusal_or_by_a_frame() -> None:
    """Section 3: no code of the protocol is there for nothing."""
    frames = {
        *(Code.UNKNOWN_KIND, Code.WIRE_VERSION, Code.HELLO_FIRST, Code.DUPLICATE_ID, Code.INVALID_BODY),
    }
    assert {code for _, code, _ in ALL.values()} | frames == set(Code)
