"""Which questions the declared capabilities cover, and questions and answers as bodies."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from client_shim import Question, QuestionRefused, RawQuestion, errors
from client_shim.protocol import question_bodies
from client_shim.protocol.question_bodies import INVALID_PARAMS, METHOD_NOT_FOUND

ELICIT, SAMPLE, ROOTS = "elicitation/create", "sampling/createMessage", "roots/list"
FORM: dict[str, Any] = {"form": {}}
URL: dict[str, Any] = {"url": {}}
BOTH = {**FORM, **URL}


@pytest.mark.parametrize(
    ("capabilities", "method", "params", "code"),
    [
        ({}, ELICIT, {}, METHOD_NOT_FOUND),
        ({"elicitation": True}, ELICIT, {}, METHOD_NOT_FOUND),
        ({"elicitation": {}}, ELICIT, {}, None),
        ({"elicitation": {}}, ELICIT, {"mode": "form"}, None),
        ({"elicitation": {}}, ELICIT, {"mode": "url"}, INVALID_PARAMS),
        ({"elicitation": {}}, ELICIT, {"mode": 1}, INVALID_PARAMS),
        ({"elicitation": {}}, ELICIT, {"mode": ["form"]}, INVALID_PARAMS),
        ({"elicitation": {}}, ELICIT, None, None),
        ({"elicitation": FORM}, ELICIT, {}, None),
        ({"elicitation": FORM}, ELICIT, {"mode": "url"}, INVALID_PARAMS),
        ({"elicitation": URL}, ELICIT, {}, INVALID_PARAMS),
        ({"elicitation": URL}, ELICIT, {"mode": "url"}, None),
        ({"elicitation": BOTH}, ELICIT, {"mode": "url"}, None),
        ({"elicitation": BOTH}, ELICIT, {"mode": "form"}, None),
        ({"elicitation": {}}, SAMPLE, {}, METHOD_NOT_FOUND),
        ({"sampling": {}}, SAMPLE, {}, None),
        ({"sampling": {}}, SAMPLE, {"tools": []}, INVALID_PARAMS),
        ({"sampling": {}}, SAMPLE, {"toolChoice": {}}, INVALID_PARAMS),
        ({"sampling": {"tools": {}}}, SAMPLE, {"tools": []}, None),
        ({"elicitation": {}}, ROOTS, {}, METHOD_NOT_FOUND),
        ({"roots": {}}, ROOTS, {}, None),
        ({"x": {}}, "x/y", {}, METHOD_NOT_FOUND),
    ],
)
def test_the_declared_capabilities_cover_a_question(
    capabilities: dict[str, Any], method: str, params: Any, code: int | None
) -> None:
    """MCP 2025-11-25 names the codes. An empty `elicitation` is one for forms."""
    question = Question("s", method, params)
    if code is None:
        question_bodies.check_covered(question, capabilities)
        return
    with pytest.raises(QuestionRefused) as refused:
        question_bodies.check_covered(question, capabilities)
    assert refused.value.code == code
    assert method in refused.value.message


@pytest.mark.parametrize("meta", [None, {}, {question_bodies.CAPABILITIES: "all"}])
def test_without_a_declaration_there_are_no_capabilities(meta: dict[str, Any] | None) -> None:
    """Or with one that is no object."""
    assert question_bodies.capabilities_of(meta) == {}


@pytest.mark.parametrize("params", [b"", b"{", b"\xff", b"[" * 100_000])
def test_params_that_cannot_be_decoded_are_refused(params: bytes) -> None:
    """No callback has to deal with them."""
    with pytest.raises(QuestionRefused) as refused:
        question_bodies.read(RawQuestion("s", ELICIT, params))
    assert refused.value.code == INVALID_PARAMS


def test_an_answer_names_what_is_not_json() -> None:
    """Law 10: with the path."""
    with pytest.raises(errors.InvalidRequest, match=r"it\.content\.size"):
        question_bodies.answer_body(Question("s", ELICIT, {}), {"content": {"size": {1}}})


def test_a_refusal_can_be_read_and_pickled() -> None:
    """As the errors of this package."""
    refused = QuestionRefused(-1, "no", {"n": 1}, b"{}")
    again = pickle.loads(pickle.dumps(refused))
    assert (again.code, again.message, again.data, again.raw) == (-1, "no", {"n": 1}, b"{}")
    assert str(refused) == "no (-1)"
    assert json.loads(question_bodies.FAILED)["code"] == -32603
