"""What a conversation tells its shell to do, and how the shell says that a call ended."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

RequestId = bytes
"""The id of a client's request as JSON text, such as `1` or `"a"`: `jsonrpc.ClientRequest.id`."""


class SendMessage(Struct, frozen=True):
    """Write a message to the client.

    `belongs_to` is the request on whose stream the message goes; `None`: it goes to whatever stream listens
    to messages of no request (the pipe, a GET stream), and is dropped where no stream does.
    """

    message: bytes
    """One JSON-RPC message on one line, without the line end."""
    belongs_to: RequestId | None = None
    code: int | None = None
    """The code of a JSON-RPC error that answers a request; `None` for every other message."""


class FinishRequest(Struct, frozen=True):
    """The stream of a request has its last message: of an answered request, or, without one, of a cancelled.

    It comes exactly once for each request that the conversation took in.
    """

    request: RequestId


class MakeCall(Struct, frozen=True):
    """Make a request to the broker, for the server of the conversation. `call` numbers it, from 1 up.

    `timeout_s` of `None` leaves the deadline to the configuration of the server.
    """

    call: int
    method: str
    params: bytes | None = None
    meta: dict[str, Any] | None = None
    timeout_s: float | None = None
    wants_progress: bool = False
    wants_log: bool = False
    takes_questions: bool = False
    """Whether the server may ask the client during the call."""


class CancelCall(Struct, frozen=True):
    """Cancel a call. Nothing that is still said about it is of interest."""

    call: int
    reason: str | None = None


class ListenTo(Struct, frozen=True):
    """Hear from now on of the server's lists, and of these resources, in place of what was heard before.

    The outcome of the call `call` is the broker's answer to `listen`.
    """

    call: int
    lists: bool
    uris: frozenset[str]
    is_awaited: bool = False
    """Whether a request waits for the outcome. Otherwise it is repeated until a broker has answered."""


class AnswerQuestion(Struct, frozen=True):
    """Answer a question of the server about a call: with a result, or with an error object if not `ok`."""

    call: int
    question: int
    ok: bool
    body: bytes


class CollectQuestions(Struct, frozen=True):
    """Call `collected` a moment later: the server may ask more than one question at once."""

    call: int


class ParkCall(Struct, frozen=True):
    """The call goes on without a request. What happens to it concerns the parked calls, under this number."""

    call: int
    parked: int


class ResumeCall(Struct, frozen=True):
    """A parked call belongs to this conversation, under the number `call`."""

    parked: int
    call: int


Effect = (
    SendMessage
    | FinishRequest
    | MakeCall
    | CancelCall
    | ListenTo
    | AnswerQuestion
    | CollectQuestions
    | ParkCall
    | ResumeCall
)


class ServerResult(Struct, frozen=True):
    """A call ended with a result: the bytes that the server sent."""

    body: bytes


class ServerRefusal(Struct, frozen=True):
    """A call ended with a JSON-RPC error of the server: the error object in the bytes that it came in."""

    body: bytes


class BrokerFault(Struct, frozen=True):
    """The broker ended a call, or could not be reached. `code` is one of the broker's (docs/messages.md)."""

    code: str
    message: str
    hint: str = ""
    data: dict[str, Any] = {}


Outcome = ServerResult | ServerRefusal | BrokerFault
