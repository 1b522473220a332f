"""What a client with a key may manage and is told: of the servers that it may use, and of no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import tomli
import trio
from hypothesis import given
from hypothesis import strategies as st

from broker.config.keys import KeyConfig
from broker.config.loading import ConfigError, load
from broker.core.clients.connections import Peer
from broker.frontend.address import ListenAddress
from broker.management.commands import COMMANDS, manage
from broker.management.context import Context
from broker.management.reload import ReloadOutcome, ServerOutcome
from broker.upstream.control import Intent
from client_shim import wire
from tests.core.clients.test_key_rights import authorize
from tests.core.world import World

OF_A_SERVER = ("stop", "restart", "start", "release", "logs")


class Supervisors(dict[str, Any]):
    """Supervisors of servers without a process, which note what they are asked to do."""

    def __init__(self, names: list[str]) -> None:
        log = SimpleNamespace(written=0, lines=())
        super().__init__({name: SimpleNamespace(log=log, process=None, newest_lines=list) for name in names})
        self.done: list[tuple[Intent, str]] = []

    def begin(self, intent: Intent, name: str) -> None:
        self.done.append((intent, name))

    async def carry_out(self, intent: Intent, name: str) -> None:
        self.done.append((intent, name))

    async def trees(self) -> dict[str, object]:
        return {}


class Place:
    """A broker with these servers, and one client, whose key grants this. Each reload has this outcome."""

    def __init__(self, grant: KeyConfig, *servers: str, outcome: ReloadOutcome | None = None) -> None:
        self.world = World({name: {"lease_sec": 30} for name in servers})
        authorize(self.world, laptop=grant)
        self.supervisors = Supervisors(list(servers))
        self.client = self.world.stranger(b"k")
        self.client.peer = Peer(key="laptop", public="laptop")
        self.client.hello()
        self._outcome = outcome or ReloadOutcome("command")

    def carry_out(self) -> None:
        """The tasks start that carry out the management requests."""
        trio.run(self._carry_out)

    async def _carry_out(self) -> None:
        async def reload(by: str) -> ReloadOutcome:
            return self._outcome

        now = trio.current_time()
        reloader = SimpleNamespace(reload=reload, last=(now, self._outcome), loaded_at=now, waiting=())
        hub: Any = SimpleNamespace(engine=self.world.engine, run=self.world.run)
        supervisors: Any = self.supervisors
        addresses = (ListenAddress("ipc:///b.sock"),)
        context = Context(hub, supervisors, cast(Any, reloader), addresses, "broker.toml", now)
        while self.world.managing:
            await manage(context, self.world.managing.pop(0))

    def said(self) -> str:
        """All that the client was sent."""
        return "".join(f"{message!r}{(body or b'').decode()}" for message, body in self.client.inbox)


@pytest.mark.parametrize("stays", [True, False], ids=["stays", "says goodbye"])
@pytest.mark.parametrize("command", OF_A_SERVER)
def test_a_key_manages_no_server_that_it_does_not_grant(command: str, stays: bool) -> None:
    """The grant is that of the request, also if its connection has ended before the command is carried out.

    Nor is a server meant by a request that names none.
    """
    place = Place(KeyConfig(servers=("ti*",), manage=True), "time", "secret", "None")
    for params in ({"server": name} for name in ("secret", "None", "nothing", "", None, ["secret"])):
        place.client.request(wire.MANAGEMENT, command, params)
    place.client.request(wire.MANAGEMENT, command, {})
    assert len(place.world.managing) == 7
    if not stays:
        place.client.say(wire.Goodbye(0, 0, "bye"))
    place.carry_out()
    assert not place.supervisors.done
    assert not any(isinstance(message, wire.Result) for message, _ in place.client.inbox)


@pytest.mark.parametrize("stays", [True, False], ids=["stays", "says goodbye"])
def test_a_key_manages_the_servers_that_it_grants(stays: bool) -> None:
    """Whether or not it waits for the answer."""
    place = Place(KeyConfig(servers=("ti*",), manage=True), "time", "secret")
    for command in OF_A_SERVER:
        place.client.request(wire.MANAGEMENT, command, {"server": "time"})
    if not stays:
        place.client.say(wire.Goodbye(0, 0, "bye"))
    place.carry_out()
    assert place.supervisors.done == [
        (Intent.STOP, "time"),
        (Intent.RESTART, "time"),
        (Intent.START, "time"),
    ]


SERVERS = ("quokka", "wombat two", "numbat.x", "Zikade", "考拉")
"""Names that no text of the broker has by chance."""


def mistakes() -> tuple[str, ...]:
    """What the config reader says of a file in which every server has mistakes, and of one without TOML."""
    table = {"command": 1, "nonsense": 2, "tools": {"hide": 3}}
    with pytest.raises(ConfigError) as found:
        load({"servers": dict.fromkeys(SERVERS, table), "quokka": {}, "limits": {"calls": 0}}, {})
    with pytest.raises(tomli.TOMLDecodeError) as unreadable:
        tomli.loads("[servers.quokka]\n[servers.quokka]\n")
    assert "quokka" in str(unreadable.value)
    return *map(str, found.value.problems), f"broker.toml: not TOML: {unreadable.value}"


CHANGES = tuple(ServerOutcome(name, "left_out", problems=(f"servers.{name}",)) for name in SERVERS)
OUTCOMES = (ReloadOutcome("command", problems=mistakes()), ReloadOutcome("SIGHUP", servers=CHANGES))


@given(
    granted=st.sets(st.sampled_from(SERVERS)),
    may_manage=st.booleans(),
    outcome=st.sampled_from(OUTCOMES),
    asked=st.sampled_from([*SERVERS, "quoka", "nothing"]),
)
def test_a_limited_client_is_told_of_no_server_that_it_may_not_use(
    granted: set[str], may_manage: bool, outcome: ReloadOutcome, asked: str
) -> None:
    """No answer, refusal or notification has the name of another server, but one that the client said."""
    grant = KeyConfig(servers=(*sorted(granted), "quok?", "noth*"), manage=may_manage)
    place = Place(grant, *SERVERS, outcome=outcome)
    for kind in (*COMMANDS, "nonsense", "tools/list", "tools/call"):
        service = asked if "/" in kind else wire.MANAGEMENT
        place.client.request(service, kind, {"server": asked, "name": "echo"})
    place.client.listen()
    place.client.listen([asked], channel=2)
    for name in SERVERS:
        place.world.start(name)
        place.world.processes[name].tell("tools/list_changed")
    place.carry_out()
    assert len(place.client.inbox) >= len(COMMANDS) + 5
    for name in {*SERVERS} - granted - {asked}:
        assert name not in place.said()


@pytest.mark.parametrize("command", ["status", "reload"])
def test_a_limited_client_is_told_of_the_mistakes_of_its_servers(command: str) -> None:
    """And how many others there are. A client that may use every server is told of all."""
    outcome = OUTCOMES[0]
    told = {}
    for patterns in (("wombat*", "考?"), ("*",)):
        place = Place(KeyConfig(servers=patterns, manage=True), *SERVERS, outcome=outcome)
        id = place.client.request(wire.MANAGEMENT, command, {})
        place.carry_out()
        answer = place.client.result(id)
        told[patterns] = answer["broker"]["config_error"] if command == "status" else answer
    limited, everything = (list(one["problems"]) for one in told.values())
    assert everything == list(outcome.problems)
    assert len(limited) == 7
    assert all("wombat two" in one or "考拉" in one for one in limited[:6])
    assert f"other mistakes ({len(outcome.problems) - 6})" in limited[6]
