"""The header rules of Streamable HTTP in both eras, as the specification's tables have them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.http import headers as rules
from broker.gateway.http.headers import Headers, Param, encoded
from broker.gateway.http.refusals import HEADER_MISMATCH, Refused

BOTH = ("application/json", "text/event-stream")


def made(**values: str) -> Headers:
    return Headers(
        (name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in values.items()
    )


@pytest.mark.parametrize(
    ("accept", "fine"),
    [
        ("application/json, text/event-stream", True),
        ("text/event-stream,application/json;q=0.9", True),
        ("*/*", True),
        ("application/*, text/*", True),
        ("APPLICATION/JSON, text/Event-Stream", True),
        ("application/json", False),
        ("text/event-stream", False),
        ("application/json, text/event-stream;q=0", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_a_client_has_to_take_both_kinds_of_answers(accept: str, fine: bool) -> None:
    """2025-11-25, "Sending Messages to the Server", rule 2."""
    if fine:
        rules.check_accept(made(accept=accept), *BOTH)
        return
    with pytest.raises(Refused) as refused:
        rules.check_accept(made(accept=accept), *BOTH)
    assert refused.value.status == 406


def test_a_client_that_says_nothing_takes_everything() -> None:
    """RFC 9110, section 12.5.1."""
    rules.check_accept(Headers([]), *BOTH)


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_a_body_is_json(kind: str) -> None:
    rules.check_content_type(made(content_type=kind))


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_body_is_refused(kind: str) -> None:
    """A page of a browser can send these without asking first (CORS): they never reach a server."""
    with pytest.raises(Refused) as refused:
        rules.check_content_type(made(content_type=kind) if kind else Headers([]))
    assert refused.value.status == 415


def test_a_header_that_is_there_twice_is_refused() -> None:
    """2026-07-28, "Server Validation": different components must not rely on different values."""
    with pytest.raises(Refused, match="2 times"):
        Headers([(b"mcp-method", b"a"), (b"mcp-method", b"b")]).get("mcp-method")


def _standard(method: str, params: dict[str, Any], **values: str) -> None:
    rules.check_standard(made(**values), method, params)


@pytest.mark.parametrize(
    ("method", "params", "values"),
    [
        ("tools/list", {}, {"mcp_method": "tools/list"}),
        ("tools/call", {"name": "a"}, {"mcp_method": "tools/call", "mcp_name": "a"}),
        ("prompts/get", {"name": "a b"}, {"mcp_method": "prompts/get", "mcp_name": " a b "}),
        ("resources/read", {"uri": "x://y"}, {"mcp_method": "resources/read", "mcp_name": "x://y"}),
        ("tools/call", {"name": "世"}, {"mcp_method": "tools/call", "mcp_name": "=?base64?5LiW?="}),
        (
            "tools/list",
            {"name": "a"},
            {"mcp_method": "tools/list", "mcp_name": "b"},
        ),  # no header for this one
    ],
)
def test_headers_that_say_what_the_body_says_pass(method: str, params: Any, values: Any) -> None:
    """2026-07-28, "Standard Request Headers"."""
    _standard(method, params, **values)


@pytest.mark.parametrize(
    ("method", "params", "values"),
    [
        ("tools/list", {}, {}),
        ("tools/list", {}, {"mcp_method": "tools/call"}),
        ("tools/list", {}, {"mcp_method": "Tools/List"}),  # values are case-sensitive
        ("tools/call", {"name": "a"}, {"mcp_method": "tools/call"}),
        ("tools/call", {"name": "a"}, {"mcp_method": "tools/call", "mcp_name": "b"}),
        (
            "tools/call",
            {"name": "世"},
            {"mcp_method": "tools/call", "mcp_name": "世".encode().decode("latin-1")},
        ),
        (
            "tools/call",
            {"name": "a"},
            {"mcp_method": "tools/call", "mcp_name": "=?base64?YQ?="},
        ),  # no padding
        ("tools/call", {"name": "a"}, {"mcp_method": "tools/call", "mcp_name": "=?base64?Y*==?="}),
        ("tools/call", {"name": "a"}, {"mcp_method": "tools/call", "mcp_name": "=?BASE64?YQ==?="}),
        ("resources/read", {"uri": "x"}, {"mcp_method": "resources/read", "mcp_name": "y"}),
    ],
)
def test_headers_that_say_something_else_are_a_mismatch(method: str, params: Any, values: Any) -> None:
    """2026-07-28, "Server Validation": HTTP 400 and -32020."""
    with pytest.raises(Refused) as refused:
        _standard(method, params, **values)
    assert (refused.value.status, refused.value.code) == (400, HEADER_MISMATCH)


@given(st.text())
def test_every_text_fits_in_a_header(text: str) -> None:
    """2026-07-28, "Value Encoding": what is encoded is visible ASCII, and decodes to the same."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate has no UTF-8
    value = encoded(text)
    assert value.isascii()
    assert value == value.strip(" \t")
    assert rules.decoded(value, "x") == text


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
    ],
)
def test_the_encoding_examples_of_the_specification(value: str, header: str) -> None:
    assert encoded(value) == header


