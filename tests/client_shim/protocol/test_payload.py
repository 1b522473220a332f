"""Plain data in and out: what is refused before it is sent, what comes back, and that errors travel."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_shim import errors
from client_shim.protocol import payload
from client_shim.results import CallResult, Content, PromptResult, Tool
from client_shim.wire import MANAGEMENT, WANTS_PROGRESS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
ERRORS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BrokerError)
]


# --- what goes out -------------------------------------------------------------------------------------


@given(st.dictionaries(st.text().filter(lambda key: key != "_meta"), JSON))
def test_params_go_out_as_the_json_that_they_are(params: dict[str, Any]) -> None:
    """Law 7: what a server reads is what the caller said."""
    body = payload.prepare("s", "m", params).body
    assert body is not None
    assert json.loads(body) == params


def test_no_params_have_no_body() -> None:
    """`None` and `{}` are two things, and servers tell them apart."""
    assert payload.prepare("s", "m", None).body is None
    assert payload.prepare("s", "m", {}).body == b"{}"


def test_meta_is_lifted_out_of_the_params() -> None:
    """Law 7: it travels in the header. A body with a top-level `_meta` would be refused."""
    params = {"_meta": {"k": 1}, "inner": {"_meta": 2}}
    ask = payload.prepare("s", "m", params, flags=WANTS_PROGRESS)
    assert (ask.meta, ask.body, ask.flags) == ({"k": 1}, b'{"inner":{"_meta":2}}', WANTS_PROGRESS)
    assert "_meta" in params, "the caller's own dict is left alone"
    with pytest.raises(errors.InvalidRequest, match="twice"):
        payload.prepare("s", "m", params, meta={})


@given(
    st.dictionaries(st.text() | st.sampled_from(["a", "b"]), JSON | st.text(st.characters(max_codepoint=127)))
)
def test_meta_goes_out_as_a_copy_of_the_json_that_it_is(meta: dict[str, Any]) -> None:
    """Law 7. What the caller changes while the call waits for a broker does not change the call."""
    sent = payload.prepare_raw("s", "m", None, meta=meta).meta
    assert sent == json.loads(json.dumps(meta))
    given_before = copy.deepcopy(meta)
    for inner in (one for one in (sent or {}).values() if isinstance(one, dict)):
        inner["added"] = 1
    assert meta == given_before


@pytest.mark.parametrize("value", [float("nan"), "\ud800", b"raw", {"\ud800": None}, {"x": {1, 2}}])
def test_meta_that_is_no_json_is_refused(value: object) -> None:
    """Law 10."""
    with pytest.raises(errors.InvalidRequest, match="_meta"):
        payload.prepare_raw("s", "m", None, meta={"a": {"b": value}})


def test_meta_of_any_depth_is_copied_or_refused() -> None:
    """Law 6. The broker refuses what is nested too deeply."""
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"in": deep}
    assert payload.prepare_raw("s", "m", None, meta=deep).meta == deep
    endless: dict[str, Any] = {}
    endless["in"] = endless
    with pytest.raises(errors.InvalidRequest, match="_meta"):
        payload.prepare_raw("s", "m", None, meta=endless)


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "params.a[1].b is nan"),
        (float("-inf"), "params.a[1].b is -inf"),
        ("\ud800", "params.a[1].b has a lone surrogate"),
        (b"raw", "params.a[1].b is of type bytes"),
        ({1, 2}, "params.a[1].b is of type set"),
        ({(1, 2): 3}, "params.a[1].b has the key (1, 2)"),
        (ENDLESS, "params is nested without end"),
    ],
)
def test_what_is_no_json_is_named_and_not_sent(value: object, problem: str) -> None:
    """Law 10: the caller learns which value it is."""
    with pytest.raises(errors.InvalidRequest) as refusal:
        payload.prepare("time", "tools/call", {"name": "now", "a": [0, {"b": value}]})
    assert problem in str(refusal.value)
    assert "tool 'now' of server 'time'" in str(refusal.value)
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize("params", [[1], "text", 7])
def test_params_are_an_object(params: Any) -> None:
    """As MCP has it."""
    with pytest.raises(errors.InvalidRequest, match="must be an object"):
        payload.prepare("s", "m", params)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_a_positive_number(timeout_s: float) -> None:
    """0 is not "none" here, and the caller must not find that out by waiting."""
    with pytest.raises(errors.InvalidRequest, match="timeout"):
        payload.prepare("s", "m", None, timeout_s=timeout_s)


def test_errors_call_a_request_by_what_the_reader_knows() -> None:
    """Law 10: the tool, the server, or the broker itself."""
    assert payload.prepare("time", "tools/call", {"name": "now"}).subject == "tool 'now' of server 'time'"
    assert payload.prepare("time", "tools/list", None).subject == "`tools/list` of server 'time'"
    assert payload.prepare(MANAGEMENT, "status", None).subject == "`status` of the broker"


# --- what comes back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'"\xed\xa0\x80"', b"{}{}", b"[" * 200_000])
def test_a_result_that_is_no_json_is_an_invalid_reply(body: bytes) -> None:
    """Law 2: the call ends with an error of its own, whatever came."""
    with pytest.raises(errors.InvalidReply, match="s0"):
        payload.decode("`m` of server 's0'", body)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_progress_that_cannot_be_read_is_no_progress(body: bytes) -> None:
    """A server's slip in a notification must not break the call."""
    progress = payload.progress(body)
    assert progress is None or isinstance(progress.progress, (int, float))


