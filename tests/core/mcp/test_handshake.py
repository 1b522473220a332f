"""The handshake: which era a server is of, found out by asking it."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.base.tolerances import Oddity, Tolerated
from broker.core.mcp.agreement import Agreed
from broker.core.mcp.handshake import (
    HANGS_S,
    MAX_REPLY_BYTES,
    NOISE_S,
    PROBE_S,
    START_UP_S,
    Ask,
    Failed,
    Handshake,
    Restart,
    Step,
    Tell,
)
from broker.core.mcp.jsonrpc import ServerReply
from broker.core.mcp.methods import LEGACY_VERSIONS, MODERN_VERSION, Era
from tests.core.spans import spans

START_S = 60.0
CLIENT = {"name": "mcp-broker", "version": "0.1.0"}
DISCOVER, INITIALIZE = "server/discover", "initialize"
DISCOVERED = {"supportedVersions": [MODERN_VERSION], "capabilities": {"tools": {}}}
INITIALIZED = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s"}}

Protocol = Literal["auto", "legacy", "2026-07-28"]


def handshake(protocol: Protocol = "auto", remembered: Era | None = None) -> Handshake:
    """A handshake with 60 s to start."""
    return Handshake(protocol, remembered, START_S, CLIENT)


def result(value: object) -> ServerReply:
    """A good reply."""
    return ServerReply(1, memoryview(json.dumps(value).encode()), None)


def error(code: object, message: object = "no", **data: object) -> ServerReply:
    """A bad reply."""
    body = {"code": code, "message": message, **({"data": data} if data else {})}
    return ServerReply(1, None, memoryview(json.dumps(body).encode()))


def words(steps: list[Step]) -> list[str]:
    """What is done, in short."""
    short = []
    for step in steps:
        if isinstance(step, Tolerated):
            continue
        if isinstance(step, Ask):
            short.append(f"ask {step.method}")
        elif isinstance(step, Tell):
            short.append(f"tell {step.method}")
        else:
            short.append(f"{step.era.value} {step.version}" if isinstance(step, Agreed) else "failed")
    return short


def why(steps: list[Step]) -> str:
    """Why it failed."""
    (step,) = steps
    assert isinstance(step, Failed)
    return step.reason


MODERN = [f"modern {MODERN_VERSION}"]
LEGACY = ["tell notifications/initialized", "legacy 2025-06-18"]


# --- the first question ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "remembered", "first", "probing"),
    [
        ("auto", None, DISCOVER, True),
        ("auto", Era.MODERN, DISCOVER, True),
        ("auto", Era.LEGACY, INITIALIZE, False),
        ("legacy", None, INITIALIZE, False),
        ("legacy", Era.MODERN, INITIALIZE, False),
        ("2026-07-28", None, DISCOVER, False),
        ("2026-07-28", Era.LEGACY, DISCOVER, False),
    ],
)
def test_the_first_question(protocol: Protocol, remembered: Era | None, first: str, probing: bool) -> None:
    """Section 5: the config's word, else what is remembered, else the probe: it may cost a process."""
    begun = handshake(protocol, remembered)
    assert not begun.probing
    (step,) = begun.start(0.0)
    assert isinstance(step, Ask)
    assert (step.method, step.modern) == (first, first == DISCOVER)
    assert begun.probing is probing
    assert (begun.wake_at is not None) is probing


def test_initialize_offers_the_newest_revision_and_nothing_that_the_broker_cannot_do() -> None:
    """Law 8: no capability, for behind the broker are many clients."""
    (step,) = handshake("legacy").start(0.0)
    assert isinstance(step, Ask)
    assert json.loads(step.body) == {
        "protocolVersion": LEGACY_VERSIONS[0],
        "capabilities": {},
        "clientInfo": CLIENT,
    }


# --- replies -----------------------------------------------------------------------------------------

Scenario = tuple[Protocol, list[tuple[str, ServerReply]], list[list[str]]]