def _schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_annotated_parameters_are_found_below_properties_only() -> None:
    """2026-07-28, "Schema Extension"."""
    schema = _schema(
        region={"type": "string", "x-mcp-header": "Region"},
        inner=_schema(count={"type": "integer", "x-mcp-header": "Count"}),
    )
    found = (Param("Region", ("region",), False), Param("Count", ("inner", "count"), True))
    assert rules.params_of(schema) == found


@pytest.mark.parametrize(
    "schema",
    [
        _schema(a={"type": "string", "x-mcp-header": ""}),
        _schema(a={"type": "string", "x-mcp-header": "My Region"}),
        _schema(a={"type": "string", "x-mcp-header": "a\r\nb"}),
        _schema(a={"type": "string", "x-mcp-header": "Région"}),
        _schema(a={"type": "number", "x-mcp-header": "A"}),
        _schema(a={"type": "object", "x-mcp-header": "A"}),
        _schema(a={"type": "string", "x-mcp-header": "A"}, b={"type": "string", "x-mcp-header": "a"}),
        _schema(a={"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}),
        _schema(a={"anyOf": [{"type": "string", "x-mcp-header": "A"}]}),
        {"oneOf": [_schema(a={"type": "string", "x-mcp-header": "A"})]},
        {"$defs": {"x": {"type": "string", "x-mcp-header": "A"}}},
        "no schema",
        None,
    ],
)
def test_an_invalid_annotation_makes_the_tool_one_without(schema: Any) -> None:
    assert rules.params_of(schema) == ()


def test_a_property_of_that_name_is_no_annotation() -> None:
    schema = _schema(**{"x-mcp-header": {"type": "string"}, "a": {"type": "string", "x-mcp-header": "A"}})
    assert rules.params_of(schema) == (Param("A", ("a",), False),)


NUMBER = Param("N", ("n",), True)
TEXT = Param("T", ("o", "t"), False)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"n": 42}, {"mcp_param_n": "42"}),
        ({"n": 42}, {"mcp_param_n": "42.0"}),
        ({"n": 42.0}, {"mcp_param_n": "42"}),
        ({"n": -7}, {"mcp_param_n": "-7"}),
        ({"n": None}, {}),
        ({}, {}),
        ({"o": {"t": "x"}}, {"mcp_param_t": "x"}),
        ({"o": {"t": "x"}}, {"mcp_param_t": "=?base64?eA==?="}),
        ({"o": {"t": True}}, {"mcp_param_t": "true"}),
        ({"o": 7}, {}),
        ({}, {"mcp_param_unknown": "é"}),  # not recognized: ignored
        ("no object", {}),
    ],
)
def test_parameters_that_are_repeated_right_pass(arguments: Any, values: dict[str, str]) -> None:
    """2026-07-28, "Server Behavior for Custom Headers"; integers are compared as numbers."""
    rules.check_params(made(**values), (NUMBER, TEXT), arguments)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"n": 42}, {}),
        ({"n": 42}, {"mcp_param_n": "43"}),
        ({"n": 40}, {"mcp_param_n": "4e1"}),
        ({"n": 2**53}, {"mcp_param_n": str(2**53)}),
        ({}, {"mcp_param_n": "42"}),
        ({"n": None}, {"mcp_param_n": "42"}),
        ({"o": {"t": "true"}}, {"mcp_param_t": "True"}),
        ({"o": {"t": ["x"]}}, {"mcp_param_t": "x"}),
        ({"o": {"t": "x"}}, {"mcp_param_t": "=?base64?eA?="}),
        ({"o": {"t": "é"}}, {"mcp_param_t": "é"}),
    ],
)
def test_parameters_that_are_repeated_wrong_are_a_mismatch(arguments: Any, values: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        rules.check_params(made(**values), (NUMBER, TEXT), arguments)
    assert (refused.value.status, refused.value.code) == (400, HEADER_MISMATCH)


def test_the_version_in_header_and_body_is_one() -> None:
    """2026-07-28, "Protocol Version Header"."""
    rules.check_version(made(mcp_protocol_version="2026-07-28"), "2026-07-28")
    for values in ({}, {"mcp_protocol_version": "2025-11-25"}):
        with pytest.raises(Refused) as refused:
            rules.check_version(made(**values), "2026-07-28")
        assert refused.value.code == HEADER_MISMATCH


def test_a_session_id_is_visible_ascii() -> None:
    """2025-11-25, "Session Management", rule 1."""
    assert rules.session_id(made(mcp_session_id="abc.DEF~")) == "abc.DEF~"
    assert rules.session_id(Headers([])) is None
    for value in ("a b", "a\x00b", "é"):
        with pytest.raises(Refused):
            rules.session_id(made(mcp_session_id=value))
