"""Games of the pure core: odd servers and odd clients, with an honest client and an honest server among them.

What must hold, whatever the odd ones say: no exception escapes; each call of the honest client ends exactly
once and in time; a call to the honest server ends with its own answer (laws 2 and 3); at the end nothing is
left (law 4).
"""

from __future__ import annotations

import json
from random import Random

from broker.core.mcp.methods import Era
from broker.core.servers.lifecycle import State
from client_shim import wire
from tests.core.fake_server import Json
from tests.core.reloading import Reloads
from tests.core.world import ENDINGS, INSTANCE, Client, World
from tests.fuzz.odd import Odd
from tests.fuzz.talk import Frames, Lines

HONEST, ODD, ODD_MODERN = "honest", "odd", "new"
TIMEOUT_S = 20.0
STEPS = 120

_TABLES: dict[str, Json] = {
    HONEST: {},
    ODD: {"max_in_flight": 3, "start_limit_burst": 1000, "roots": ["file:///srv"]},
    ODD_MODERN: {"serialized": True, "start_limit_burst": 1000},
}
_ASKED = ("server/discover", "initialize", "ping", "tools/list", "resources/list", "subscriptions/listen")
_LIMITS = {"credit_bytes": 65_536, "outbox_bytes": 262_144, "max_message_bytes": 65_536}


class BrokerGame:
    """One game: a broker, some steps, and an end.

    Args:
        seed: names the game; the same seed plays the same game.
    """

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.inputs = 0
        odd = Odd(self.rng)
        self._world = World(_TABLES, **_LIMITS)
        self._world.scripts[ODD_MODERN].era = Era.MODERN
        self._reloads = Reloads(self._world)
        self._lines = Lines(odd)
        self._frames = Frames(odd, INSTANCE, list(_TABLES))
        self._connections = 0
        self._page = self._welcomed()
        self._raw = self._world.stranger(b"raw-0")
        self._open: dict[int, tuple[str, float]] = {}
        self._answered = 0

    def play(self) -> None:
        """The whole game.

        Raises:
            AssertionError: something that must hold did not.
        """
        for name in (ODD, ODD_MODERN):  # what a mute one answers, if anything, is what is drawn
            mute = self.rng.sample(_ASKED, self.rng.choice((0, 0, 1, len(_ASKED))))
            self._world.scripts[name].mute = set(mute)
        for name in _TABLES:
            self._world.start(name)
        steps = (self._call, self._odd_line, self._odd_line, self._odd_frame, self._odd_frame, self._disturb)
        for _ in range(STEPS):
            self.rng.choice(steps)()
            self._honest_server_answers()
            self._page_reads()
        self._end()

    # -- the honest ones --------------------------------------------------------------------------

    def _welcomed(self) -> Client:
        self._connections += 1
        return self._world.client(b"page-%d" % self._connections)

    def _call(self) -> None:
        server = self.rng.choice((HONEST, HONEST, ODD, ODD_MODERN))
        id = self._page.call(server, timeout_ms=int(TIMEOUT_S * 1000), flags=wire.WANTS_PROGRESS)
        self._open[id] = (server, self._world.now + TIMEOUT_S)

    def _honest_server_answers(self) -> None:
        process = self._world.processes.get(HONEST)
        waiting = (
            [] if process is None else [call for call in process.calls if call["id"] not in process.answered]
        )
        if process is not None and waiting and self.rng.randrange(2):
            call = self.rng.choice(waiting)
            process.reply(call, {"for": call["id"]})

    def _page_reads(self) -> None:
        inbox, self._page.inbox = self._page.inbox, []
        self._raw.inbox.clear()
        read_bytes = sum(wire.cost(wire.encode(message), body) for message, body in inbox)
        for message, body in inbox:
            self._hear(message, body)
        if read_bytes:
            self._page.say(wire.Credit(0, 0, read_bytes))

    def _hear(self, message: wire.Message, body: bytes | None) -> None:
        if not isinstance(message, ENDINGS):
            assert message.id in self._open or message.id == 0, f"{message} is about no open call"
            return
        assert message.id in self._open, f"a second ending: {message}"
        server, _ = self._open.pop(message.id)
        if server == HONEST and isinstance(message, wire.Result):
            assert "for" in json.loads(body or b""), "another server's answer"
        assert not (isinstance(message, wire.Fault) and message.code == wire.Code.INTERNAL), message

    # -- the odd ones -----------------------------------------------------------------------------

    def _odd_line(self) -> None:
        process = self._world.processes.get(self.rng.choice((ODD, ODD_MODERN)))
        if process is not None:
            self.inputs += 1
            process.say(self._lines.line(list(process.at)))

    def _odd_frame(self) -> None:
        if self._raw.key in self._world.closed or not self.rng.randrange(40):
            self._new_raw()
        self.inputs += 1
        header, body = self._frames.of_client()
        self._raw.send(header, body)

    def _new_raw(self) -> None:
        if self._raw.key not in self._world.closed:
            self._world.cut(self._raw)
        self._connections += 1
        self._raw = self._world.stranger(b"raw-%d" % self._connections)
        if self.rng.randrange(5):
            self._raw.hello()

    def _disturb(self) -> None:
        world, name = self._world, self.rng.choice((ODD, ODD_MODERN))
        state = world.lifecycles[name].state
        has_process = name in world.processes and state is not State.DRAINING
        how = self.rng.randrange(8)
        if how == 0 and has_process:
            world.exit(name)
        elif how == 1 and has_process:
            world.restart(name)
        elif how == 2 and has_process:
            world.run(world.engine.registry.congested, name, bool(self.rng.randrange(2)))
        elif how == 3:
            world.run(world.engine.registry.heard, name)
        elif how == 4:
            self._manage()
        elif how == 5:
            self._reload()
        else:
            world.wait(self.rng.choice((0.0, 0.01, 1.0, 4.0, 11.0)))

    def _manage(self) -> None:
        if self._world.managing:
            self._world.managed(self._world.managing.pop(), b'{"done":true}')

    def _reload(self) -> None:
        for name in list(self._reloads.under_way):
            self._reloads.go_on(name)
        if not self._reloads.under_way:
            env = {"A": str(self.rng.randrange(3))}
            self._reloads.reload({**_TABLES, ODD: {**_TABLES[ODD], "env": env}}, **_LIMITS)

    # -- the end ----------------------------------------------------------------------------------

    def _end(self) -> None:
        self._world.wait(2 * TIMEOUT_S)
        self._page_reads()
        overdue = {id: server for id, (server, by) in self._open.items() if by < self._world.now}
        assert not overdue, f"calls without an end: {overdue}"
        while self._world.managing:
            self._manage()
        self._world.cut(self._page)
        if self._raw.key not in self._world.closed:
            self._world.cut(self._raw)
        for name in _TABLES:
            if self._world.lifecycles[name].state is not State.STOPPED:
                self._world.stop(name)
        self._world.wait(100.0)
        self._world.assert_empty()