SCENARIOS: dict[str, Scenario] = {
    "a modern server": ("auto", [(DISCOVER, result(DISCOVERED))], [MODERN]),
    "fixed as modern": ("2026-07-28", [(DISCOVER, result(DISCOVERED))], [MODERN]),
    "fixed as legacy": ("legacy", [(INITIALIZE, result(INITIALIZED))], [LEGACY]),
    "a dual-era server is used as a modern one": (
        "auto",
        [(DISCOVER, result({**DISCOVERED, "supportedVersions": ["2025-11-25", MODERN_VERSION]}))],
        [MODERN],
    ),
    "a newer server that speaks 2026 too": (
        "auto",
        [(DISCOVER, result({**DISCOVERED, "supportedVersions": ["2027-01-01", MODERN_VERSION]}))],
        [MODERN],
    ),
    "a server that discovers but speaks older revisions only": (
        "auto",
        [(DISCOVER, result({"supportedVersions": ["2025-11-25"]})), (INITIALIZE, result(INITIALIZED))],
        [["ask initialize"], LEGACY],
    ),
    "unsupported version, with an older one in its list": (
        "auto",
        [(DISCOVER, error(-32022, supported=["2025-06-18"])), (INITIALIZE, result(INITIALIZED))],
        [["ask initialize"], LEGACY],
    ),
    "unsupported version, with newer ones only": (
        "auto",
        [(DISCOVER, error(-32022, supported=["2027-01-01"])), (INITIALIZE, error(-32601))],
        [["ask initialize"], ["failed"]],
    ),
    "unsupported version, without a list": (
        "auto",
        [(DISCOVER, error(-32022)), (INITIALIZE, error(-32601))],
        [["ask initialize"], ["failed"]],
    ),
    "unsupported version, with garbage for a list": (
        "auto",
        [(DISCOVER, error(-32022, supported="2025-06-18")), (INITIALIZE, error(-32601))],
        [["ask initialize"], ["failed"]],
    ),
    "unsupported version, and fixed as modern": (
        "2026-07-28",
        [(DISCOVER, error(-32022, supported=["2025-06-18"]))],
        [["failed"]],
    ),
    "a modern server that misses a capability": (
        "auto",
        [(DISCOVER, error(-32021)), (INITIALIZE, error(-32601))],
        [["ask initialize"], ["failed"]],
    ),
    "a modern server that sees a mismatch": (
        "auto",
        [(DISCOVER, error(-32020)), (INITIALIZE, error(-32601))],
        [["ask initialize"], ["failed"]],
    ),
    "refused by a server that is fixed as modern": ("2026-07-28", [(DISCOVER, error(-32601))], [["failed"]]),
    "refused both": (
        "auto",
        [(DISCOVER, error(-32601)), (INITIALIZE, error(-32603))],
        [["ask initialize"], ["failed"]],
    ),
    "an unknown version from initialize": (
        "legacy",
        [(INITIALIZE, result({**INITIALIZED, "protocolVersion": "2023-01-01"}))],
        [["failed"]],
    ),
    "the modern version from initialize": (
        "legacy",
        [(INITIALIZE, result({**INITIALIZED, "protocolVersion": MODERN_VERSION}))],
        [["failed"]],
    ),
    **{
        f"an older server answers the probe with {code}": (
            "auto",
            [(DISCOVER, error(code)), (INITIALIZE, result(INITIALIZED))],
            [["ask initialize"], LEGACY],
        )
        for code in (-32601, -32602, -32000, -32600, -32603, 0, 1)
    },
    **{
        f"initialize agrees on {version}": (
            "legacy",
            [(INITIALIZE, result({"protocolVersion": version}))],
            [["tell notifications/initialized", f"legacy {version}"]],
        )
        for version in LEGACY_VERSIONS
    },
}


@pytest.mark.parametrize(("protocol", "replies", "steps"), SCENARIOS.values(), ids=SCENARIOS.keys())
def test_scenario(protocol: Protocol, replies: list[tuple[str, ServerReply]], steps: list[list[str]]) -> None:
    """Section 5 and the specification's *Backward Compatibility*, one row each."""
    begun = handshake(protocol)
    begun.start(0.0)
    assert [words(begun.reply(method, reply, 1.0)) for method, reply in replies] == steps
    assert not begun.probing


GARBAGE: list[object] = [
    None,
    5,
    "x",
    [],
    {},
    {"isError": True, "content": []},
    INITIALIZED,
    {"supportedVersions": None},
    {"supportedVersions": MODERN_VERSION},
    {"supportedVersions": [], "capabilities": {}},
    {"supportedVersions": [1], "capabilities": {}},
    {"supportedVersions": ["2027-01-01"], "capabilities": {}},
    {"supportedVersions": [MODERN_VERSION]},
    {"supportedVersions": [MODERN_VERSION], "capabilities": None},
    {"supportedVersions": [MODERN_VERSION, 5], "capabilities": {}},
]


