"""Laws 2, 3, 4 and 6 against every interleaving of clients, servers, deaths and time.

Every call carries a secret, and every answer of a server repeats the one of the call that it answers. What
arrives at a client is held against what that client has asked: an answer must be to a request that is open
there, on its channel, with its secret, and it is the last thing that is heard of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.effects import Manage
from broker.core.mcp.meta import CAPABILITIES
from broker.core.mcp.methods import Era
from broker.core.servers.lifecycle import Event, State
from client_shim import wire
from client_shim.wire import Code
from tests.core.fake_server import Json, Process
from tests.core.world import ENDINGS, INSTANCE, Client, World

ASKS: Json = {
    "serialized": True,
    "asks_within_calls": True,
    "answer_timeout": 10.0,
    "start_limit_burst": 100,
}
ASKING = ["asking", "stopping"]
"""The servers that ask within calls. The second asks nothing for a call whose cancellation it has read."""

SERVERS: dict[str, Json] = {
    "legacy": {"max_in_flight": 2, "start_limit_burst": 100},
    "modern": {"serialized": True},
    "stateful": {"stateful": True},
    "asking": {**ASKS, "timeout": 5.0},
    "stopping": {**ASKS, "stops_on_cancel": True},
    "leased": {"lease_sec": 7.0, "max_in_flight": 2, "timeout": 12.0, "start_limit_burst": 100},
    "resting": {"start": "demand", "idle_stop_sec": 0.8, "start_limit_burst": 100},
}
KEEPS_STATE = ("stateful", "leased")
TOOLS = ["echo", "read"]
"""The second one is annotated as read-only."""

UPSETS = [
    "crash",
    "crash slowly",
    "idle slowly",
    "hang",
    "stop",
    "restart",
    "start",
    "start in silence",
    "full",
    "free",
]

ANSWERS: Json = {CAPABILITIES: {"elicitation": {}}}
"""The `_meta` of a client that answers questions."""

IDS = st.integers(1, 9)
CHANNELS = st.integers(1, 3)
MARGIN_S = 1e-6

requests = st.tuples(
    st.builds(
        wire.Request,
        channel=CHANNELS,
        id=IDS,
        instance=st.just(INSTANCE),
        service=st.sampled_from([*SERVERS, *SERVERS, *ASKING * 2, wire.MANAGEMENT, "none"]),
        method=st.sampled_from(["tools/call"] * 8 + ["tools/list", "prompts/list", "ping", "x/y"]),
        timeout_ms=st.sampled_from([None, 0, 1500, 20_000]),
        flags=st.sampled_from(
            [0, wire.WANTS_PROGRESS, wire.WANTS_PROGRESS | wire.PROGRESS_EXTENDS, *[wire.TAKES_QUESTIONS] * 3]
        ),
        meta=st.sampled_from([None, {"progressToken": "t"}, {"progressToken": 1}, *[ANSWERS] * 3]),
    ),
    st.sampled_from([*TOOLS * 4, "other"]),
)
rivals = st.tuples(requests.map(lambda drawn: drawn[0]._replace(service="leased")), st.integers(0, 2))
replies = st.sampled_from(["result", "result", "result", "big", "huge", "error", "broken", "text id", "log"])


@dataclass
class Asked:
    """A request as its client knows it."""

    channel: int
    method: str
    secret: int
    timeout_s: float
    deadline: float
    extends: bool
    token: object
    released: bool = False
    tool: str = "echo"
    service: str = ""
    takes: bool = False


@dataclass
class Question:
    """A question as the client that was asked knows it: `request_id` is the request that it belongs to."""

    id: int
    request_id: int
    channel: int
    process: Process
    server_id: str


@dataclass
class Page:
    """A client with what it has asked and not heard the end of."""

    client: Client
    alive: bool = True
    open: dict[int, Asked] = field(default_factory=dict)
    unread_bytes: int = 0
    duplicates: int = 0
    questions: dict[int, Question] = field(default_factory=dict)
    """The open questions by the id that the broker gave them."""
    answered: set[int] = field(default_factory=set)


class AnyInterleaving(RuleBasedStateMachine):
    """Three clients at a time, three channels each, the same few ids and tokens, some servers."""

    servers: ClassVar[dict[str, Json]] = SERVERS

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            self.servers,
            credit_bytes=65_536,
            outbox_bytes=65_536,
            calls_per_channel=2,
            calls_per_connection=5,
        )
        for name, script in self.world.scripts.items():
            script.era = Era.MODERN if name == "modern" else Era.LEGACY
            script.lists = {"tools/list": TOOLS}
            script.annotations = {"read": {"readOnlyHint": True}}
        self.pages: list[Page] = []
        self.secrets = 0
        self.connections = 0
        self.given: dict[str, list[Json]] = {name: [] for name in self.servers}
        self.managing: list[Manage] = []
        self.asked: dict[str, Process] = {}
        """The questions that processes have asked: each has an id of its own."""
        self.taken_back: set[str] = set()
        self.ever_asked: dict[int, str] = {}
        """The ids of the broker for the questions that reached a client."""
        self.said: dict[str, int] = {}
        """The question → the only answer that may reach its server: each answer has a number of its own."""
        self.answers_given = 0
        self.generations: dict[tuple[bytes, int], int] = {}
        """How often a channel of this number was closed on this connection."""
        self.called_by: dict[int, tuple[bytes, int, int]] = {}
        """The secret of each call → the channel that made it."""
        for name in self.servers:
            self.world.start(name)
        self.connect()
        self.connect()

    # -- clients ----------------------------------------------------------------------------------

    def living(self) -> list[Page]:
        return [page for page in self.pages if page.alive]

    def waits(self, page: Page) -> bool:
        """Whether something that has ended may still be on its way to this client."""
        connection = self.world.engine.connections.get(page.client.key)
        return connection is not None and bool(connection.outbox)

    @precondition(lambda self: len(self.living()) < 3)
    @rule()
    def connect(self) -> None:
        self.connections += 1
        client = self.world.stranger(b"c%d" % self.connections)
        welcome = client.hello()
        assert isinstance(welcome, wire.Welcome)
        self.pages.append(Page(client, unread_bytes=wire.cost(wire.encode(welcome), None)))

    @precondition(lambda self: self.living())
    @rule(data=st.data(), wanted=st.lists(requests, min_size=2, max_size=6))
    def request(self, data: st.DataObject, wanted: list[tuple[wire.Request, str]]) -> None:
        self.ask_all(data.draw(st.sampled_from(self.living())), wanted)

    def ask_all(self, page: Page, wanted: list[tuple[wire.Request, str]]) -> None:
        for message, tool in wanted:
            if page.alive:
                self.say(page, message, tool)

    @precondition(lambda self: self.living())
    @rule(wanted=st.lists(rivals, min_size=2, max_size=4))
    def rival(self, wanted: list[tuple[wire.Request, int]]) -> None:
        """Several clients call the leased server at once."""
        for message, page in wanted:
            if self.living():
                self.say(self.living()[page % len(self.living())], message, "echo")

    def say(self, page: Page, message: wire.Request, tool: str) -> None:
        if message.id not in page.open:
            self.ask(page, message, tool)
        elif not self.waits(page) and not page.open[message.id].released:
            page.duplicates += 1
            page.client.say(message, b'{"name":"echo"}')
        self.everybody_hears_what_is_for_him_and_hears_its_end_once()

    def ask(self, page: Page, message: wire.Request, tool: str) -> None:
        self.secrets += 1
        timeout_s = 30.0 if message.timeout_ms is None else message.timeout_ms / 1000
        page.open[message.id] = Asked(
            channel=message.channel,
            method="management" if message.service == wire.MANAGEMENT else message.method,
            secret=self.secrets,
            timeout_s=timeout_s,
            deadline=self.world.now + timeout_s,
            extends=bool(message.flags & wire.PROGRESS_EXTENDS),
            token=(message.meta or {}).get("progressToken", message.id),
            tool=tool,
            service=message.service,
            takes=bool(message.flags & wire.TAKES_QUESTIONS) and message.meta == ANSWERS,
        )
        channel_key = (page.client.key, message.channel)
        self.called_by[self.secrets] = (*channel_key, self.generations.get(channel_key, 0))
        params = {"name": tool, "arguments": {"secret": self.secrets}}
        page.client.say(message, json.dumps(params).encode())

    @precondition(lambda self: any(page.open for page in self.living()))
    @rule(data=st.data(), id=IDS, channel=CHANNELS)
    def cancel(self, data: st.DataObject, id: int, channel: int) -> None:
        page = data.draw(st.sampled_from(self.living()))
        page.client.say(wire.Cancel(channel, min(page.open, default=id), None))

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(self.living()))
        read_bytes, page.unread_bytes = page.unread_bytes, 0
        page.client.say(wire.Credit(0, 0, read_bytes))

    @precondition(lambda self: self.living())
    @rule(data=st.data(), channel=CHANNELS, how=st.sampled_from(["channel", "channel", "goodbye", "lost"]))
    def leave(self, data: st.DataObject, channel: int, how: str) -> None:
        page = data.draw(st.sampled_from(self.living()))
        if how == "channel":
            self.release(page, channel)
        elif how == "goodbye":
            page.client.say(wire.Goodbye(0, 0, "done"))
        else:
            self.world.cut(page.client)
        assert (page.client.key in self.world.closed) is (how != "channel")

    def release(self, page: Page, channel: int) -> None:
        under_way = self.waits(page)
        page.questions = {id: one for id, one in page.questions.items() if one.channel != channel}
        page.client.say(wire.Goodbye(channel, 0, "closed"))
        channel_key = (page.client.key, channel)
        self.generations[channel_key] = self.generations.get(channel_key, 0) + 1
        lease = self.world.engine.servers["leased"].queue.lease
        assert lease is None or lease.holder != channel_key
        for id, asked in list(page.open.items()):
            if asked.channel == channel and (under_way or asked.method == "management"):
                asked.released = True
            elif asked.channel == channel:
                del page.open[id]

    @precondition(lambda self: self.living() and self.ever_asked)
    @rule(data=st.data(), channel=CHANNELS, ok=st.booleans(), luck=st.integers(0, 3))
    def answers(self, data: st.DataObject, channel: int, ok: bool, luck: int) -> None:
        self.answer_a_question(data, channel, ok=ok, luck=luck)

    def answer_a_question(self, data: st.DataObject, channel: int, *, ok: bool, luck: int) -> None:
        """A client answers its own open question, or one that it was never asked or that is over."""
        asked = [page for page in self.living() if page.questions]
        page = data.draw(st.sampled_from(asked if asked and luck else self.living()))
        open = {question.id: question for one in asked for question in one.questions.values()}
        self.answers_given += 1
        if page.questions and luck:
            id = data.draw(st.sampled_from(sorted(page.questions)))
            question = page.questions.pop(id)
            page.answered.add(id)  # its withdrawal may be on its way
            channel = question.channel
            self.said[question.server_id] = self.answers_given
        else:
            id = data.draw(st.sampled_from(sorted(open) or sorted(self.ever_asked)))
            if id in page.questions and page.questions[id].channel == channel:
                return
        number = {"number": self.answers_given}
        body = number if ok else {"code": -1, "message": "no", "data": number}
        page.client.say(wire.Answer(channel, id, ok), json.dumps(body).encode())

    @rule(data=st.data())
    def manage(self, data: st.DataObject) -> None:
        self.managing += self.world.managing
        self.world.managing.clear()
        if self.managing:
            request = data.draw(st.sampled_from(self.managing))
            self.managing.remove(request)
            self.world.managed(request, request.body)

    # -- servers ----------------------------------------------------------------------------------

    def running(self) -> list[Process]:
        return list(self.world.processes.values())

    def pick(self, data: st.DataObject) -> tuple[Process, Json] | None:
        """A process and a call that it has, or any that it or one before it was ever given."""
        process = data.draw(st.sampled_from(self.running()))
        calls = self.world.engine.dispatch.table
        has = [request for request in self.given[process.name] if calls.by_id(request["id"])]
        luck: int = data.draw(st.integers(0, 3))
        recent = has if has and luck else self.given[process.name][-8:]
        return (process, data.draw(st.sampled_from(recent))) if recent else None

    @precondition(lambda self: any(self.given.values()) and self.running())
    @rule(data=st.data(), hows=st.lists(replies, min_size=1, max_size=4))
    def reply(self, data: st.DataObject, hows: list[str]) -> None:
        for how in hows:
            picked = self.pick(data)
            if picked is not None:
                self.answer(*picked, how)
            self.everybody_hears_what_is_for_him_and_hears_its_end_once()

    def answer(self, process: Process, request: Json, how: str) -> None:
        secret = {"secret": request["params"]["arguments"]["secret"]}
        if how == "error":
            error = {"code": -32000, "message": "no", "data": secret}
            process.say({"jsonrpc": "2.0", "id": request["id"], "error": error})
        elif how == "broken":
            process.say(b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % request["id"])
        elif how == "text id":
            process.reply({"id": str(request["id"])}, secret)
        elif how == "log":
            process.say(b'{"id":%d,"result":"stolen"}' % request["id"])
        else:
            size = {"big": 30_000, "huge": 66_000}.get(how, 0)
            process.reply(request, {**secret, "pad": "x" * size})

    @precondition(lambda self: any(self.given.values()) and self.running())
    @rule(data=st.data(), times=st.integers(1, 3))
    def progress(self, data: st.DataObject, times: int) -> None:
        picked = self.pick(data)
        if picked is not None:
            process, request = picked
            for _ in range(times):
                process.progress(request["id"], request["params"]["arguments"]["secret"])

    def at_work(self, name: str) -> list[Json]:
        """The calls that a process may still work on: those that it has not answered, cancelled or not."""
        process = self.world.processes.get(name)
        if process is None:
            return []
        unanswered = [request for request in process.calls if request["id"] not in process.answered]
        return [one for one in unanswered if name == "asking" or not self.has_read_cancel(process, one["id"])]

    @staticmethod
    def has_read_cancel(process: Process, id: int) -> bool:
        """Whether a process has answered something that was sent behind the cancellation of a call."""
        cancelled = [line.get("params", {}).get("requestId") == id for line in process.lines]
        behind = process.lines[cancelled.index(True) :] if True in cancelled else []
        return any(line.get("id") in process.answered_at_once for line in behind)

    @precondition(lambda self: any(map(self.at_work, ASKING)))
    @rule(data=st.data(), times=st.integers(1, 2), luck=st.integers(0, 3), then=st.integers(0, 7))
    def question(self, data: st.DataObject, times: int, luck: int, then: int) -> None:
        """A server that keeps its word asks: about a call that it works on."""
        name = data.draw(st.sampled_from([name for name in ASKING if self.at_work(name)]))
        self.ask_about(data, name, times=times, luck=luck, then=then)

    def ask_about(self, data: st.DataObject, name: str, *, times: int, luck: int, then: int) -> None:
        """Ask about a call that is open for its client, or with luck 0 about one that was cancelled."""
        process, at_work = self.world.processes[name], self.at_work(name)
        calls = self.world.engine.dispatch.table
        left = [request for request in at_work if (calls.by_id(request["id"]) is None) is (luck == 0)]
        secret = data.draw(st.sampled_from(left or at_work))["params"]["arguments"]["secret"]
        for page in self.pages:  # a question may make a call last longer, each by `answer_timeout`
            for asked in page.open.values():
                asked.deadline += 10.0 * times if asked.secret == secret and asked.takes else 0.0
        for _ in range(times):
            id = f"q{len(self.asked)}"
            self.asked[id] = process
            params = {"message": str(secret), "id": id}
            process.say({"id": id, "method": "elicitation/create", "params": params})
            self.everybody_hears_what_is_for_him_and_hears_its_end_once()
        if then == 0 and self.world.processes.get(name) is process:
            self.taken_back.add(id)
            process.tell("cancelled", requestId=id)
        elif then > 2 and self.living() and self.ever_asked:
            self.answer_a_question(data, 1, ok=then == 3, luck=then % 2)

    @precondition(lambda self: self.running())
    @rule(
        data=st.data(), id=st.integers(0, 60), what=st.sampled_from(["result", "progress", "token", "broken"])
    )
    def rogue(self, data: st.DataObject, id: int, what: str) -> None:
        """A server speaks of what it was not asked: ids of the other server, and tokens of clients."""
        process = data.draw(st.sampled_from(self.running()))
        if (
            any(request["id"] == id for request in self.given[process.name])
            or process.got("tools/list") == []
        ):
            return
        if what == "result":
            process.reply({"id": id}, "stolen")
        elif what == "broken":
            process.say(b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % id)
        else:
            process.progress("t" if what == "token" else id, -1)

    @rule(name=st.sampled_from([*SERVERS]), what=st.sampled_from(UPSETS))
    def upset(self, name: str, what: str) -> None:
        self.upset_by(name, what)

    def upset_by(self, name: str, what: str) -> None:
        world = self.world
        has_process = name in world.processes
        draining = world.lifecycles[name].state is State.DRAINING
        if what.startswith("crash") and draining:
            world.bury(name)
        elif what.startswith("crash") and has_process:
            world.slow_to_end |= {name} if what == "crash slowly" else set()
            world.exit(name)
        elif what == "idle slowly" and world.lifecycles[name].state is State.READY:
            if not world.engine.registry.is_used(world.engine.servers[name]):
                world.slow_to_end.add(name)
                world.feed(name, Event.IDLE)
        elif what == "restart" and has_process and not draining:
            world.restart(name)
        elif what == "hang":
            world.scripts[name].mute = {"ping", "server/discover"}
        elif what == "stop":
            world.stop(name)
        elif what.startswith("start"):
            world.scripts[name].mute = {"initialize", "server/discover"} if "silence" in what else set()
            world.feed(name, Event.START)
        elif what in ("full", "free") and has_process and not draining:
            world.run(world.engine.registry.congested, name, what == "full")

    @precondition(lambda self: self.world.engine.servers["leased"].queue.lease)
    @rule(really=st.booleans())
    def release_lease(self, really: bool) -> None:
        world = self.world
        if really:
            world.run(world.engine.dispatch.leases.release, world.engine.servers["leased"])

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def everybody_hears_what_is_for_him_and_hears_its_end_once(self) -> None:
        for page in self.pages:
            for message, body in page.client.inbox:
                page.unread_bytes += wire.cost(wire.encode(message), body)
                self.hear(page, message, body)
            page.client.inbox.clear()
            if page.client.key in self.world.closed:
                page.alive = False
                page.open.clear()
                page.questions.clear()
        for name, process in self.world.processes.items():
            known = {request["id"] for request in self.given[name]}
            self.given[name] += [request for request in process.calls if request["id"] not in known]

    def hear(self, page: Page, message: wire.Message, body: bytes | None) -> None:
        if isinstance(message, wire.Goodbye):
            assert page.client.key in self.world.closed
            return
        if isinstance(message, wire.Credit):
            assert message.read_bytes > 0
            return
        if message.id == 0:
            assert isinstance(message, wire.Fault)
            assert message.code == Code.DUPLICATE_ID
            page.duplicates -= 1
            return
        if isinstance(message, wire.Question):
            self.hear_question(page, message, json.loads(body or b""))
            return
        if isinstance(message, wire.Cancel):
            assert page.questions.pop(message.id, None) or message.id in page.answered
            return
        asked = page.open.get(message.id)
        assert asked is not None, f"{message} is about nothing that is open"
        assert message.channel == asked.channel
        if isinstance(message, wire.Notification):
            self.hear_progress(asked, json.loads(body or b""))
            return
        del page.open[message.id]
        assert message.id not in {question.request_id for question in page.questions.values()}
        if isinstance(message, wire.Result):
            self.hear_result(asked, json.loads(body or b""))
        elif isinstance(message, wire.Error):
            assert json.loads(body or b"")["data"] == {"secret": asked.secret}
        else:
            assert isinstance(message, wire.Fault)
            assert message.code not in (Code.INTERNAL, Code.MALFORMED, Code.DUPLICATE_ID)
            if message.code == Code.SERVER_DIED:
                assert message.data["not_sent_again"] in self.reasons(asked)

    def reasons(self, asked: Asked) -> set[str]:
        """Why a call may not have been sent again."""
        if asked.service in KEEPS_STATE:
            return {"stateful"}
        if asked.tool != "read":
            return {"tool"}
        return {"twice", "stopped", "late", *(["answer"] if asked.takes else [])}

    def hear_question(self, page: Page, question: wire.Question, params: Json) -> None:
        """It is about an open call of this very client, which answers questions, and it comes once."""
        asked = page.open[question.request_id]
        assert (question.channel, question.service) == (asked.channel, asked.service)
        assert asked.takes
        process = self.asked[params["id"]]
        assert (params["message"], process.name) == (str(asked.secret), asked.service)
        assert question.id not in self.ever_asked.keys() | self.ids_given()
        self.ever_asked[question.id] = params["id"]
        if not asked.released:
            page.questions[question.id] = Question(
                question.id, question.request_id, question.channel, process, params["id"]
            )

    def ids_given(self) -> set[object]:
        """The ids that servers were given with requests."""
        return {
            line["id"]
            for process in self.world.ever
            for line in process.lines
            if "method" in line and "id" in line
        }

    def hear_progress(self, asked: Asked, params: Json) -> None:
        assert params == {"progressToken": asked.token, "progress": asked.secret}
        if asked.extends:
            asked.deadline = self.world.now + asked.timeout_s

    def hear_result(self, asked: Asked, result: Any) -> None:
        if asked.method == "tools/call":
            assert result["secret"] == asked.secret
        elif asked.method == "management":
            assert result["arguments"]["secret"] == asked.secret
        elif asked.method == "ping":
            assert result == {}
        elif asked.method == "prompts/list":
            assert result["prompts"] == []
        else:
            assert [tool["name"] for tool in result["tools"]] == TOOLS

    @invariant()
    def nobody_waits_for_longer_than_his_deadline(self) -> None:
        for page in self.living():
            if not self.waits(page):
                for asked in page.open.values():
                    assert (
                        asked.released
                        or asked.method == "management"
                        or self.world.now <= asked.deadline + MARGIN_S
                        or asked.deadline == self.world.now
                    )

    def answers_to(self, id: str) -> list[Json]:
        """What the server was told in answer to a question."""
        return [line for line in self.asked[id].lines if line.get("id") == id and "method" not in line]

    @invariant()
    def every_question_has_at_most_one_answer_and_that_of_the_client_of_its_call(self) -> None:
        for id in self.asked:
            answers = self.answers_to(id)
            assert len(answers) <= 1
            for answer in answers:
                said = answer.get("result") or answer["error"].get("data")
                assert said is None or said["number"] == self.said[id]

    @invariant()
    def a_question_is_open_at_its_server_and_at_its_client_or_at_neither(self) -> None:
        """It is withdrawn when its call, its client or its process ends, and not later."""
        self.everybody_hears_what_is_for_him_and_hears_its_end_once()
        open = {
            question.server_id: (page, question)
            for page in self.pages
            for question in page.questions.values()
        }
        for page, question in open.values():
            assert question.request_id in page.open
            if not self.waits(page):
                assert self.world.processes.get(question.process.name) is question.process
                assert self.answers_to(question.server_id) == []
        for id, process in self.asked.items():
            server = self.world.engine.servers[process.name]
            if (
                self.world.processes.get(process.name) is process
                and server.opened
                and id not in self.taken_back
            ):
                assert id in open or self.answers_to(id) or any(map(self.waits, self.living()))

    @invariant()
    def a_call_is_sent_again_once_and_only_where_that_does_no_harm(self) -> None:
        sent: dict[int, list[tuple[Process, str]]] = {}
        for process in self.world.ever:
            for request in process.calls:
                arguments, tool = request["params"]["arguments"], request["params"]["name"]
                sent.setdefault(arguments["secret"], []).append((process, tool))
        for times in sent.values():
            (process, tool), *again = times
            assert len(again) <= (tool == "read" and process.name not in KEEPS_STATE)
            assert all(other is not process and other.name == process.name for other, _ in again)

    @invariant()
    def a_leased_server_has_calls_of_one_channel_and_that_is_the_holder(self) -> None:
        """Those that were cancelled and not answered count: it may still be at them."""
        server, calls = self.world.engine.servers["leased"], self.world.engine.dispatch.table
        lease, process = server.queue.lease, self.world.processes.get("leased")
        at_it = set()
        if process is not None:
            at_it = {
                self.called_by[request["params"]["arguments"]["secret"]]
                for request in process.calls
                if request["id"] not in process.answered
                and (calls.by_id(request["id"]) or request["id"] in server.queue._reserved)
            }
        assert len(at_it) <= 1
        if lease is not None:
            assert server.session is not None
            generation = self.generations.get(lease.holder, 0)
            assert at_it <= {(*lease.holder, generation)}
            assert (*lease.holder, generation) in self.called_by.values()
            assert lease.holder[0] in {page.client.key for page in self.living()}

    @invariant()
    def the_lease_waits_for_nobody_who_does_not_call(self) -> None:
        """Its time is over at the latest `lease_sec` after the last call of its holder."""
        server = self.world.engine.servers["leased"]
        lease, ends_at = server.queue.lease, server.queue.lease_ends_at
        if lease is not None and ends_at is None:
            assert self.world.engine.dispatch.table.of_client(*lease.holder)
        elif ends_at is not None:
            assert self.world.now <= ends_at + MARGIN_S

    @invariant()
    def nothing_that_was_begun_waits_for_a_server_that_was_stopped(self) -> None:
        for name, server in self.world.engine.servers.items():
            if server.lifecycle.state is State.STOPPED:
                assert not [call for call in self.world.engine.dispatch.table.of_server(name) if call.begun]

    @invariant()
    def no_call_waits_for_a_server_that_waits_for_a_call(self) -> None:
        for name, server in self.world.engine.servers.items():
            if server.lifecycle.idle:
                assert not self.world.engine.dispatch.table.of_server(name)

    @invariant()
    def the_tables_agree(self) -> None:
        calls, servers = self.world.engine.dispatch.table, self.world.engine.servers.values()
        assert len(calls) == sum(
            one.queue.waiting + one.queue.running + len(one.pending_lists) for one in servers
        )
        for name, server in self.world.engine.servers.items():
            sent = [call for call in calls.of_server(name) if call.sent]
            assert len(sent) == server.queue.running <= self.room(name)
            assert not sent or name in self.world.processes
        assert calls.body_bytes == sum(
            len(call.body) for name in self.servers for call in calls.of_server(name)
        )
        living = {page.client.key for page in self.living()}
        assert {connection.key for connection in self.world.engine.connections.all()} == living
        assert set(calls._by_client) <= living

    def room(self, name: str) -> int:
        """How many calls a server may have."""
        server = self.world.engine.servers[name]
        return server.config.concurrency - server.queue.reserved

    def shut_down(self) -> None:
        """The broker ends in order: who reads hears the end of every call, and then a goodbye."""
        self.everybody_hears_what_is_for_him_and_hears_its_end_once()
        readers = [page for page in self.living() if not self.waits(page) and page.unread_bytes < 32_768]
        waits_for = [{id for id, asked in page.open.items() if not asked.released} for page in readers]
        self.world.run(self.world.engine.clients.goodbye, "it is stopped")
        for page, ids in zip(readers, waits_for, strict=True):
            said = [message for message, _ in page.client.inbox]
            assert sorted(message.id for message in said if isinstance(message, ENDINGS)) == sorted(ids)
            assert isinstance(said[-1], wire.Goodbye)
        self.everybody_hears_what_is_for_him_and_hears_its_end_once()
        assert self.living() == []
        refused = self.world.stranger(b"late").hello()
        assert isinstance(refused, wire.Fault)
        assert refused.code == Code.SHUTTING_DOWN

    def teardown(self) -> None:
        """In the end everybody has heard the end of everything, and nothing is left."""
        self.managing += self.world.managing
        for request in self.managing:
            self.world.managed(request, request.body)
        if self.secrets % 2:
            self.shut_down()
        self.world.wait(1000.0)
        for _ in range(100):
            self.everybody_hears_what_is_for_him_and_hears_its_end_once()
            for page in self.living():
                read_bytes, page.unread_bytes = page.unread_bytes, 0
                page.client.say(wire.Credit(0, 0, read_bytes))
        self.nobody_waits_for_longer_than_his_deadline()
        for page in self.living():
            assert not self.waits(page)
            assert all(asked.released for asked in page.open.values())
            assert (page.duplicates, page.questions) == (0, {})
            self.world.cut(page.client)
        assert len(self.world.engine.connections) == 0
        self.world.assert_empty()


TestAnyInterleaving = AnyInterleaving.TestCase
