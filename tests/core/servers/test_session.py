"""The broker's own conversation with one process: handshake, lists, changes, and the `_meta` it writes."""

from __future__ import annotations

import json
from collections.abc import Collection, Set
from itertools import count
from typing import Any

import pytest
from msgspec import structs

from broker.base.tolerances import Tolerated
from broker.config.schema import ServerConfig
from broker.core.effects import Effect, EndProcess, Log, Opened, Write
from broker.core.mcp.jsonrpc import Broken, ServerNotification, ServerReply
from broker.core.mcp.methods import MODERN_VERSION, Era
from broker.core.servers.lists import LIST_HOLD_S, LIST_S, READ_BURST, READ_EVERY_S, TOOLS_HOLD_S, Read, Sift
from broker.core.servers.session import MAX_REASON_CHARS, Did, McpSession
from broker.core.servers.subscription import Missed, NotSubscribed

CLIENT = {"name": "mcp-broker", "version": "0.1.0"}
META = "io.modelcontextprotocol/"
OWN_META = {
    META + "protocolVersion": MODERN_VERSION,
    META + "clientInfo": CLIENT,
    META + "clientCapabilities": {},
}
CHANGED = "notifications/tools/list_changed"


class Talk:
    """A session, and the server at its other end."""

    def __init__(
        self,
        era: Era = Era.LEGACY,
        remembered: Era | None = None,
        spared: Collection[str] = (),
        **capabilities: Any,
    ) -> None:
        config = ServerConfig(name="s", command="x", timeout=30.0)
        self.era = era
        self.capabilities = capabilities
        self.config = config
        self.session = McpSession(
            lambda: self.config, remembered, count(1).__next__, 10_000, CLIENT, spared=spared
        )
        self.asked: list[dict[str, Any]] = []
        self.effects: list[Effect] = []
        self.odd: list[Tolerated] = []
        self.news: list[Read | Sift | Missed | NotSubscribed] = []

    def did(self, effects: list[Did] | list[Effect] | None) -> list[str]:
        """What was done, in short; requests are kept to be answered, and news apart from it."""
        assert effects is not None
        words = []
        for effect in effects:
            if isinstance(effect, (Read, Sift, Missed, NotSubscribed)):
                self.news.append(effect)
                continue
            if isinstance(effect, Tolerated):
                self.odd.append(effect)
                words.append(effect.oddity.value)
                continue
            self.effects.append(effect)
            if isinstance(effect, Write):
                message = json.loads(effect.line)
                words.append(message["method"])
                if "id" in message:
                    self.asked.append(message)
            else:
                words.append(effect.event if isinstance(effect, Log) else type(effect).__name__)
        return words

    def greet(self) -> list[str]:
        """The process is there."""
        return self.did(self.session.greet(0.0))

    def last(self, method: str) -> dict[str, Any]:
        """The last request of a method."""
        return [request for request in self.asked if request["method"] == method][-1]

    def answer(self, method: str, result: object, now: float = 0.0) -> list[str]:
        """Answer the last request of a method."""
        id = self.last(method)["id"]
        return self.did(
            self.session.reply(ServerReply(id, memoryview(json.dumps(result).encode()), None), now)
        )

    def refuse(self, method: str, code: int = -32601, message: str = "no") -> list[str]:
        """Answer it with an error."""
        id = self.last(method)["id"]
        error = memoryview(json.dumps({"code": code, "message": message}).encode())
        return self.did(self.session.reply(ServerReply(id, None, error), 0.0))

    def agree(self) -> list[str]:
        """Come through the handshake."""
        self.greet()
        if self.era is Era.MODERN:
            found = {"supportedVersions": [MODERN_VERSION], "capabilities": self.capabilities}
            return self.answer("server/discover", found)
        if self.asked[-1]["method"] == "server/discover":
            self.refuse("server/discover")
        return self.answer("initialize", {"protocolVersion": "2025-11-25", "capabilities": self.capabilities})

    def open(self) -> Talk:
        """Come to the point where calls can be written, with one tool."""
        self.agree()
        if "tools" in self.capabilities:
            self.tools("a")
        assert self.session.opened
        return self

    def tools(self, *names: str, now: float = 0.0, **more: object) -> list[str]:
        """Answer tools/list."""
        return self.answer("tools/list", {"tools": [{"name": name} for name in names], **more}, now)

    def names(self) -> Set[str]:
        """The tools in the catalogue."""
        assert self.session.catalogue is not None
        return self.session.catalogue.names("tools/list")


# --- opening -----------------------------------------------------------------------------------------