@pytest.mark.parametrize("value", GARBAGE, ids=json.dumps)
def test_anything_but_a_well_formed_modern_answer_leads_to_initialize(value: object) -> None:
    """Only such an answer proves a modern server: older ones answer unknown methods with anything."""
    begun = handshake()
    begun.start(0.0)
    assert words(begun.reply(DISCOVER, result(value), 1.0)) == ["ask initialize"]
    assert words(begun.reply(INITIALIZE, result(INITIALIZED), 1.0)) == LEGACY


@pytest.mark.parametrize("value", GARBAGE[-3:], ids=json.dumps)
def test_a_modern_server_that_leaves_something_out_is_used_where_it_refuses_initialize(value: object) -> None:
    """It names the revision, and speaks no other."""
    begun = handshake()
    begun.start(0.0)
    begun.reply(DISCOVER, result(value), 1.0)
    assert words(begun.reply(INITIALIZE, error(-32601), 1.0)) == MODERN
    fixed = handshake("2026-07-28")
    fixed.start(0.0)
    assert words(fixed.reply(DISCOVER, result(value), 1.0)) == MODERN


@pytest.mark.parametrize("code", ["METHOD_NOT_FOUND", "-32601", -32601.0, None, True, [], 10**30])
@pytest.mark.parametrize("message", ["no", None, 5, {}])
def test_an_error_of_any_shape_leads_to_initialize(code: object, message: object) -> None:
    """What matters is that it is no."""
    begun = handshake()
    begun.start(0.0)
    assert words(begun.reply(DISCOVER, error(code, message), 1.0)) == ["ask initialize"]
    assert words(begun.refused(INITIALIZE, "broken", 1.0)) == ["failed"]


@pytest.mark.parametrize("value", [None, [], {}, {"protocolVersion": 5}, {"protocolVersion": None}])
def test_a_garbage_initialization_fails(value: object) -> None:
    """Law 8, for the older handshake; the reason names what was wrong, and what came."""
    begun = handshake("legacy")
    begun.start(0.0)
    reason = why(begun.reply(INITIALIZE, result(value), 1.0))
    assert INITIALIZE in reason
    assert json.dumps(value) in reason


@pytest.mark.parametrize("field", ["capabilities", "serverInfo", "instructions"])
@pytest.mark.parametrize("value", ["absent", None, 5, "x", [], True, {}], ids=repr)
def test_an_optional_field_costs_no_more_than_itself(field: str, value: object) -> None:
    """Null is absent, and what is of the wrong type is left out: PHP writes an empty object as []."""
    answer = {**INITIALIZED, field: value}
    if value == "absent":
        del answer[field]
    begun = handshake("legacy")
    begun.start(0.0)
    *_, agreed = begun.reply(INITIALIZE, result(answer), 1.0)
    assert isinstance(agreed, Agreed)
    good = isinstance(value, str) if field == "instructions" else isinstance(value, dict)
    assert agreed.ignored == (() if good or value in ("absent", None) else (field,))
    assert good or value == "absent" or field not in agreed.ignored or not getattr(agreed, _NAMES[field])


_NAMES = {"capabilities": "capabilities", "serverInfo": "server_info", "instructions": "instructions"}


def test_a_capability_that_is_null_is_absent() -> None:
    """Serializers that write every field."""
    begun = handshake("legacy")
    begun.start(0.0)
    answer = {**INITIALIZED, "capabilities": {"tools": {}, "prompts": None, "resources": []}}
    *_, agreed = begun.reply(INITIALIZE, result(answer), 1.0)
    assert isinstance(agreed, Agreed)
    assert agreed.capabilities == {"tools": {}, "resources": []}


def test_the_first_revision_of_all_is_accepted() -> None:
    """2024-10-07 differs in nothing that the broker uses, and the TypeScript SDK accepts it."""
    begun = handshake("legacy")
    begun.start(0.0)
    steps = begun.reply(INITIALIZE, result({**INITIALIZED, "protocolVersion": "2024-10-07"}), 1.0)
    assert words(steps) == ["tell notifications/initialized", "legacy 2024-10-07"]
    assert Tolerated(Oddity.OLD_VERSION, {"version": "2024-10-07"}) in steps


