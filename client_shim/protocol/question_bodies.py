"""Questions and answers as bodies, and the capabilities that a client declares for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client_shim.errors import InvalidReply
from client_shim.protocol import payload
from client_shim.questions import Question, QuestionRefused, RawQuestion
from client_shim.text import shown

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"

METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32601, -32602, -32603

_NEEDED = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
"""method → the capability that covers it"""


_TOOLS = ("tools", "toolChoice")


def capabilities_of(meta: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the capabilities that the `_meta` of a request declares."""
    declared = (meta or {}).get(CAPABILITIES)
    return declared if isinstance(declared, Mapping) else {}


def read(raw: RawQuestion) -> Question:
    """Return a question as plain data.

    Raises:
        QuestionRefused: its params are not JSON.
    """
    try:
        return Question(raw.server, raw.method, payload.decode("a question", raw.params))
    except InvalidReply:
        raise QuestionRefused(INVALID_PARAMS, "the params of the question cannot be decoded") from None


def check_covered(question: Question, capabilities: Mapping[str, Any]) -> None:
    """Check that the declared capabilities cover a question.

    Raises:
        QuestionRefused: they do not. The codes are those of MCP 2025-11-25.
    """
    name = _NEEDED.get(question.method)
    declared = None if name is None else capabilities.get(name)
    about = f"`{question.method}` of server {question.server!r}"
    if not isinstance(declared, Mapping):
        raise QuestionRefused(METHOD_NOT_FOUND, f"this client does not answer {about}")
    part = _part_of(question)
    is_default = part is None or (part == "form" and "url" not in declared)
    if not is_default and part not in declared:
        raise QuestionRefused(
            INVALID_PARAMS, f"{about} needs the capability `{name}.{part}`, which this client did not declare"
        )


def _part_of(question: Question) -> str | None:
    """Return the part of its capability that a question needs: the mode of an elicitation, or tools."""
    params = question.params if isinstance(question.params, dict) else {}
    if question.method == "elicitation/create":
        mode = params.get("mode", "form")
        return mode if isinstance(mode, str) else shown(mode, 20)
    has_tools = question.method == "sampling/createMessage" and not params.keys().isdisjoint(_TOOLS)
    return "tools" if has_tools else None


def checked_answer(question: Question, answer: object) -> Mapping[str, Any]:
    """Return the answer of a callback.

    Raises:
        TypeError: it is not an object.
    """
    if not isinstance(answer, Mapping):
        raise TypeError(
            f"the answer to `{question.method}` of server {question.server!r} must be an object, "
            f"and this is {shown(answer)}"
        )
    return answer


def checked_bytes(question: RawQuestion, answer: object) -> bytes:
    """Return the answer of a callback for raw questions.

    Raises:
        TypeError: it is not bytes.
    """
    if not isinstance(answer, bytes):
        raise TypeError(
            f"the answer to `{question.method}` of server {question.server!r} must be bytes, "
            f"and this is {shown(answer)}"
        )
    return answer


def answer_body(question: Question, answer: Mapping[str, Any]) -> bytes:
    """Return an answer as JSON; raise `InvalidRequest` with the path of what is not JSON."""
    about = f"the answer to `{question.method}` of server {question.server!r}"
    return payload.encode(about, dict(answer), "it")


def error_body(refused: QuestionRefused) -> bytes:
    """Return the JSON-RPC error object; raise `InvalidRequest` if its data is not JSON."""
    if refused.raw is not None:
        return refused.raw
    data = {} if refused.data is None else {"data": refused.data}
    return payload.encode("a refusal", {"code": refused.code, "message": refused.message, **data}, "it")


def not_answered(method: str) -> QuestionRefused:
    """Return the refusal of a client without a callback."""
    return QuestionRefused(METHOD_NOT_FOUND, f"this client does not answer {method}")


FAILED = error_body(QuestionRefused(INTERNAL_ERROR, "the client failed to answer the question"))
"""The answer in place of one that a callback did not give, or that cannot be sent."""