def test_a_legacy_server_is_opened_by_initialize_and_its_lists() -> None:
    """Section 2: the catalogue is read before the first call."""
    talk = Talk(tools={}, prompts={})
    assert talk.greet() == ["server/discover"]
    assert talk.refuse("server/discover") == ["initialize"]
    assert talk.answer(
        "initialize", {"protocolVersion": "2025-11-25", "capabilities": talk.capabilities}
    ) == [
        "notifications/initialized",
        "tools/list",
        "prompts/list",
    ]
    assert talk.tools("a") == []
    assert not talk.session.opened
    assert talk.answer("prompts/list", {"prompts": []}) == ["Opened"]
    assert (talk.session.opened, talk.session.era) == (True, Era.LEGACY)


def test_a_timeout_that_a_reload_changes_holds_for_the_process_that_runs() -> None:
    """The config has one owner: a session keeps no copy of it."""
    talk = Talk(tools={}).open()
    talk.config = structs.replace(talk.config, timeout=5.0)
    assert talk.did(talk.session.refresh("tools/list", 100.0)) == ["tools/list"]
    assert talk.session.wake_at == 105.0


def test_a_modern_server_is_opened_by_discovery_and_its_lists() -> None:
    """2026-07-28: no session is opened, and every request says by itself who asks."""
    talk = Talk(Era.MODERN, tools={})
    assert talk.agree() == ["tools/list"]
    assert talk.tools("a") == ["Opened"]
    assert talk.session.era is Era.MODERN
    assert [request["params"]["_meta"] for request in talk.asked] == [OWN_META, OWN_META]


def test_a_legacy_request_of_the_broker_has_no_modern_meta() -> None:
    """2025-11-25 has no such fields."""
    talk = Talk(remembered=Era.LEGACY, tools={}).open()
    assert all("_meta" not in request["params"] for request in talk.asked)


def test_a_server_that_declares_no_list_is_asked_for_its_tools() -> None:
    """Servers with `capabilities: {}` and tools exist, and others that end at what they do not know."""
    talk = Talk(logging={})
    assert talk.agree() == ["notifications/initialized", "tools/list"]
    assert talk.tools("a") == ["list-undeclared", "Opened"]
    assert talk.names() == {"a"}
    assert talk.session.reread("resources/list", 1.0)[1] is not None  # a client wants it
    assert talk.did(talk.session.refresh("prompts/list", 1.0)) == ["prompts/list"]
    assert talk.answer("prompts/list", {"prompts": [{"name": "p"}]}) == ["list-undeclared"]


@pytest.mark.parametrize("failed", [True, False])
def test_a_list_that_a_server_does_not_survive_is_asked_of_the_next_process_on_demand(failed: bool) -> None:
    """It declares what it has not: no SDK asks for a list that nobody wants. Its tools are asked for."""
    talk = Talk(tools={}, resources={}, prompts={})
    talk.agree()
    assert set(talk.session.unbearable(failed)) == set()  # its tools are among what it has not answered
    talk.tools("a")
    talk.refuse("prompts/list")
    spared = set(talk.session.unbearable(failed))
    assert spared == ({"resources/list", "resources/templates/list"} if failed else set())
    talk.did(talk.session.tick(LIST_HOLD_S))
    assert set(talk.session.unbearable(failed)) == set()  # it is ready: whatever ends it now
    talk.did(talk.session.tick(LIST_S))
    spared = set(talk.session.unbearable(False))
    assert spared == {"resources/list", "resources/templates/list"}
    talk = Talk(spared=spared, tools={}, resources={}, prompts={})
    left = ["list-left-out", "list-left-out"]
    assert talk.agree() == ["notifications/initialized", *left, "tools/list", "prompts/list"]


def test_a_list_without_an_answer_costs_that_list() -> None:
    """A server that ignored `resources/templates/list` never became ready."""
    talk = Talk(tools={}, resources={})
    talk.agree()
    talk.tools("a")
    assert talk.answer("resources/list", {"resources": []}) == []
    dues = [talk.session.wake_at]
    assert talk.did(talk.session.tick(LIST_HOLD_S)) == ["Opened"]
    dues.append(talk.session.wake_at)
    assert talk.did(talk.session.tick(LIST_S)) == ["list-unread"]
    assert [*dues, talk.session.wake_at] == [LIST_HOLD_S, LIST_S, None]
    late = ServerReply(talk.last("resources/templates/list")["id"], memoryview(b"{}"), None)
    assert talk.session.reply(late, LIST_S) is None
    assert talk.session.is_late(late.id)