def test_a_remembered_verdict_that_fails_is_dropped_and_the_other_era_tried_at_once() -> None:
    """An update may have made another server of it."""
    begun = handshake(remembered=Era.LEGACY)
    begun.start(0.0)
    assert words(begun.reply(INITIALIZE, error(-32022), 1.0)) == ["ask server/discover"]
    assert not begun.probing  # an exit now is a failure: else it would be started again and again
    assert words(begun.reply(DISCOVER, result(DISCOVERED), 2.0)) == MODERN
    begun = handshake(remembered=Era.MODERN)
    begun.start(0.0)
    assert words(begun.reply(DISCOVER, error(-32601), 1.0)) == ["ask initialize"]
    assert words(begun.reply(INITIALIZE, result(INITIALIZED), 2.0)) == LEGACY


def test_what_a_server_says_of_itself_has_a_limit() -> None:
    """Laws 5 and 6: 30 MiB of capabilities held the broker up for seconds, and took 800 MiB of memory."""
    asked = handshake("legacy")
    asked.start(0.0)
    (failed,) = asked.reply(
        INITIALIZE, result({**INITIALIZED, "capabilities": {"x": "x" * MAX_REPLY_BYTES}}), 1.0
    )
    assert isinstance(failed, Failed)
    assert f"may be {MAX_REPLY_BYTES}" in failed.reason


def test_a_failure_says_what_the_server_said() -> None:
    """Law 10: its code and its words, and the versions of both sides."""
    begun = handshake("legacy")
    begun.start(0.0)
    assert why(begun.reply(INITIALIZE, error(-32603, "no licence"), 1.0)) == (
        "it refused initialize: no licence (-32603)"
    )
    begun = handshake()
    begun.start(0.0)
    begun.reply(DISCOVER, result({"supportedVersions": ["2027-01-01"], "capabilities": {}}), 1.0)
    reason = why(begun.reply(INITIALIZE, error(-32601, "gone"), 1.0))
    for part in ("it refused initialize: gone (-32601)", "2027-01-01", MODERN_VERSION):
        assert part in reason


def test_what_was_agreed_is_what_the_server_said() -> None:
    """Section 3: capabilities, info and instructions reach clients as they are."""
    info = {"name": "s", "x": [1]}
    begun = handshake()
    begun.start(0.0)
    (modern,) = begun.reply(
        DISCOVER,
        result({**DISCOVERED, "instructions": "今", "_meta": {"io.modelcontextprotocol/serverInfo": info}}),
        1.0,
    )
    assert modern == Agreed(Era.MODERN, MODERN_VERSION, {"tools": {}}, info, "今")
    begun = handshake("legacy")
    begun.start(0.0)
    _, legacy = begun.reply(INITIALIZE, result({**INITIALIZED, "serverInfo": info, "instructions": "i"}), 1.0)
    assert legacy == Agreed(Era.LEGACY, "2025-06-18", {"tools": {}}, info, "i")


# --- silence -----------------------------------------------------------------------------------------


def test_a_silent_probe_is_followed_by_initialize() -> None:
    """A server without any sign of life has the time to start, and that of the probe; then it is asked."""
    begun = handshake()
    begun.start(100.0)
    dues = [begun.wake_at]
    assert words(begun.timeout(106.0)) == ["ask initialize"]
    assert [*dues, begun.wake_at] == [100.0 + START_UP_S + PROBE_S, None]
    assert begun.probing  # it may have both in its pipe, and end at the first
    steps = begun.reply(INITIALIZE, result(INITIALIZED), 107.0)
    assert words(steps) == LEGACY
    assert Tolerated(Oddity.PROBE_UNANSWERED) in steps
    assert not begun.probing


def test_the_first_sign_of_life_starts_the_time_of_the_probe() -> None:
    """Output on either stream, or that it has read the probe."""
    for sign in (Handshake.heard, Handshake.taken):
        begun = handshake()
        begun.start(0.0)
        sign(begun, 1.0)
        assert begun.wake_at == 1.0 + PROBE_S
        sign(begun, 2.0)
        assert begun.wake_at == 1.0 + PROBE_S


def test_output_that_comes_late_does_not_lengthen_it() -> None:
    """It is the earlier of the two."""
    begun = handshake()
    begun.start(0.0)
    begun.heard(5.0)
    assert begun.wake_at == START_UP_S + PROBE_S


def test_a_line_that_is_no_message_shortens_it() -> None:
    """Perhaps it was the answer, perhaps a banner: to ask in the older way too does no harm."""
    begun = handshake()
    begun.start(0.0)
    begun.heard(1.0)
    begun.noise(1.0)
    assert begun.wake_at == 1.0 + NOISE_S


