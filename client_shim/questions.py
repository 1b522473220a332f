"""Questions that a server asks its client before it goes on with a call: elicitation and sampling.

A client answers them with a callback, `on_question` of `BrokerClient`. docs/client.md says who is asked, and
where the callback runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple


class Question(NamedTuple):
    """A question of `server`, such as `elicitation/create`, with its params as plain data."""

    server: str
    method: str
    params: Any


class RawQuestion(NamedTuple):
    """The same with the params as the bytes that the server sent."""

    server: str
    method: str
    params: bytes


OnQuestion = Callable[[Question], "Awaitable[Mapping[str, Any]] | Mapping[str, Any]"]
OnRawQuestion = Callable[[RawQuestion], Awaitable[bytes]]


class QuestionRefused(Exception):
    """Raised by a callback that does not answer a question: the server gets a JSON-RPC error.

    Args:
        code: the code of the error; -1 is that of a person who said no.
        message: the reason, in words.
        data: the details, as plain data.
        raw: the whole error object in JSON, which is sent as it is in place of the others.
    """

    def __init__(self, code: int, message: str, data: Any = None, raw: bytes | None = None) -> None:
        super().__init__(code, message, data, raw)
        self.code = code
        self.message = message
        self.data = data
        self.raw = raw

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"
