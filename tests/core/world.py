"""One engine with its lifecycles in a test: time is a number, processes and clients are lists.

`World` does what `hub` and `supervisor` do with the core's effects, and holds the core to what they rely
on: nothing is sent to a closed connection, nothing is written to a server that has no process.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from broker.base.backlog import JobKey
from broker.config.loading import load
from broker.config.schema import Config, ServerConfig
from broker.core.clients.connections import CloseReason, Peer, Send
from broker.core.effects import (
    Admit,
    Closed,
    CreditExhausted,
    Demand,
    Effect,
    EndProcess,
    Hold,
    Idle,
    Log,
    LogOutput,
    Manage,
    Opened,
    Respawn,
    Write,
)
from broker.core.engine import Engine
from broker.core.refusals import Refusal
from broker.core.servers.backoff import Backoff
from broker.core.servers.lifecycle import Action, Ending, Event, Lifecycle, State
from client_shim import wire
from tests.core.fake_server import Json, Process, Script
from tests.core.residue import residue

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    Arguments = TypeVarTuple("Arguments")

INSTANCE = "i-1"
ENDINGS = (wire.Result, wire.Error, wire.Fault)
MAX_STEPS = 10_000


class Client:
    """One connection of a client: all that it was sent."""

    def __init__(self, world: World, key: bytes, peer: Peer) -> None:
        self.key = key
        self.inbox: list[tuple[wire.Message, bytes | None]] = []
        self._world = world
        self.peer = peer
        self._ids = 0

    def say(self, message: wire.Message, body: bytes | None = None) -> None:
        """Send a message as the shim does."""
        self.send(wire.encode(message), body)

    def send(self, header: bytes, body: bytes | None = None) -> None:
        """Send any bytes."""
        world = self._world
        world.run(world.engine.clients.received, self.key, self.peer, header, body)

    def hello(self, name: str = "page") -> wire.Message:
        """Say hello, for the answer."""
        self.say(wire.Hello(0, 0, [wire.VERSION], {"name": name, "version": "1", "pid": 7}))
        return self.inbox.pop()[0]

    def request(
        self, service: str, method: str, params: object = None, *, body: bytes | None = None, **fields: Any
    ) -> int:
        """Send a request; its id. `fields` are those of the wire's Request that are not as usual."""
        self._ids += 1
        usual = wire.Request(1, self._ids, INSTANCE, service, method, None, 0, None)
        request = usual._replace(**fields)
        self.say(request, json.dumps(params).encode() if params is not None else body)
        return request.id

    def call(self, service: str = "time", tool: str = "echo", **fields: Any) -> int:
        """Call a tool; the id of the request."""
        return self.request(service, "tools/call", {"name": tool, "arguments": {}}, **fields)

    def listen(self, servers: list[str] | None = None, channel: int = 1, **resources: list[str]) -> int:
        """Say what a channel wants to hear: the lists of all servers by default; the id of the request."""
        params = {"servers": servers, "resources": resources}
        return self.request(wire.MANAGEMENT, "listen", params, channel=channel)

    def told(self) -> list[tuple[int, str, str, Any]]:
        """What it was told unasked since the last time: channel, server, method, params."""
        told = [item for item in self.inbox if isinstance(item[0], wire.Notification) and not item[0].id]
        self.inbox = [item for item in self.inbox if item not in told]
        return [_news(message, body) for message, body in told]

    def news(self) -> list[tuple[int, str, str, Any]]:
        """The same with the end of each method only, which is that of a notification of MCP."""
        cut = len("notifications/")
        return [(channel, server, method[cut:], params) for channel, server, method, params in self.told()]

    def endings(self, id: int) -> list[tuple[wire.Message, bytes | None]]:
        """How often and how a request ended."""
        return [item for item in self.inbox if isinstance(item[0], ENDINGS) and item[0].id == id]

    def result(self, id: int) -> Any:
        """The result of a request which ended once, and well."""
        ((message, body),) = self.endings(id)
        assert isinstance(message, wire.Result), message
        assert body is not None
        return json.loads(body)

    def only_fault(self) -> wire.Fault:
        """The one message that it was sent."""
        ((message, _),) = self.inbox
        assert isinstance(message, wire.Fault)
        self.inbox.clear()
        return message

    def fault(self, id: int) -> wire.Fault:
        """The fault of a request which ended once, by the broker."""
        ((message, _),) = self.endings(id)
        assert isinstance(message, wire.Fault), message
        return message