def test_a_list_that_comes_after_the_server_is_ready_counts() -> None:
    """It was slow, and clients are told that it has changed."""
    talk = Talk(tools={}, prompts={})
    talk.agree()
    talk.tools("a")
    talk.did(talk.session.tick(LIST_HOLD_S))
    assert talk.session.is_reading("prompts/list")
    assert talk.answer("prompts/list", {"prompts": [{"name": "p"}]}, 5.0) == ["catalogue.changed"]
    assert talk.news == [Read("prompts/list", True)]


def test_the_list_of_tools_is_waited_for_longer() -> None:
    """It is what a server is for; it may be slow, and one that is ready has it."""
    talk = Talk(tools={}, prompts={})
    talk.agree()
    talk.answer("prompts/list", {"prompts": []})
    assert talk.did(talk.session.tick(TOOLS_HOLD_S - 0.1)) == []
    assert talk.did(talk.session.tick(TOOLS_HOLD_S)) == ["Opened"]
    assert talk.tools("a", now=20.0) == ["catalogue.changed"]


@pytest.mark.parametrize("how", ["error", "silence", "broken"])
def test_a_further_page_that_cannot_be_had_leaves_what_was_read(how: str) -> None:
    """And `status` says so."""
    talk = Talk(tools={})
    talk.agree()
    talk.tools("a", nextCursor="2")
    if how == "error":
        did = talk.refuse("tools/list", -32602)
    elif how == "broken":
        did = talk.did(talk.session.reply(Broken(talk.last("tools/list")["id"], "NaN"), 0.0))
    else:
        did = talk.did(talk.session.tick(TOOLS_HOLD_S)) + talk.did(talk.session.tick(30.0))
    assert "list-partial" in did
    assert "Opened" in did
    assert talk.names() == {"a"}


def test_pages_are_asked_for_until_there_are_no_more() -> None:
    """Section 2: and only then is the server open."""
    talk = Talk(tools={})
    talk.agree()
    assert talk.tools("b", nextCursor="2") == ["tools/list"]
    assert talk.last("tools/list")["params"] == {"cursor": "2"}
    assert talk.tools("a") == ["Opened"]
    assert talk.names() == {"a", "b"}


@pytest.mark.parametrize("how", ["refused", "garbage", "broken"])
def test_a_list_that_cannot_be_had_does_not_keep_the_server_from_opening(how: str) -> None:
    """Law 9: the server is of use without it, and it is told which list it is and why."""
    talk = Talk(tools={}, prompts={})
    talk.agree()
    talk.tools("a")
    if how == "refused":
        did = talk.refuse("prompts/list", -32603)
    elif how == "garbage":
        did = talk.answer("prompts/list", {"prompts": 5})
    else:
        did = talk.did(talk.session.reply(Broken(talk.last("prompts/list")["id"], "NaN"), 0.0))
    assert did == ["list-unread", "Opened"]
    (odd,) = talk.odd
    assert odd.facts["list"] == "prompts/list"
    assert odd.facts["reason"]
    assert talk.session.catalogue is not None
    assert talk.session.catalogue.answer("prompts/list", 0.0) is None


def test_a_declared_list_that_the_server_does_not_know_is_empty() -> None:
    """As in both SDKs; nothing is lost, so nothing is said."""
    talk = Talk(tools={}, prompts={})
    talk.agree()
    talk.tools("a")
    assert talk.refuse("prompts/list", -32601) == ["Opened"]
    assert talk.session.catalogue is not None
    assert talk.session.catalogue.answer("prompts/list", 0.0) == b'{"prompts":[]}'


def test_tools_of_one_name_are_told_of() -> None:
    """Law 9: which of them answers is the server's affair, but somebody should know."""
    talk = Talk(tools={})
    talk.agree()
    assert talk.tools("a", "a") == ["same-name", "Opened"]


# --- a handshake that goes wrong ---------------------------------------------------------------------


def test_a_failed_handshake_makes_the_process_unfit() -> None:
    """Law 10: with the server's own words."""
    talk = Talk(remembered=Era.LEGACY)
    talk.greet()
    assert talk.refuse("initialize", -32603) == ["era-changed", "server/discover"]
    assert talk.refuse("server/discover") == ["EndProcess"]
    assert talk.effects[-1] == EndProcess(
        "s",
        "it refused initialize: no (-32603)",
    )


def test_why_a_handshake_failed_is_told_in_few_words() -> None:
    """Law 6: for as long as the server is down it is kept, logged and shown, whatever the server made it."""
    talk = Talk()
    talk.greet()
    talk.refuse("server/discover")
    assert talk.refuse("initialize", -32603, "\x1b[2J" + "x" * 1_000_000) == ["EndProcess"]
    (unfit,) = [effect for effect in talk.effects if isinstance(effect, EndProcess)]
    assert len(unfit.reason) <= MAX_REASON_CHARS + 1
    assert unfit.reason.isprintable()


