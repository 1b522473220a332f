"""`BrokerClient` hears what it listens to, and says so again after each loss; the peer is moved by hand."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest

from client_shim import BrokerClient, errors, wire
from client_shim.asyncio import channel
from tests.client_shim.asyncio.test_connection import Run, endpoint, fails, new_loop, on_loop
from tests.client_shim.peer import PATIENCE_S, Heard, Peer, until, while_greeting

__all__ = ["endpoint", "new_loop", "on_loop"]

TOOLS, UPDATED = "notifications/tools/list_changed", "notifications/resources/updated"
KINDS = ("tools", "resources", "prompts")


def params(heard: Heard) -> Any:
    """What a `listen` says."""
    assert (heard.message.service, heard.message.method) == (wire.MANAGEMENT, "listen")
    return json.loads(heard.body or b"")


def tell(peer: Peer, who: bytes, method: str, body: object, channel: int = 1, id: int = 0) -> None:
    """Tell a channel something unasked."""
    peer.send(who, wire.Notification(channel, id, "s", method), json.dumps(body).encode())


def answer(peer: Peer, heard: Heard, *servers: str) -> None:
    """Answer a `listen`."""
    peer.result(heard, json.dumps({"servers": servers}).encode())


async def heard_listen(peer: Peer, *servers: str) -> Heard:
    """Take a `listen`, and answer it."""
    heard = await peer.heard()
    params(heard)
    answer(peer, heard, *servers)
    return heard


def test_who_listens_says_so_before_anything_else(on_loop: Run, endpoint: str) -> None:
    """What it asks for afterwards is never older than what it hears."""

    async def main() -> None:
        seen: list[tuple[str, str]] = []
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint, on_list_changed=lambda *news: seen.append(news))
            ping = asyncio.ensure_future(client.ping())
            who = await peer.greet()
            assert params(await heard_listen(peer, "s")) == {"servers": None, "resources": {}}
            peer.result(await peer.heard())
            await ping
            tell(peer, who, TOOLS, {})
            tell(peer, who, "notifications/prompts/list_changed", {}, channel=0)
            tell(peer, who, TOOLS, {}, channel=2)
            tell(peer, who, "x/y", {})
            await until(lambda: len(seen) == 2)
            assert seen == [("s", "tools"), ("s", "prompts")]
            await client.aclose()

    on_loop(main())


def test_who_does_not_listen_says_nothing(on_loop: Run, endpoint: str) -> None:
    """Law 4: the broker holds nothing for a page that only calls; one that listens says so at once."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            quiet = BrokerClient("test", endpoint)
            await while_greeting(peer, quiet.connect())
            listens = BrokerClient("test", endpoint, on_notification=lambda *_: None)
            await listens.connect()
            assert (await heard_listen(peer)).message.channel == 2
            await quiet.aclose()
            await listens.aclose()

    on_loop(main())


def test_resources_are_subscribed_to_together(on_loop: Run, endpoint: str) -> None:
    """Each `listen` says all that is wanted; two at a time do not lose each other's."""

    async def main() -> None:
        seen: list[tuple[str, str]] = []
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint, on_resource_updated=lambda *news: seen.append(news))
            who = await while_greeting(peer, client.connect())
            both = asyncio.gather(client.subscribe_resource("s", "u"), client.subscribe_resource("t", "v"))
            assert params(await heard_listen(peer)) == {"servers": [], "resources": {"s": ["u"]}}
            assert params(await heard_listen(peer)) == {"servers": [], "resources": {"s": ["u"], "t": ["v"]}}
            await both
            tell(peer, who, UPDATED, {"uri": "u", "more": 1})
            await until(lambda: bool(seen))
            assert seen == [("s", "u")]
            gone = asyncio.ensure_future(client.unsubscribe_resource("s", "u"))
            assert params(await heard_listen(peer)) == {"servers": [], "resources": {"t": ["v"]}}
            await gone
            await client.aclose()

    on_loop(main())