class World:
    """A broker without I/O.

    Args:
        servers: the tables of `[servers]`; a command is added. By default there is one server, "time".
        budget: the keys of `[broker]` that limit how many servers run.
        limits: the keys of `[limits]`.
    """

    def __init__(
        self,
        servers: Mapping[str, Json] | None = None,
        budget: Mapping[str, int] | None = None,
        /,
        **limits: int,
    ) -> None:
        tables = {name: {"command": "x", **table} for name, table in (servers or {"time": {}}).items()}
        self.budget = dict(budget or {})
        self.config: Config = load({"servers": tables, "limits": limits, "broker": self.budget}, {})
        self.now = 1000.0
        self.lifecycles = {name: self.lifecycle_of(self.config.servers[name]) for name in tables}
        self.engine = Engine(self.config, self.lifecycles, instance=INSTANCE, version="0.1.0")
        self.scripts = {name: Script() for name in tables}
        self.processes: dict[str, Process] = {}
        self.ever: list[Process] = []
        """Every process that there ever was, with all that it was sent."""
        self.spawned: dict[str, int] = dict.fromkeys(tables, 0)
        self.clients: dict[bytes, Client] = {}
        self.closed: dict[bytes, CloseReason] = {}
        self.lost: set[bytes] = set()
        self.held: dict[bytes, float] = {}
        """Whose next messages can wait, and until when."""
        self.notes: list[Log] = []
        self.kept: list[LogOutput] = []
        self.managing: list[Manage] = []
        self.lines: deque[tuple[Process, bytes]] = deque()
        self.slow_to_end: set[str] = set()
        self.reads_on = True
        """Whether a long message is read to its end before anything else happens."""
        self.refills = True
        """Whether nothing is ever left to be read of who has used up its credit."""

    def lifecycle_of(self, config: ServerConfig) -> Lifecycle:
        """The automaton of a server in its first state."""
        return Lifecycle(restart=config.restart, start_s=config.timeout_start_sec, backoff=backoff_of(config))

    # -- clients ----------------------------------------------------------------------------------

    def stranger(self, key: bytes = b"a") -> Client:
        """A connection that has not said hello."""
        self.clients[key] = Client(self, key, Peer(1000, 1000, 42))
        return self.clients[key]

    def client(self, key: bytes = b"a") -> Client:
        """A connection that is welcome."""
        client = self.stranger(key)
        assert isinstance(client.hello(), wire.Welcome)
        return client

    def cut(self, client: Client) -> None:
        """The transport says that the connection is lost."""
        self.lost.add(client.key)
        self.run(self.engine.clients.lost, client.key)

    def managed(self, request: Manage, outcome: bytes | Refusal) -> None:
        """A management request was carried out."""
        self.run(self.engine.clients.managed, request, outcome)

    # -- servers ----------------------------------------------------------------------------------

    def start(self, name: str = "time") -> Process:
        """Start a server, and let it be ready unless its script keeps it from that."""
        self.feed(name, Event.START)
        return self.processes[name]

    def rest(self, name: str = "time") -> None:
        """The broker starts, and the server waits for its first call."""
        self.feed(name, Event.IDLE)

    def stop(self, name: str = "time") -> None:
        """An operator stops a server."""
        self.feed(name, Event.STOP)

    def restart(self, name: str = "time") -> None:
        """An operator restarts a server that has a process: a stop and a start in one."""
        lifecycle = self.lifecycles[name]
        assert lifecycle.on(Event.STOP, self.now) is Action.END
        lifecycle.on(Event.START, self.now)
        self.run(self.engine.registry.gone, name, lifecycle.reason)
        if name not in self.slow_to_end:
            self.bury(name)

    def exit(self, name: str = "time", reason: str = "it exited with status 1") -> None:
        """Its process ends by itself."""
        probing = self.lifecycles[name].state is State.HANDSHAKE and self.engine.servers[name].probing
        self.feed(name, Event.LEGACY if probing else Event.EXITED, Ending(reason))

    def bury(self, name: str) -> None:
        """Nothing is left of a process that was slow to end."""
        self.slow_to_end.discard(name)
        del self.processes[name]
        self.feed(name, Event.GONE)

    def feed(self, name: str, event: Event, ending: Ending | None = None) -> None:
        """Tell a lifecycle what happened, and do what it says."""
        action = self.lifecycles[name].on(event, self.now, ending)
        if action is Action.SPAWN:
            assert name not in self.processes, "a second process"
            self.run(self.engine.budget.ask, name)
            if self.engine.servers[name].room is None and name not in self.processes:
                self._spawn(name)
        elif action is Action.END:
            self.run(self.engine.registry.gone, name, self.lifecycles[name].reason)
            if name not in self.slow_to_end:
                self.bury(name)
        elif action is Action.REST:
            self.run(self.engine.registry.rests, name)
        self.run(self.engine.budget.changed)

    def _spawn(self, name: str) -> None:
        self.processes[name] = Process(self, name, self.scripts[name])
        self.ever.append(self.processes[name])
        self.spawned[name] += 1
        self.feed(name, Event.SPAWNED)
        self.run(self.engine.registry.spawned, name)

    # -- effects and time -------------------------------------------------------------------------

    def run(self, event: Callable[[Unpack[Arguments], float], object], *arguments: Unpack[Arguments]) -> None:
        """Tell a part of the engine of an event, run the effects, and let the servers answer."""
        self._do(self.step(event, *arguments))
        self.settle()

    def step(
        self, event: Callable[[Unpack[Arguments], float], object], *arguments: Unpack[Arguments]
    ) -> list[Effect]:
        """Tell a part of the engine of an event, and return the effects."""
        event(*arguments, self.now)
        return self.engine.finish(self.now)

    def _do(self, effects: list[Effect]) -> None:
        unfit = set()
        for effect in effects:
            if isinstance(effect, Send):
                self._post(effect)
            elif isinstance(effect, Write):
                if effect.server not in unfit:  # what follows in the same step is for a process that is ended
                    self.processes[effect.server].take(effect.line)
            elif isinstance(effect, Opened):
                self.feed(effect.server, Event.OPENED)
            elif isinstance(effect, EndProcess):
                unfit.add(effect.server)
                self.feed(effect.server, Event.FAILED, Ending(effect.reason))
            elif isinstance(effect, Respawn):
                self.feed(effect.server, Event.LEGACY, Ending(effect.reason))
            elif isinstance(effect, Demand):
                self.feed(effect.server, Event.DEMAND)
            elif isinstance(effect, Idle):
                if self.lifecycles[effect.server].state in (State.STARTING, State.READY):
                    self.feed(effect.server, Event.IDLE)
            elif isinstance(effect, Admit):
                self._spawn(effect.server)
            elif isinstance(effect, CreditExhausted) and self.refills:
                self.run(self.engine.clients.flow.refill, effect.connection)
            else:
                self._record(effect)

    def _post(self, post: Send) -> None:
        assert post.connection not in self.closed, "sent to a closed connection"
        message = wire.decode(post.header)
        body = None if post.body is None else bytes(post.body)
        wire.check_body(message, body)
        self.clients[post.connection].inbox.append((message, body))

    def _record(self, effect: Effect) -> None:
        if isinstance(effect, Closed):
            self.closed[effect.connection] = effect.reason
        elif isinstance(effect, Hold):
            self.held[effect.connection] = effect.until
        elif isinstance(effect, LogOutput):
            self.kept.append(effect)
        elif isinstance(effect, Manage):
            self.managing.append(effect)
        elif isinstance(effect, Log):
            self.notes.append(effect)

    def settle(self) -> None:
        """Hand the engine every line that a server wrote, in order."""
        for _ in range(MAX_STEPS):
            if self.reads_on and self._is_reading():
                self.run(self.engine.tick)
                continue
            if not self.lines:
                return
            process, line = self.lines.popleft()
            if self.processes.get(process.name) is process:
                self.run(self.engine.replies.line, process.name, line)
        raise AssertionError("the servers and the broker talk without an end")

    def _is_reading(self) -> bool:
        """Whether a long message is being read in pieces: the next one of its sender waits."""
        backlog = self.engine.backlog
        return bool(backlog) and any(key in backlog for key in self._readings())

    def _readings(self) -> Iterator[JobKey]:
        yield from (JobKey("line", name) for name in self.engine.servers)
        yield from (JobKey("requests", connection=key) for key in self.clients)

    def wait(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due meanwhile, each at its own moment."""
        until = self.now + seconds
        for _ in range(MAX_STEPS):
            due = self._due()
            if due is None or due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            for name, lifecycle in self.lifecycles.items():
                if lifecycle.wake_at is not None and lifecycle.wake_at <= self.now:
                    self.feed(name, Event.TIMEOUT)
            self.run(self.engine.tick)
        raise AssertionError("something is due without an end")

    def _due(self) -> float | None:
        times = [self.engine.wake_at(), *(lifecycle.wake_at for lifecycle in self.lifecycles.values())]
        return min((time for time in times if time is not None), default=None)

    def assert_empty(self) -> None:
        """No call, line, channel or request has left anything behind, in whatever table there is."""
        engine = self.engine
        assert engine.dispatch.table.next_deadline() is None  # and so the deadlines that were are forgotten
        connected = {"Connections._by_key": len(engine.connections)} if len(engine.connections) else {}
        left = residue(engine)
        refused = left.pop("Throttle._debts", 0)
        assert refused <= len(self.clients.keys() - self.closed.keys() - self.lost)  # who may still say more
        assert left == connected, left
        assert engine.dispatch.table.body_bytes == 0
        assert repr(engine.notifications.subscriptions) == "<Subscriptions channels=0 uris=0 servers=0>"
        for server in engine.servers.values():
            lease = server.queue.lease
            assert lease is None or engine.connections.get(lease.holder[0]) is not None
            assert (server.queue.waiting, server.queue.running, server.queue.reserved) == (0, 0, 0)


def backoff_of(config: ServerConfig) -> Backoff:
    """Its restart delays, without chance."""
    return Backoff(
        first_delay_s=config.restart_sec,
        burst=config.start_limit_burst,
        interval_s=config.start_limit_interval_sec,
        rng=lambda: 0.5,
    )


def _news(message: wire.Message, body: bytes | None) -> tuple[int, str, str, Any]:
    assert isinstance(message, wire.Notification)
    return message.channel, message.service, message.method, json.loads(body or b"")


def ready(**table: object) -> World:
    """A broker with one server, "time", that is ready; its keys in the config are `table`."""
    world = World({"time": table})
    world.start()
    return world