def test_broken_replies_make_it_unfit_at_once() -> None:
    """Section 5: else the start would wait for its deadline."""
    talk = Talk()
    talk.greet()
    assert talk.did(talk.session.reply(Broken(talk.asked[0]["id"], "NaN"), 0.0)) == [
        "probe-answered-oddly",
        "initialize",
    ]
    assert talk.did(talk.session.reply(Broken(talk.asked[1]["id"], "NaN"), 0.0)) == ["EndProcess"]
    unfit = talk.effects[-1]
    assert isinstance(unfit, EndProcess)
    assert "its reply to initialize cannot be used: NaN" in unfit.reason


def test_a_silent_probe_is_followed_by_initialize() -> None:
    """Section 5: when `wake_at` has come, and not before."""
    talk = Talk(tools={})
    talk.greet()
    assert talk.session.probing
    due = talk.session.wake_at
    assert due is not None
    assert talk.session.tick(due - 0.1) == []
    assert talk.did(talk.session.tick(due)) == ["initialize"]
    assert talk.session.wake_at is None


def test_what_may_explain_that_it_is_not_ready() -> None:
    """Law 10: what it was sent, what came instead, and what may help."""
    talk = Talk(tools={}, prompts={})
    talk.greet()
    talk.session.noise(b'{"id": 1, "result": {}}', 1.0)
    talk.did(talk.session.tick(9.0))
    assert talk.session.hint == (
        "it was sent server/discover and initialize, and has not answered; the last line on its stdout was: "
        '{"id": 1, "result": {}}; an answer has `"jsonrpc": "2.0"` and the id of its request; '
        'if it is an older server, `protocol = "legacy"` in [servers.s] may help'
    )
    talk.answer("initialize", {"protocolVersion": "2025-11-25", "capabilities": talk.capabilities})
    assert talk.session.hint == "it has not answered tools/list, prompts/list"


@pytest.mark.parametrize("late", ["no", "yes", "garbage", "broken"])
def test_the_reply_to_the_probe_that_comes_after_initialize_is_of_no_account(late: str) -> None:
    """Section 5: a session that is agreed on is not opened again, nor given up, for a late answer."""
    talk = Talk(tools={})
    talk.greet()
    assert talk.session.wake_at is not None
    talk.did(talk.session.tick(talk.session.wake_at))
    talk.answer("initialize", {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}})
    if late == "no":
        did = talk.refuse("server/discover")
    elif late == "broken":
        did = talk.did(talk.session.reply(Broken(talk.last("server/discover")["id"], "NaN"), 0.0))
    else:
        found = {"supportedVersions": [MODERN_VERSION], "capabilities": {}} if late == "yes" else 5
        did = talk.answer("server/discover", found)
    assert did == []
    assert talk.tools("a") == ["Opened"]
    assert talk.session.era is Era.LEGACY


def test_a_probe_that_is_never_answered_is_forgotten_once_the_server_is_open() -> None:
    """Law 6: else its deadline would wake the broker for nothing, again and again."""
    talk = Talk(tools={})
    talk.greet()
    assert talk.session.wake_at is not None
    talk.did(talk.session.tick(talk.session.wake_at))
    talk.answer("initialize", {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}})
    assert talk.tools("a") == ["Opened"]
    assert talk.session.wake_at is None


def test_the_reply_to_initialize_that_comes_after_the_probe_is_of_no_account() -> None:
    """Section 5: a dual-era server is used as a modern one, and is not told that it was initialized."""
    talk = Talk(Era.MODERN, tools={})
    talk.greet()
    assert talk.session.wake_at is not None
    talk.did(talk.session.tick(talk.session.wake_at))
    talk.answer("server/discover", {"supportedVersions": [MODERN_VERSION], "capabilities": {"tools": {}}})
    assert talk.answer("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}) == []
    assert talk.tools("a") == ["Opened"]
    assert talk.session.era is Era.MODERN


def test_a_reply_to_no_request_is_not_taken() -> None:
    """Law 8: an id that it did not give is somebody else's, or nobody's."""
    talk = Talk(tools={}).open()
    reply = ServerReply(999, memoryview(b"{}"), None)
    assert talk.session.reply(ServerReply(999, reply.result, None), 0.0) is None
    assert talk.session.reply(ServerReply("1", reply.result, None), 0.0) is None
    assert talk.session.reply(ServerReply(talk.asked[0]["id"], reply.result, None), 0.0) is None
    assert talk.session.reply(Broken(999, "x"), 0.0) is None
    assert talk.session.reply(Broken(None, "x"), 0.0) is None


# --- lists that change -------------------------------------------------------------------------------


def test_a_changed_list_is_read_again() -> None:
    """Section 2: and the log says so, if it is another one."""
    talk = Talk(tools={}).open()
    assert talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0)) == ["tools/list"]
    assert talk.tools("a") == []
    talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0))
    assert talk.tools("a", "b") == ["catalogue.changed"]
    assert talk.names() == {"a", "b"}