def test_a_subscription_that_is_refused_is_none(on_loop: Run, endpoint: str) -> None:
    """Law 10: the error is the caller's, and the next change does not repeat what was refused."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            who = await while_greeting(peer, client.connect())
            refused = asyncio.ensure_future(fails(client.subscribe_resource("s", "u"), errors.MethodRefused))
            heard = await peer.heard()
            peer.send(who, wire.Fault(1, heard.message.id, "method-refused", "no", {}))
            await refused
            other = asyncio.ensure_future(client.subscribe_resource("s", "v"))
            assert params(await heard_listen(peer))["resources"] == {"s": ["v"]}
            await other
            await client.aclose()

    on_loop(main())


def test_one_server_that_cannot_be_heard_is_the_callers_error_and_nothing_elses(
    on_loop: Run, endpoint: str
) -> None:
    """The broker takes the rest and says which server is not heard; what was heard still is."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            first = asyncio.ensure_future(client.subscribe_resource("s", "u"))
            await heard_listen(peer)
            await first
            refused = asyncio.ensure_future(
                fails(client.subscribe_resource("gone", "v"), errors.UnknownServer)
            )
            heard = await peer.heard()
            assert params(heard)["resources"] == {"gone": ["v"], "s": ["u"]}
            why = {"code": "unknown-server", "message": "no server gone", "hint": "add it"}
            peer.result(heard, json.dumps({"servers": [], "not_subscribed": {"gone": why}}).encode())
            assert params(await heard_listen(peer))["resources"] == {"s": ["u"]}
            await refused
            await client.aclose()

    on_loop(main())