def test_a_result_has_its_fields_by_both_spellings_and_all_that_was_sent() -> None:
    """`.inputSchema` / `.input_schema`; unknown fields are kept."""
    raw = {"name": "now", "inputSchema": {"type": "object"}, "x-new": [1], "_meta": {"k": 1}}
    tool = Tool(raw)
    assert tool.input_schema is tool.inputSchema is raw["inputSchema"]
    assert (tool.name, tool.description, tool.output_schema, tool.meta) == ("now", None, None, {"k": 1})
    assert tool["x-new"] == [1]
    assert tool.model_dump(mode="json", exclude_none=True) == raw
    with pytest.raises(AttributeError, match="nope"):
        _ = tool.nope
    assert pickle.loads(pickle.dumps(tool)) == copy.deepcopy(tool) == tool


def test_the_items_of_a_result_are_objects_too() -> None:
    """`result.content[0].text`, as with the SDK's models."""
    image = {"type": "image", "data": "AA==", "mimeType": "image/png"}
    linked = {"type": "resource", "resource": {"uri": "note://x", "text": "hello"}}
    result = CallResult({"content": [image, linked], "structuredContent": {"a": 1}, "isError": True})
    assert result.content[0] == Content(image)
    assert (result.content[0].mime_type, result.content[0].text) == ("image/png", None)
    assert result.content[1].resource is not None
    assert result.content[1].resource.text == "hello"
    assert (result.is_error, result.structured_content) == (True, {"a": 1})
    assert CallResult({}).content == []
    prompt = PromptResult({"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}]})
    assert prompt.messages[0].content.text == "hi"


@pytest.mark.parametrize(
    ("said", "failed"),
    [
        *[(True, True), (1, True), ("true", True), ("yes", True), ("it failed", True)],
        *[(False, False), (None, False), (0, False), ("false", False), ("False", False), ("no", False)],
        *[("0", False), ({}, False)],
    ],
)
def test_a_failure_is_told_however_it_is_written(said: object, failed: bool) -> None:
    """Some servers write booleans as strings; the official SDK reads them as this does."""
    assert CallResult({"content": [], "isError": said}).is_error is failed


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_survives_pickling_and_copying(kind: type[errors.BrokerError]) -> None:
    """Backends hand errors from process to process; half of these are `OSError`s, which pickle otherwise."""
    error = kind("it broke", hint="mend it", data={"code": 1, "message": "m", "sent": False})
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert repr(twin) == repr(error)
        assert str(twin) == "it broke; mend it"
        assert twin.outcome_unknown == error.outcome_unknown


def test_the_errors_are_also_what_callers_catch_already() -> None:
    """`ConnectionError` is caught, and so is what `asyncio.wait_for` raises."""
    assert all(issubclass(kind, ConnectionError) for kind in ERRORS if issubclass(kind, errors.Unavailable))
    assert issubclass(errors.NotAllowed, PermissionError)
    assert issubclass(errors.DeadlineExceeded, TimeoutError)
    assert issubclass(errors.InvalidRequest, ValueError)