def test_a_server_that_the_probe_hangs_is_started_without_it() -> None:
    """Some answer nothing after a method that they do not know, though they read what follows."""
    begun = handshake()
    begun.start(0.0)
    begun.taken(0.1)
    assert words(begun.timeout(3.1)) == ["ask initialize"]
    dues = [begun.wake_at]
    begun.heard(5.0)  # it writes, so it is at work
    dues.append(begun.wake_at)
    hangs_s = min(HANGS_S, START_S / 4)
    assert dues == [3.1 + hangs_s, 5.0 + hangs_s]
    assert begun.timeout(5.0 + hangs_s) == [Restart()]


@pytest.mark.parametrize("code", [-32600, -32601, -32602])
def test_a_server_that_refuses_the_probe_and_ends_is_started_without_it(code: int) -> None:
    """Servers whose first message must be `initialize`: some refuse any other and end."""
    begun = handshake()
    begun.start(0.0)
    assert words(begun.reply(DISCOVER, error(code), 1.0)) == ["ask initialize"]
    assert begun.probing
    assert begun.wake_at is None  # to wait is no sign that the probe hung it: it may be loading
    assert (begun.probe_refused, handshake("legacy").probe_refused) == (True, False)
    assert words(begun.reply(INITIALIZE, result(INITIALIZED), 60.0)) == LEGACY
    assert not begun.probing


def test_a_server_that_has_read_nothing_is_not_started_again() -> None:
    """An `npx` that downloads its package has not, and would lose the download."""
    begun = handshake()
    begun.start(0.0)
    begun.heard(1.0)
    begun.timeout(4.0)
    begun.heard(5.0)
    assert begun.wake_at is None


@given(spans(0.125, 1000.0), spans(0.0, 1000.0))
def test_the_probe_leaves_time_for_initialize(start_s: float, heard: float) -> None:
    """Section 5: however short `timeout_start_sec` is, a quarter of it is left after the probe."""
    begun = Handshake("auto", None, start_s, CLIENT)
    begun.start(0.0)
    begun.heard(heard)
    assert begun.wake_at is not None
    assert begun.wake_at <= 0.75 * start_s


LATE: dict[str, tuple[list[tuple[str, ServerReply]], list[list[str]]]] = {
    "a late yes to the probe counts if it comes first": ([(DISCOVER, result(DISCOVERED))], [MODERN]),
    "a late no to the probe changes nothing": (
        [(DISCOVER, error(-32601)), (INITIALIZE, result(INITIALIZED))],
        [[], LEGACY],
    ),
    "a late answer with older revisions changes nothing": (
        [(DISCOVER, result({"supportedVersions": ["2025-06-18"]})), (INITIALIZE, result(INITIALIZED))],
        [[], LEGACY],
    ),
    "a no to initialize waits for the probe": (
        [(INITIALIZE, error(-32601)), (DISCOVER, result(DISCOVERED))],
        [[], MODERN],
    ),
    "a no to initialize, and then a no to the probe": (
        [(INITIALIZE, error(-32601)), (DISCOVER, error(-32022, supported=[]))],
        [[], ["failed"]],
    ),
}


@pytest.mark.parametrize(("replies", "steps"), LATE.values(), ids=LATE.keys())
def test_late_replies_after_the_fallback(
    replies: list[tuple[str, ServerReply]], steps: list[list[str]]
) -> None:
    """Section 5: after a fallback the first good reply counts."""
    begun = handshake()
    begun.start(0.0)
    begun.timeout(50.0)
    assert [words(begun.reply(method, reply, 1.0)) for method, reply in replies] == steps


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["code", "message", "data", "supported", "supportedVersions", "protocolVersion"]),
            inner,
        )
    ),
)


@given(st.sampled_from([DISCOVER, INITIALIZE]), json_values, st.booleans(), st.booleans())
def test_no_reply_raises(method: str, value: object, good: bool, fallen_back: bool) -> None:
    """Law 5: whatever JSON a server answers with, the handshake goes on or fails with a reason."""
    begun = handshake("auto" if method == DISCOVER or fallen_back else "legacy")
    begun.start(0.0)
    if fallen_back:
        begun.timeout(50.0)
    body = memoryview(json.dumps(value).encode())
    for step in begun.reply(method, ServerReply(1, body, None) if good else ServerReply(1, None, body), 1.0):
        assert not isinstance(step, Failed) or step.reason