def test_a_broker_that_is_too_busy_to_be_listened_to_is_asked_again(
    on_loop: Run, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal that passes must not silence a client until its next connection."""
    monkeypatch.setattr(channel, "LISTEN_AGAIN_S", 0.01)

    async def main() -> None:
        seen: list[tuple[str, str]] = []
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint, on_list_changed=lambda *news: seen.append(news))
            await while_greeting(peer, client.connect())
            heard = await peer.heard()
            busy = wire.Fault(1, heard.message.id, "busy", "no room", {"retry_after_s": 0.01})
            peer.send(heard.who, busy)
            again = await heard_listen(peer, "s")
            tell(peer, again.who, TOOLS, {})
            await until(lambda: seen == [("s", "tools")])
            await client.aclose()

    on_loop(main())


def test_after_a_loss_it_listens_again_and_everything_may_have_changed(on_loop: Run, endpoint: str) -> None:
    """Never guess. Every list of every server, and every resource, is told of."""

    async def main() -> None:
        lists: list[tuple[str, str]] = []
        resources: list[tuple[str, str]] = []
        told: list[str] = []
        client = BrokerClient(
            "test",
            endpoint,
            reconnect_s=PATIENCE_S,
            on_list_changed=lambda *news: lists.append(news),
            on_resource_updated=lambda *news: resources.append(news),
            on_notification=lambda _server, method, _params: told.append(method),
        )
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            await heard_listen(peer, "s", "t")
            subscribed = asyncio.ensure_future(client.subscribe_resource("t", "u"))
            await heard_listen(peer, "s", "t")
            await subscribed
            assert (lists, resources) == ([], [])
        for loss in range(2):
            with Peer(endpoint, instance=str(loss)) as peer:
                await peer.greet()
                assert params(await heard_listen(peer, "s", "t")) == {
                    "servers": None,
                    "resources": {"t": ["u"]},
                }
                await until(lambda: bool(resources))
            assert lists == [(server, kind) for server in ("s", "t") for kind in KINDS]
            assert resources == [("t", "u")]
            assert told == [*(f"notifications/{kind}/list_changed" for kind in KINDS * 2), UPDATED]
            lists.clear()
            resources.clear()
            told.clear()
        await client.aclose()

    on_loop(main())


@pytest.mark.parametrize("how", ["raises", "no json", "no uri", "refused"])
def test_what_goes_wrong_with_news_is_logged_and_harms_nothing(
    on_loop: Run, endpoint: str, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Law 9: a callback of the backend's, a broken body, an older broker that knows no `listen`."""

    async def main() -> None:
        seen: list[object] = []

        def on_resource_updated(server: str, uri: str) -> None:
            seen.append(uri)
            raise ZeroDivisionError("a bug of the caller")

        with Peer(endpoint) as peer:
            client = BrokerClient(
                "test",
                endpoint,
                on_resource_updated=on_resource_updated,
                on_notification=lambda *_: seen.append("told"),
            )
            who = await while_greeting(peer, client.connect())
            listen = await peer.heard()
            if how == "refused":
                peer.send(who, wire.Fault(1, listen.message.id, "unknown-method", "no such command", {}))
            elif how == "no json":
                peer.send(who, wire.Notification(1, 0, "s", UPDATED), b"{")
            else:
                tell(peer, who, UPDATED, {"uri": "u"} if how == "raises" else [])
            ping = asyncio.ensure_future(client.ping())
            peer.result(await peer.heard())
            await ping
            await until(lambda: bool(caplog.records) or bool(seen))
            assert seen == {"raises": ["u", "told"], "no uri": ["told"]}.get(how, [])
            await client.aclose()

    on_loop(main())
    assert bool(caplog.records) is (how != "no uri")


def test_one_that_is_forgotten_listens_no_longer(on_loop: Run, endpoint: str) -> None:
    """Law 4: a goodbye of its channel, without a close and with its callback."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            keeps = BrokerClient("test", endpoint)
            await while_greeting(peer, keeps.connect())
            seen: list[object] = []
            forgotten = BrokerClient("test", endpoint, on_list_changed=lambda *news: seen.append(news))
            await forgotten.connect()
            await heard_listen(peer)
            del forgotten
            gc.collect()
            goodbye = (await peer.heard()).message
            assert (type(goodbye), goodbye.channel) == (wire.Goodbye, 2)
            await keeps.aclose()

    on_loop(main())


# --- during a call ------------------------------------------------------------------------------------


def test_log_messages_of_a_call_come_with_its_progress_in_order(on_loop: Run, endpoint: str) -> None:
    """Before the result; who asks for them asks the server for its level."""

    async def main() -> None:
        said: list[object] = []
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            who = await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(
                client.call_tool(
                    "s", "t", on_log=lambda *log: said.append(log), on_progress=lambda *p: said.append(p[0])
                )
            )
            heard = await peer.heard()
            assert heard.message.meta == {"io.modelcontextprotocol/logLevel": "info"}
            id = heard.message.id
            tell(peer, who, "notifications/message", {"level": "warning", "data": {"n": 1}}, id=id)
            tell(peer, who, "notifications/progress", {"progress": 1}, id=id)
            tell(peer, who, "notifications/message", {"level": "info", "data": 2, "logger": "x"}, id=id)
            tell(peer, who, "notifications/message", {"data": 3}, id=id)
            peer.result(heard)
            await call
            assert said == [("warning", {"n": 1}, None), 1, ("info", 2, "x")]
            tell(peer, who, "notifications/message", {"level": "info", "data": 4}, id=id)
            await client.aclose()

    on_loop(main())


def test_the_options_of_a_call_are_in_its_request(on_loop: Run, endpoint: str) -> None:
    """Capabilities, a level of its own, progress that extends, and the answers to a question."""

    async def main() -> None:
        capabilities: dict[str, object] = {"elicitation": {}}
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint, capabilities=capabilities)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(
                client.get_prompt(
                    "s",
                    "p",
                    {"a": "b"},
                    on_log=print,
                    progress_extends=True,
                    input_responses={"q": {"action": "accept"}},
                    request_state="state",
                    meta={"io.modelcontextprotocol/logLevel": "debug", "traceparent": "00-ab"},
                )
            )
            heard = await peer.heard()
            assert heard.message.flags == wire.WANTS_PROGRESS | wire.PROGRESS_EXTENDS
            assert heard.message.meta == {
                "io.modelcontextprotocol/clientCapabilities": capabilities,
                "io.modelcontextprotocol/logLevel": "debug",
                "traceparent": "00-ab",
            }
            assert json.loads(heard.body or b"") == {
                "name": "p",
                "arguments": {"a": "b"},
                "inputResponses": {"q": {"action": "accept"}},
                "requestState": "state",
            }
            peer.result(
                heard,
                b'{"resultType":"input_required","inputRequests":{"r":{"method":"m"}},"requestState":"s"}',
            )
            result = await call
            assert (result.input_required, result.request_state) == (True, "s")
            assert result.input_requests == {"r": {"method": "m"}}
            assert result.messages == []
            await client.aclose()

    on_loop(main())