def test_changes_while_a_list_is_being_read_are_read_once_more() -> None:
    """Law 6: however often the server says so, one reading at a time, and one after it."""
    talk = Talk(tools={}).open()
    talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0))
    for _ in range(5):
        assert talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0)) == []
    assert talk.tools("b") == ["catalogue.changed", "tools/list"]
    assert talk.tools("c") == ["catalogue.changed"]
    assert talk.names() == {"c"}


def test_a_change_while_the_server_is_being_opened_is_caught_up_with() -> None:
    """Section 2: a server that adds tools on `initialized` says so while its other lists are still read."""
    talk = Talk(tools={}, prompts={})
    talk.agree()
    talk.tools("a")
    assert talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0)) == []
    assert talk.answer("prompts/list", {"prompts": []}) == ["Opened"]
    assert talk.did(talk.session.catch_up(0.0)) == ["tools/list"]
    assert talk.tools("a", "b") == ["catalogue.changed"]
    assert talk.session.catch_up(0.0) == []


def test_a_server_whose_lists_change_all_the_time_is_opened_all_the_same() -> None:
    """Law 5: what it says about its lists delays nothing that it can do."""
    talk = Talk(tools={})
    talk.agree()
    talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0))
    assert talk.tools("a") == ["Opened"]


def test_a_change_of_another_list_is_none() -> None:
    """Law 8: what is not known to be a change is not taken for one."""
    talk = Talk(tools={}).open()
    assert talk.session.told(ServerNotification("notifications/resources/updated", None), 0.0) is None
    assert talk.session.told(ServerNotification("notifications/prompts/list_changed", None), 0.0) == []


def test_a_refresh_that_fails_leaves_the_old_list() -> None:
    """Section 2: a list that was good is better than none."""
    talk = Talk(tools={}).open()
    talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0))
    assert talk.refuse("tools/list") == ["list-unread"]
    assert talk.names() == {"a"}


def test_a_refresh_without_an_answer_is_given_up() -> None:
    """Law 6: its row goes at its deadline, and the late answer is nobody's."""
    talk = Talk(tools={}).open()
    dues = [talk.session.wake_at]
    talk.did(talk.session.told(ServerNotification(CHANGED, None), 100.0))
    dues.append(talk.session.wake_at)
    assert talk.session.tick(129.0) == []
    assert talk.did(talk.session.tick(130.0)) == ["list-unread"]
    assert [*dues, talk.session.wake_at] == [None, 130.0, None]
    late = ServerReply(talk.asked[-1]["id"], memoryview(b'{"tools":[]}'), None)
    assert talk.session.reply(late, 131.0) is None
    assert talk.did(talk.session.told(ServerNotification(CHANGED, None), 131.0)) == ["tools/list"]


def test_a_server_that_says_so_after_every_reading_is_not_read_all_the_time() -> None:
    """Law 5: a few times in a row, then once a second; the log says so."""
    talk = Talk(tools={}).open()
    for number in range(READ_BURST):
        assert talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0)) == ["tools/list"]
        talk.tools(str(number))
    assert talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0)) == ["catalogue.restless"]
    assert talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.5)) == []
    dues = [talk.session.wake_at]
    assert talk.did(talk.session.tick(READ_EVERY_S - 0.1)) == []
    assert talk.did(talk.session.tick(READ_EVERY_S)) == ["tools/list"]
    talk.tools("last", now=READ_EVERY_S)
    assert [*dues, talk.session.wake_at] == [READ_EVERY_S, None]
    assert talk.names() == {"last"}


def test_opened_is_said_once() -> None:
    """Section 2: the supervisor hears it once for each process."""
    talk = Talk(tools={}).open()
    talk.did(talk.session.told(ServerNotification(CHANGED, None), 0.0))
    talk.tools("z")
    assert [effect for effect in talk.effects if isinstance(effect, Opened)] == [Opened("s")]
