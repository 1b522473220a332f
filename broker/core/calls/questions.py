"""Questions of legacy servers to clients: elicitation and sampling.

Nothing in a question names the call that it belongs to. The operator may declare that a server asks only
while it works on a call (`asks_within_calls`). Then a question belongs to a call if it can belong to no other
one. Any other question is refused.

A question that no call can explain proves the declaration wrong: from then on every question of that process
is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from msgspec import Struct

from broker.base.metrics import Counters
from broker.core.calls.retry import NoRetry
from broker.core.calls.table import Call, CallTable
from broker.core.clients.connections import Connections
from broker.core.effects import Effects, Level, Write
from broker.core.mcp import jsonrpc
from broker.core.mcp.jsonrpc import BodyError, Id, ServerRequest
from broker.core.mcp.meta import CAPABILITIES
from broker.core.servers.server import Server
from client_shim import wire

METHODS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling"}
"""The methods of the questions that reach a client, and the capability that each requires."""

MAX_QUESTIONS = 32
"""The number of questions of one server that may be open at once."""

MAX_QUESTION_BYTES = 1024 * 1024
"""The largest params of a question."""

MAX_ANSWER_BYTES = 1024 * 1024
"""The largest answer to a question: it is checked in one piece."""


class Unanswered(str, Enum):
    """The reasons why a question reaches no client. The server is told the words."""

    NOT_DECLARED = "not-declared"
    NO_ROOTS = "no-roots"
    PROVED_WRONG = "proved-wrong"
    NO_CALL = "no-call"
    CANCELLED_CALL = "cancelled-call"
    CANCELLED_EARLIER = "cancelled-earlier"
    SEVERAL_CALLS = "several-calls"
    OWN_REQUEST = "own-request"
    CLIENT = "client"
    TOO_MANY = "too-many"
    TOO_LARGE = "too-large"

    @property
    def words(self) -> str:
        """The reason in words."""
        return _WORDS[self]


_WORDS = {
    Unanswered.NOT_DECLARED: (
        "this client is mcp-broker: many clients share this process, so for which of them the question is "
        "cannot be known. Ask in the result of a call (`input_required` of MCP 2026-07-28), or take what you "
        "need as an argument of the tool; if this server asks only while it works on a call, the operator "
        "may set `asks_within_calls` for it in broker.toml"
    ),
    Unanswered.NO_ROOTS: (
        "this client has no roots; the operator may set `roots` for this server in broker.toml"
    ),
    Unanswered.PROVED_WRONG: (
        "this process asked a question while it had no call, so `asks_within_calls` is wrong for it; its "
        "questions are refused until it is restarted"
    ),
    Unanswered.NO_CALL: "this process has no call that the question can belong to",
    Unanswered.CANCELLED_CALL: "the question may belong to a call that was cancelled",
    Unanswered.CANCELLED_EARLIER: (
        "this process has not answered a call that was cancelled, so the question may belong to that call; "
        "its questions are refused until it answers that call or is restarted; if it stops work on a call "
        "that is cancelled, the operator may set `stops_on_cancel` for it in broker.toml"
    ),
    Unanswered.SEVERAL_CALLS: "this process has several calls that the question can belong to",
    Unanswered.OWN_REQUEST: "the question may belong to a request of mcp-broker itself, which has no answer",
    Unanswered.CLIENT: "the client of the call does not answer such questions",
    Unanswered.TOO_MANY: f"this process has {MAX_QUESTIONS} open questions already",
    Unanswered.TOO_LARGE: f"the params of a question may be {MAX_QUESTION_BYTES} bytes",
}


class OpenQuestion(Struct, eq=False):
    """An open question: `id` is the broker's, `server_id` the server's. It is withdrawn at `until`."""

    id: int
    server_id: Id | float
    method: str
    call: Call
    until: float


def refused_since(server: Server) -> Unanswered | None:
    """Return why all questions of a process that asks within calls are refused until it is replaced."""
    if server.session is None or not server.asks_within_calls:
        return None
    if server.session.proved_wrong:
        return Unanswered.PROVED_WRONG
    is_left = server.attribution.given_up and not server.queue.reserved
    return Unanswered.CANCELLED_EARLIER if is_left else None


def answered_methods(request: wire.Request) -> frozenset[str]:
    """Return the methods of the questions that the client of a request answers: those that it declared."""
    declared = (request.meta or {}).get(CAPABILITIES) if request.flags & wire.TAKES_QUESTIONS else None
    if not isinstance(declared, dict):
        return frozenset()
    return frozenset(method for method, name in METHODS.items() if _is_declared(declared.get(name)))


def _is_declared(capability: object) -> bool:
    """Return whether a capability is declared; that of elicitation may be for the mode `url` only."""
    return isinstance(capability, dict) and ("url" not in capability or "form" in capability)


class Questions:
    """The open questions of all servers. A question leaves by `_close`, whatever its end is.

    Args:
        servers: each server by its name.
        table: the open calls; the time of a call stands still while it has an open question.
    """

    def __init__(
        self,
        servers: dict[str, Server],
        table: CallTable,
        connections: Connections,
        counters: Counters,
        effects: Effects,
    ) -> None:
        self._servers = servers
        self._table = table
        self._connections = connections
        self._counters = counters
        self._effects = effects
        self._open: dict[int, OpenQuestion] = {}

    def __len__(self) -> int:
        return len(self._open)

    # -- from the server --------------------------------------------------------------------------

    def ask(self, server: Server, asked: ServerRequest, now: float) -> Unanswered | None:
        """Send a question to the client that it is for, or return why not."""
        call = self._call_of(server, asked)
        if isinstance(call, Unanswered):
            return call
        until = now + server.config.answer_timeout
        question = OpenQuestion(self._table.new_id(), asked.id, asked.method, call, until)
        self._open[question.id] = question
        self._pause(call, now)
        self._count(server, "asked")
        self._effects.log(
            Level.DEBUG,
            "question.asked",
            server=server.name,
            method=asked.method,
            question=question.id,
            client_pid=call.client_pid,
        )
        message = wire.Question(call.channel, question.id, call.client_id, server.name, asked.method)
        self._post(call, message, b"{}" if asked.params is None else bytes(asked.params))
        return None

    def _call_of(self, server: Server, asked: ServerRequest) -> Call | Unanswered:
        session = server.session
        if asked.method == "roots/list":
            return Unanswered.NO_ROOTS
        if asked.method not in METHODS or session is None or not server.asks_within_calls:
            return Unanswered.NOT_DECLARED
        if session.proved_wrong:
            return Unanswered.PROVED_WRONG
        call = server.call_under_way
        if call is None:
            return self._without_call(server)
        if asked.method not in call.takes or (
            asked.method == "elicitation/create"
            and asked.params is not None
            and jsonrpc.elicitation_mode(asked.params) != "form"
        ):
            return Unanswered.CLIENT
        if len(self._of(call)) >= MAX_QUESTIONS:
            return Unanswered.TOO_MANY
        return Unanswered.TOO_LARGE if len(asked.params or b"") > MAX_QUESTION_BYTES else call

    def _without_call(self, server: Server) -> Unanswered:
        """Return why a question belongs to no call. If no request can explain it, the process is noted."""
        assert server.session is not None
        if server.session.has_request:
            return Unanswered.OWN_REQUEST
        if server.attribution.given_up:
            return Unanswered.CANCELLED_CALL if server.queue.reserved else Unanswered.CANCELLED_EARLIER
        if not server.attribution.is_idle:
            return Unanswered.SEVERAL_CALLS if server.queue.running else Unanswered.NO_CALL
        server.session.proved_wrong = True
        self._effects.log(
            Level.WARNING,
            "server.asks_without_call",
            server=server.name,
            reason=Unanswered.PROVED_WRONG.words,
        )
        return Unanswered.PROVED_WRONG

    def taken_back(self, server: Server, server_id: object, now: float) -> bool:
        """Withdraw a question that its server has cancelled. Return whether there is one."""
        for question in self._of_server(server.name):
            if type(question.server_id) is type(server_id) and question.server_id == server_id:
                self._withdraw(question, None, "the server no longer asks", now)
                return True
        return False

    # -- from the client --------------------------------------------------------------------------

    def answer(self, connection: bytes, answer: wire.Answer, body: bytes, now: float) -> str | None:
        """Write the answer of a client to the server. Return what to count if it is no answer to a question
        of that client."""
        question = self._open.get(answer.id)
        if question is None:
            return "late.answer"
        call = question.call
        if (call.connection, call.channel) != (connection, answer.channel):
            return "wrong.answer"
        server = self._servers[call.server]
        self._close(question, now)
        try:
            checked = jsonrpc.check_answer(body, answer.ok, MAX_ANSWER_BYTES)
        except BodyError as error:
            self._ended(question, "unusable")
            self._refuse(question, f"the answer of the client cannot be used: {error}")
            return "unusable.answer"
        self._ended(question, "answered")
        call.no_retry = call.no_retry or NoRetry.ANSWER
        if server.opened:
            line = jsonrpc.answer_line(question.server_id, answer.ok, checked)
            self._effects.append(Write(server.name, line))
        return None

    # -- withdrawals ------------------------------------------------------------------------------

    def call_ends(self, call: Call, now: float, *, is_told: bool) -> None:
        """Withdraw the questions of a call that ends. `is_told`: its client is told of it."""
        for question in self._of(call):
            why = "the call that the question belongs to has ended"
            self._withdraw(question, why, why if is_told else None, now)

    def process_gone(self, server: Server, now: float) -> None:
        """Withdraw the questions of a process that is gone."""
        for question in self._of_server(server.name):
            self._withdraw(question, None, "the server that asked has ended", now)

    @property
    def wake_at(self) -> float | None:
        """The time when the next question is withdrawn."""
        return min((question.until for question in self._open.values()), default=None)

    def tick(self, now: float) -> None:
        """Withdraw the questions that were not answered in time."""
        for question in [one for one in self._open.values() if one.until <= now]:
            why = "the question was not answered within `answer_timeout`"
            self._withdraw(question, why, why, now, "expired")

    def _withdraw(
        self,
        question: OpenQuestion,
        to_server: str | None,
        to_client: str | None,
        now: float,
        outcome: str = "withdrawn",
    ) -> None:
        """Close a question without an answer; tell the server and the client why, where there is a reason."""
        self._close(question, now)
        self._ended(question, outcome)
        if to_server is not None:
            self._refuse(question, to_server)
        if to_client is not None:
            self._post(question.call, wire.Cancel(question.call.channel, question.id, to_client))

    def _close(self, question: OpenQuestion, now: float) -> None:
        del self._open[question.id]
        self._pause(question.call, now)

    def _pause(self, call: Call, now: float) -> None:
        """Let the time of a call stand still as long as it has an open question."""
        self._table.pause(call, max((one.until for one in self._of(call)), default=now), now)

    def _refuse(self, question: OpenQuestion, why: str) -> None:
        server = self._servers[question.call.server]
        if server.opened:
            line = jsonrpc.error_line(question.server_id, jsonrpc.INTERNAL_ERROR, why)
            self._effects.append(Write(server.name, line))

    def _of(self, call: Call) -> list[OpenQuestion]:
        return [one for one in self._open.values() if one.call is call] if self._open else []

    def _of_server(self, name: str) -> Iterable[OpenQuestion]:
        return [one for one in self._open.values() if one.call.server == name]

    def _ended(self, question: OpenQuestion, outcome: str) -> None:
        """Count and log the end of a question."""
        name = question.call.server
        self._count(self._servers[name], outcome)
        self._effects.log(Level.DEBUG, "question.ended", server=name, question=question.id, outcome=outcome)

    def _count(self, server: Server, what: str) -> None:
        server.asked.add(what)
        self._counters.add(f"question.{what}")

    def _post(self, call: Call, message: wire.Message, body: bytes | None = None) -> None:
        connection = self._connections.get(call.connection)
        post = self._connections.post(connection, message, body) if connection is not None else None
        if post is not None:
            self._effects.append(post)
