"""Laws 3, 4 and 9 for what servers say unasked, against every interleaving of everything.

The machine of `test_engine_model` goes on as it does there. Besides, channels listen, lists change,
resources are updated, and servers log. What a channel has heard must always be enough to know the lists as
they are; what it did not ask for, it must never hear.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from broker.core.clients.notifications import UNHEARD
from broker.core.mcp.meta import LOG_LEVEL
from client_shim import wire
from tests.core.clients.test_notifications import subscribed
from tests.core.fake_server import Json, Process
from tests.core.test_engine_model import CHANNELS, IDS, SERVERS, TOOLS, AnyInterleaving, Asked, Page
from tests.core.world import INSTANCE

CHANGED, UPDATED = "notifications/tools/list_changed", "notifications/resources/updated"
MESSAGE = "notifications/message"
Names = frozenset[str] | None
ChannelKey = tuple[bytes, int]


@dataclass
class Ears:
    """What a channel listens to, and the tools of each server as it knows them."""

    servers: frozenset[str]
    resources: dict[str, list[str]]
    seen: dict[str, Names]
    heard: list[tuple[str, str]] = field(default_factory=list)


class AnyNews(AnyInterleaving):
    """The same clients and servers; they have more to say to each other."""

    def __init__(self) -> None:
        self.ears: dict[ChannelKey, Ears] = {}
        self.answered: set[tuple[str, int]] = set()
        super().__init__()

    @initialize()
    def offer_more(self) -> None:
        for name, script in self.world.scripts.items():
            resources = {"subscribe": True, "listChanged": True}
            script.capabilities = {"tools": {"listChanged": True}, "resources": resources}
            script.hints = {"ttlMs": 1500} if name == "modern" else {}
            self.world.exit(name)
        self.world.wait(10.0)

    # -- what clients do --------------------------------------------------------------------------

    @precondition(lambda self: self.living())
    @rule(
        data=st.data(),
        channel=CHANNELS,
        servers=st.none() | st.lists(st.sampled_from([*SERVERS])),
        resources=st.dictionaries(st.sampled_from([*SERVERS]), st.lists(st.sampled_from(["u", "v"]))),
    )
    def listen(
        self, data: st.DataObject, channel: int, servers: list[str] | None, resources: dict[str, list[str]]
    ) -> None:
        page = data.draw(st.sampled_from(self.living()))
        id = next((id for id in range(1, 10) if id not in page.open), 0)
        if id == 0:
            return
        page.open[id] = Asked(channel, "listen", 0, 0.0, self.world.now, False, id)
        lane = (page.client.key, channel)
        self.ears.pop(lane, None)
        if servers is None or servers or any(resources.values()):
            names = frozenset(SERVERS if servers is None else servers)
            self.ears[lane] = Ears(names, resources, {name: self.tools(name) for name in SERVERS})
        request = wire.Request(channel, id, INSTANCE, wire.MANAGEMENT, "listen", None, 0, None)
        page.client.say(request, json.dumps({"servers": servers, "resources": resources}).encode())

    @precondition(lambda self: self.living())
    @rule(data=st.data(), channel=CHANNELS, id=IDS)
    def request_with_logs(self, data: st.DataObject, channel: int, id: int) -> None:
        page = data.draw(st.sampled_from(self.living()))
        if id not in page.open:
            meta = {LOG_LEVEL: "info"}
            self.ask(page, wire.Request(channel, id, INSTANCE, "modern", "tools/call", None, 0, meta), "echo")

    def release(self, page: Page, channel: int) -> None:
        self.ears.pop((page.client.key, channel), None)
        super().release(page, channel)

    # -- what servers do --------------------------------------------------------------------------

    @precondition(lambda self: self.running())
    @rule(data=st.data(), more=st.sampled_from([[], ["new"], ["newer"]]), told=st.booleans())
    def change_tools(self, data: st.DataObject, more: list[str], told: bool) -> None:
        process = data.draw(st.sampled_from(self.running()))
        process.script.lists["tools/list"] = [*TOOLS, *more]
        if told:
            process.tell("tools/list_changed")

    @precondition(lambda self: self.running())
    @rule(data=st.data(), uri=st.sampled_from(["u", "v", "w"]))
    def update(self, data: st.DataObject, uri: str) -> None:
        process = data.draw(st.sampled_from(self.running()))
        self.everybody_hears_what_is_for_him_and_hears_its_end_once()
        for ears in self.ears.values():
            ears.heard.clear()
        process.tell("resources/updated", uri=uri)
        self.everybody_hears_what_is_for_him_and_hears_its_end_once()
        if self.world.engine.servers[process.name].session is None:
            return
        for page in self.living():
            if not self.waits(page):
                for (key, _), ears in self.ears.items():
                    if key == page.client.key and uri in ears.resources.get(process.name, ()):
                        assert (process.name, uri) in ears.heard

    def answer(self, process: Process, request: Json, how: str) -> None:
        self.answered.add((process.name, request["id"]))
        super().answer(process, request, how)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def log(self, data: st.DataObject) -> None:
        """A server logs while it is at a call, which it does not name. It may be one that was given up."""
        process = data.draw(st.sampled_from(self.running()))
        at_work = [
            request
            for request in process.calls
            if (process.name, request["id"]) not in self.answered
            and self.world.now < process.at[request["id"]] + 30.0
            and LOG_LEVEL in request["params"].get("_meta", {})
        ]
        if at_work:
            request = data.draw(st.sampled_from(at_work))
            process.tell("message", level="info", data=request["params"]["arguments"]["secret"])

    # -- what must hold ---------------------------------------------------------------------------

    def tools(self, name: str) -> Names:
        """The tools of a server that who asks would get."""
        server = self.world.engine.servers.get(name)
        known = None if server is None else server.known
        return None if known is None else frozenset(known.names("tools/list"))

    def hear(self, page: Page, message: wire.Message, body: bytes | None) -> None:
        if not isinstance(message, wire.Notification) or (message.id and message.method != MESSAGE):
            super().hear(page, message, body)
        elif message.id:
            asked = page.open[message.id]
            assert (message.channel, json.loads(body or b"")["data"]) == (asked.channel, asked.secret)
        elif (page.client.key, message.channel) in self.ears:  # else it was on its way when that changed
            self.hear_news(self.ears[page.client.key, message.channel], message, json.loads(body or b""))
        else:
            assert self.waits(page) or page.unread_bytes

    def hear_news(self, ears: Ears, message: wire.Notification, params: Any) -> None:
        if message.method == CHANGED:
            ears.seen[message.service] = self.tools(message.service)
        elif message.method == UPDATED:
            ears.heard.append((message.service, params["uri"]))
        else:
            assert message.method in ("notifications/resources/list_changed", UNHEARD)

    def hear_result(self, asked: Asked, result: Any) -> None:
        if asked.method == "listen":
            assert set(result["servers"]) <= set(SERVERS)
        elif asked.method == "tools/list":
            names = {tool["name"] for tool in result["tools"]}
            assert {*TOOLS} <= names <= {*TOOLS, "new", "newer"}
        else:
            super().hear_result(asked, result)

    @invariant()
    def who_listens_knows_the_lists_as_they_are(self) -> None:
        for page in self.living():
            if not self.waits(page):
                for (key, _), ears in self.ears.items():
                    if key == page.client.key:
                        for name in ears.servers:
                            assert ears.seen[name] == self.tools(name)

    @invariant()
    def there_is_a_row_for_who_listens_and_for_nobody_else(self) -> None:
        living = {page.client.key for page in self.living()}
        self.ears = {lane: ears for lane, ears in self.ears.items() if lane[0] in living}
        table = self.world.engine.notifications.subscriptions
        assert len(table) == len(self.ears)
        for name in SERVERS:
            wanted = {uri for ears in self.ears.values() for uri in ears.resources.get(name, ())}
            assert set(table.uris(name)) == wanted

    def teardown(self) -> None:
        """And when everybody is gone, no server is subscribed to anything any more."""
        super().teardown()
        self.world.wait(10.0)
        for name, process in self.world.processes.items():
            if self.world.engine.servers[name].opened:
                assert subscribed(process) == []
        self.world.assert_empty()


TestAnyNews = AnyNews.TestCase
