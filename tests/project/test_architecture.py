"""Who may import whom: the rules of the house, read from the source tree.

`ROOMS` says which rooms of the broker each room may import, and `SHIM_ROOMS` the same of the shim; nothing
imports in a circle. The rules below say what else single modules never import, or all that they do. An
import inside a function counts, and so does one for type checkers, unless the rule is about what an import
costs. Each rule carries sources that break it, so that it is known to bite.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import resolve_name
from pathlib import Path
from subprocess import PIPE, run

import pytest

ROOT = Path(__file__).parents[2]

STANDARD_LIBRARY = " ".join(sys.stdlib_module_names)

WORLD = (
    "asyncio concurrent ctypes fcntl http io multiprocessing os pathlib random secrets select selectors "
    "signal socket socketserver ssl subprocess tempfile threading _thread time urllib uuid"
)
"""What the standard library has of clocks, chance, files, sockets, threads and processes."""

PURE = " ".join(sys.stdlib_module_names - set(WORLD.split()))

PURE_READERS = (
    "broker.processes.container_options "
    "broker.processes.runners "
    "broker.upstream.control "
    "broker.upstream.stdio.diagnosis "
    "broker.upstream.stdio.severity "
    "broker.upstream.stdio.stderr_lines "
    "broker.upstream.stdio.tracebacks "
)
GATEWAY_CORE = " ".join(
    f"broker.gateway.{x}"
    for x in (
        "conversation.client_session",
        "conversation.conversation",
        "conversation.effects",
        "conversation.eras",
        "conversation.faults",
        "conversation.jsonrpc",
        "conversation.parked_calls",
        "conversation.questions",
        "conversation.requests",
        "conversation.server_questions",
        "conversation.subscribing",
        "conversation.subscriptions",
        "http.connection_limit",
        "http.guard",
        "http.headers",
        "http.refusals",
        "http.session_ids",
        "http.session_preferences",
        "http.sse",
        "http.tool_lists",
        "tokens",
    )
)
COMMAND_LINE = (
    "broker.command.cli broker.command.start_stop broker.command.common broker.__main__ broker.command.entry"
)
SHIM_CORE = " ".join(
    f"client_shim.{x}"
    for x in (
        "protocol.state",
        "protocol.backoff",
        "protocol.outbox",
        "protocol.payload",
        "protocol.events",
        "protocol.reasons",
        "protocol.calls",
        "protocol.questions",
        "protocol.question_bodies",
        "protocol.input_required",
        "questions",
        "errors",
        "text",
    )
)


ROOMS = {
    "broker.__main__": "command gateway",
    "broker.command": "gateway daemon processes service config base",
    "broker.gateway": "service config base",
    "broker.daemon": "management upstream frontend processes service hub core config base",
    "broker.management": "upstream frontend processes service hub core config base",
    "broker.upstream": "processes service hub core config base",
    "broker.processes": "service core config base",
    "broker.frontend": "service hub core config base",
    "broker.service": "core config base",
    "broker.hub": "core config base",
    "broker.core": "config base",
    "broker.config": "base",
    "broker.base": "",
}
"""room → the rooms that it may import, from the top of the house to its ground"""

CORE_ROOMS = {
    "broker.core.engine": "clients calls servers mcp effects refusals",
    "broker.core.clients": "calls servers mcp effects refusals",
    "broker.core.calls": "clients servers mcp effects refusals",
    "broker.core.servers": "clients calls mcp effects refusals",
    "broker.core.effects": "clients",
    "broker.core.refusals": "calls",
    "broker.core.mcp": "",
}
"""The same within the core. Clients, calls and servers share a floor with what the core returns and what it
says: there it is modules that have no circle."""

GATEWAY_ROOMS = {
    "broker.gateway.program": "http stdio audit addresses settings",
    "broker.gateway.http": "audit conversation settings tokens addresses byte_budget",
    "broker.gateway.stdio": "audit conversation addresses",
    "broker.gateway.audit": "conversation settings",
    "broker.gateway.conversation": "byte_budget",
    "broker.gateway.settings": "addresses tokens",
    "broker.gateway.tokens": "",
    "broker.gateway.addresses": "",
    "broker.gateway.byte_budget": "",
}
"""The same within the gateway."""

_GROUND = " errors key_file keys lease log permissions questions results text trusted version wire"

SHIM_ROOMS = {
    "client_shim.backend": "asyncio" + _GROUND,
    "client_shim.asyncio": "transport protocol" + _GROUND,
    "client_shim.blocking": "transport protocol" + _GROUND,
    "client_shim.transport": "protocol" + _GROUND,
    "client_shim.protocol": _GROUND,
}
"""The same within the shim. What is on the ground stands where users import it, or is needed by all."""


@dataclass(frozen=True)
class Import:
    """What an import names: `from a import b` is `a.b`. `deferred`: in a function, or for type checkers."""

    name: str
    line: int
    deferred: bool


@dataclass(frozen=True)
class Rule:
    """`who`, without `not_who`, imports none of `never` but what `unless` says, or nothing else than `only`.

    The first two are patterns of modules, the others names of what is imported with all that is below them,
    each parted by spaces. A rule about `cost` leaves out deferred imports. `broken_by` are sources that
    break it, each with the name of a module and a colon before it.
    """

    law: str
    who: str
    broken_by: tuple[str, ...]
    not_who: str = ""
    never: str = ""
    unless: str = ""
    only: str = ""
    cost: bool = False

    def speaks_of(self, module: str) -> bool:
        return _matches(module, self.who) and not _matches(module, self.not_who)

    def forbids(self, found: Import) -> bool:
        if self.cost and found.deferred:
            return False
        if self.only:
            return not _is_within(found.name, self.only)
        return _is_within(found.name, self.never) and not _is_within(found.name, self.unless)


def _matches(module: str, patterns: str) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in patterns.split())


def _is_within(name: str, packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages.split())


RULES = [
    # The core.
    Rule(
        "the core is sans-io: the pure part of the standard library, msgspec, the wire protocol and itself",
        who="broker.core broker.core.* broker.config broker.config.* broker.base broker.base.*",
        only=f"{PURE} msgspec client_shim.wire broker.core broker.config broker.base",
        broken_by=(
            "broker.core.calls.table: import trio",
            "broker.core.servers.backoff: import random",
            "broker.core.servers.backoff: from time import monotonic",
            "broker.config.schema: import os.path",
            "broker.core.clients.connections: from threading import Lock",
            "broker.core.clients.connections: from client_shim import BrokerClient",
            "broker.config.diff: def steps(): from broker.hub import Hub",
        ),
    ),
    # What a room is for.
    Rule(
        "what reads stderr, and what reads the commands of servers, is pure",
        who=PURE_READERS,
        only=f"{PURE} msgspec {PURE_READERS} broker.base",
        broken_by=(
            "broker.upstream.stdio.severity: import trio",
            "broker.processes.container_options: import os",
        ),
    ),
    Rule(
        "the daemon never imports what only the command line needs",
        who="broker.daemon",
        never="click rich",
        broken_by=("broker.daemon: import click",),
    ),
    Rule(
        "the protocol knows no config",
        who="broker.core.mcp broker.core.mcp.*",
        never="broker.config",
        broken_by=("broker.core.mcp.methods: from broker.config.schema import ServerConfig",),
    ),
    Rule(
        "only `serve` pays for the daemon: the command line imports it inside a function",
        who=COMMAND_LINE,
        never="broker.daemon trio",
        cost=True,
        broken_by=("broker.command.cli: from broker.daemon import serve", "broker.command.cli: import trio"),
    ),
    Rule(
        "until it has found the extra, the entry point needs the standard library only",
        who="broker.command.entry broker.command.texts.words broker.command.texts.filling "
        "broker.command.texts.language broker broker.core broker.config.names",
        only=f"{STANDARD_LIBRARY} broker.__version__ broker.command.texts.words broker.command.texts.filling "
        "broker.command.texts.language broker.config.names",
        cost=True,
        broken_by=(
            "broker.command.entry: import click",
            "broker.command.texts.words: from broker.command.tables import draw",
        ),
    ),
    # Who touches the world.
    Rule(
        "one room speaks ZeroMQ: only the room of the router imports zmq",
        who="broker broker.*",
        not_who="broker.frontend.zmq.*",
        never="zmq",
        broken_by=("broker.hub: import zmq", "broker.management.commands: from zmq import Context"),
    ),
    Rule(
        "one file starts servers: `process` imports subprocess; `containers` does to remove them, the doctor "
        "to compare with, and `attach` to call a host's own command",
        who="broker broker.*",
        not_who="broker.processes.process broker.processes.containers broker.command.doctor.comparison "
        "broker.command.attach.claude_code",
        never="subprocess multiprocessing asyncio.subprocess pty",
        broken_by=(
            "broker.hub: import subprocess",
            "broker.frontend.zmq.router: from subprocess import Popen",
        ),
    ),
    Rule(
        "what removes containers blocks: it knows no event loop, and runs in a thread or before it",
        who="broker.processes.containers",
        never="trio broker.processes.process broker.upstream.supervisor broker.hub",
        broken_by=(
            "broker.processes.containers: import trio",
            "broker.processes.containers: from broker.processes.process import Process",
        ),
    ),
    Rule(
        "what finds and ends processes needs the standard library only, and starts none",
        who="broker.processes.trees broker.processes.cgroup",
        only=" ".join(
            sys.stdlib_module_names - {"subprocess", "multiprocessing", "asyncio"}
            | {"broker.processes.cgroup"}
        ),
        broken_by=(
            "broker.processes.cgroup: import trio",
            "broker.processes.trees: from broker.processes.process import Process",
        ),
    ),
    Rule(
        "what opens folders and files safely needs the standard library only",
        who="client_shim.trusted client_shim.permissions",
        only=" ".join(
            sys.stdlib_module_names - {"subprocess", "multiprocessing", "asyncio"}
            | {"client_shim.permissions"}
        ),
        broken_by=("client_shim.trusted: import zmq", "client_shim.trusted: from .errors import NotAllowed"),
    ),
    Rule(
        "leftovers are ended before anything runs: the state directory knows no event loop and no server",
        who="broker.processes.records broker.processes.leftovers",
        never="trio broker.processes.process broker.upstream.supervisor broker.hub",
        broken_by=(
            "broker.processes.records: import trio",
            "broker.processes.leftovers: from broker.processes.process import Process",
        ),
    ),
    Rule(
        "the daemon never pays for the SDK (64 MiB, 1.5 s): nothing of it imports mcp at module level",
        who="broker broker.*",
        never="mcp mcp_types",
        cost=True,
        broken_by=(
            "broker.management.commands: import mcp",
            "broker.upstream.stdio.pipe: from mcp.types import Tool",
        ),
    ),
    Rule(
        "the path of a request never imports mcp at all",
        who="broker.frontend.* broker.processes.* broker.upstream.* broker.hub broker.core.*",
        never="mcp mcp_types",
        broken_by=(
            "broker.hub: def f(): import mcp",
            "broker.processes.process: async def f(): import mcp.types",
        ),
    ),
    # The metrics.
    Rule(
        "a scrape and its HTTP have a file each: prometheus_client there, h11 here",
        who="broker broker.*",
        not_who="broker.management.scrape broker.management.metrics_http",
        never="prometheus_client h11",
        broken_by=(
            "broker.hub: import prometheus_client",
            "broker.management.metrics: import prometheus_client",
            "broker.management.commands: def f(): from h11 import Request",
        ),
    ),
    Rule(
        "only who sets `metrics` pays for them, and has to have them installed",
        who="broker broker.*",
        not_who="broker.management.scrape broker.management.metrics_http",
        never="broker.management.metrics broker.management.scrape broker.management.metrics_http",
        cost=True,
        broken_by=("broker.daemon: from broker.management.metrics_http import MetricsServer",),
    ),
    # The doctor.
    Rule(
        "the doctor sees the broker from outside, as a client: it imports nothing of what it examines",
        who="broker.command.doctor broker.command.doctor.*",
        never="trio broker.daemon broker.hub broker.core broker.upstream broker.frontend broker.management",
        broken_by=(
            "broker.command.doctor.pages: import trio",
            "broker.command.doctor.examination: def f(): from broker.management.commands import status",
        ),
    ),
    Rule(
        "of the shim it imports what a backend does",
        who="broker.command.doctor broker.command.doctor.*",
        never="client_shim",
        unless="client_shim.BrokerClient client_shim.MCPClient client_shim.blocking client_shim.errors "
        "client_shim.wire client_shim.text",
        broken_by=(
            "broker.command.doctor.pages: from client_shim.asyncio.connection import BrokerConnection",
        ),
    ),
    Rule(
        "its verdict is found by pure functions",
        who="broker.command.doctor.verdict broker.command.doctor.grades broker.command.doctor.evidence",
        only=f"{PURE} msgspec broker.command.doctor.evidence broker.command.doctor.grades",
        broken_by=(
            "broker.command.doctor.verdict: import os",
            "broker.command.doctor.verdict: from broker.command.doctor.texts import Say",
        ),
    ),
    Rule(
        "what decides about the files of hosts has no I/O",
        who="broker.command.attach.hosts broker.command.attach.shared broker.command.attach.plan "
        "broker.command.attach.restore broker.command.attach.json_edit broker.command.attach.toml_edit",
        never="subprocess socket click shutil broker.command.attach.files broker.command.attach.command "
        "broker.command.importing.files broker.command.output client_shim",
        broken_by=(
            "broker.command.attach.plan: from broker.command.attach.files import read",
            "broker.command.attach.restore: import click",
        ),
    ),
    Rule(
        "no other command pays for it",
        who="broker.command.doctor broker.command.doctor.command",
        only=f"{PURE} click broker.command.common broker.command.texts.language broker.command.output "
        "broker.command.texts.words client_shim.errors",
        cost=True,
        broken_by=(
            "broker.command.doctor.command: import asyncio",
            "broker.command.doctor.command: from broker.command.doctor.report import Report",
        ),
    ),
    Rule(
        "only what is drawn pays for rich",
        who="broker.command.doctor broker.command.doctor.*",
        never="rich broker.command.tables",
        cost=True,
        broken_by=("broker.command.doctor.report: from rich.table import Table",),
    ),
    # The gateway.
    Rule(
        "hosts start hundreds of relays: a relay needs the standard library only, and of it what is small",
        who="broker.__main__ broker.gateway.stdio.connect broker.gateway.stdio.relay "
        "broker.gateway.stdio.relay_state broker.gateway.stdio.lines broker.gateway.stdio.stderr",
        only=" ".join(
            sys.stdlib_module_names - {"asyncio", "subprocess", "typing", "logging"}
            | {
                "broker.gateway.stdio.relay",
                "broker.gateway.stdio.relay_state",
                "broker.gateway.stdio.lines",
                "broker.gateway.stdio.stderr",
                "client_shim.trusted",
                "client_shim.permissions",
            }
        ),
        cost=True,
        broken_by=(
            "broker.__main__: from broker.command.entry import main",
            "broker.gateway.stdio.relay: import asyncio",
            "broker.gateway.stdio.relay_state: import msgspec",
        ),
    ),
    Rule(
        "the gateway is a client of the broker: of the shim it imports what any client does",
        who="broker.gateway broker.gateway.*",
        never="trio client_shim",
        unless="client_shim.BrokerClient client_shim.errors client_shim.questions client_shim.text "
        "client_shim.trusted client_shim.permissions client_shim.transport.endpoint",
        broken_by=(
            "broker.gateway.conversation.conversation: import trio",
            "broker.gateway.conversation.session: from client_shim.asyncio.connection import Loss",
        ),
    ),
    Rule(
        "what the gateway decides is sans-io",
        who=GATEWAY_CORE,
        only=f"{PURE} msgspec broker.base broker.gateway",
        broken_by=(
            "broker.gateway.conversation.conversation: import asyncio",
            "broker.gateway.conversation.jsonrpc: from client_shim import BrokerClient",
        ),
    ),
    # The shim.
    Rule(
        "of the shim the broker imports the wire protocol, and what makes text fit to show and paths safe",
        who="broker broker.*",
        not_who="broker.command broker.command.* broker.gateway broker.gateway.*",
        never="client_shim",
        unless="client_shim.wire client_shim.text client_shim.trusted client_shim.permissions "
        "client_shim.key_file client_shim.lease",
        broken_by=(
            "broker.hub: import client_shim",
            "broker.frontend.zmq.router: from client_shim.protocol.state import State",
        ),
    ),
    Rule(
        "of the shim the command line imports the wire protocol, the blocking client, errors, texts, trust",
        who="broker.command broker.command.*",
        not_who="broker.command.doctor broker.command.doctor.*",
        never="client_shim",
        unless="client_shim.wire client_shim.text client_shim.blocking client_shim.errors "
        "client_shim.trusted client_shim.key_file client_shim.transport.curve",
        broken_by=(
            "broker.command.cli: import client_shim",
            "broker.command.cli: from client_shim.asyncio import client",
        ),
    ),
    Rule(
        "the shim needs the standard library, pyzmq and msgpack, and never the broker",
        who="client_shim client_shim.*",
        only=f"{STANDARD_LIBRARY} zmq msgpack client_shim",
        cost=True,
        broken_by=(
            "client_shim.backend.mcp_client: import mcp",
            "client_shim: from broker.core.clients import connections as sessions",
        ),
    ),
    Rule(
        "even inside a function, what the shim imports beyond that is what a backend has, mcp or loguru, or "
        "what every type checker has",
        who="client_shim client_shim.*",
        only=f"{STANDARD_LIBRARY} zmq msgpack client_shim mcp mcp_types loguru typing_extensions.Unpack",
        broken_by=(
            "client_shim.asyncio.client: def f(): import trio",
            "client_shim.asyncio.client: def f(): import broker",
            "client_shim.asyncio.client: importlib.import_module('broker.hub')",
            "client_shim.asyncio.client: __import__('broker')",
        ),
    ),
    Rule(
        "the wire protocol is data: msgpack, and nothing of either end",
        who="client_shim.wire",
        only=f"{PURE} msgpack",
        broken_by=("client_shim.wire: import zmq", "client_shim.wire: from client_shim import errors"),
    ),
    Rule(
        "the automaton of the client and what it speaks in are sans-io",
        who=SHIM_CORE,
        only=f"{PURE} msgpack client_shim.wire {SHIM_CORE}",
        broken_by=(
            "client_shim.protocol.state: import zmq, asyncio",
            "client_shim.protocol.state: from client_shim.asyncio.client import BrokerClient",
        ),
    ),
]

SOURCES = sorted([*ROOT.glob("broker/**/*.py"), *ROOT.glob("client_shim/**/*.py")])


def _rules_of(rooms: dict[str, str]) -> Iterator[Rule]:
    """A rule for each room: of its house, it imports itself and what the table says."""
    for room, may in rooms.items():
        house = room.rpartition(".")[0]
        allowed = [room, f"{house}.__version__", *(f"{house}.{other}" for other in may.split())]
        is_folder = (ROOT / room.replace(".", "/")).is_dir()
        yield Rule(
            f"of the rooms of {house}, {room.rpartition('.')[2]} imports {may or 'none'}",
            who=f"{room} {room}.*" if is_folder else room,
            never=house,
            unless=" ".join(allowed),
            broken_by=tuple(f"{room}: from {other} import x" for other in rooms if other not in allowed),
        )


RULES += [rule for rooms in (ROOMS, CORE_ROOMS, GATEWAY_ROOMS, SHIM_ROOMS) for rule in _rules_of(rooms)]

LAWS = [rule.law for rule in RULES]
BREACHES = [(rule, breach) for rule in RULES for breach in rule.broken_by]


@pytest.mark.parametrize("rule", RULES, ids=LAWS)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    """The design, section 2: every "never imports" of its tables."""
    breaches = [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.name}"
        for path in SOURCES
        if rule.speaks_of(module_of(path))
        for found in imports_of(path.read_text(encoding="utf-8"), package_of(path))
        if rule.forbids(found)
    ]
    assert not breaches, "\n".join([rule.law, *breaches])


@pytest.mark.parametrize(("rule", "breach"), BREACHES, ids=[breach for _, breach in BREACHES])
def test_a_breach_is_seen(rule: Rule, breach: str) -> None:
    """A rule that no source can break would guard nothing."""
    module, source = breach.split(": ", 1)
    package = module if module in ("broker", "broker.core", "client_shim") else module.rpartition(".")[0]
    assert rule.speaks_of(module)
    assert any(rule.forbids(found) for found in imports_of(source, package)), rule.law


def test_each_module_has_a_room() -> None:
    """The top level of `broker/` is the architecture: a new file there, or in the core, is a decision."""
    names = [module_of(path) for path in SOURCES]
    ground = (f"client_shim.{name}" for name in _GROUND.split())
    rooms = {*ROOMS, *CORE_ROOMS, *GATEWAY_ROOMS, *SHIM_ROOMS, *ground}
    houses = {"broker", "broker.core", "broker.gateway", "client_shim"}
    deep = ("broker.core.", "broker.gateway.")
    parts = {".".join(name.split(".")[: 3 if name.startswith(deep) else 2]) for name in names}
    assert parts == rooms | houses


@pytest.mark.parametrize("rooms", [ROOMS, GATEWAY_ROOMS, SHIM_ROOMS], ids=["broker", "gateway", "shim"])
def test_a_room_imports_what_is_below_it(rooms: dict[str, str]) -> None:
    """The tables go from the top to the ground, so no two rooms import each other."""
    order = [room.rpartition(".")[2] for room in rooms]
    for room, may in zip(order, rooms.values(), strict=True):
        assert not set(may.split()) & {*order[: order.index(room) + 1]}


def test_no_imports_go_in_a_circle() -> None:
    """Neither deferred ones nor those for type checkers: a circle of either is one thing in two files."""
    assert circles(import_graph()) == []


def test_a_circle_is_seen() -> None:
    """Of two modules, or of more."""
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=str)
def test_each_room_says_what_it_holds(path: Path) -> None:
    """docs/architecture.md shows it: one sentence or two for each folder."""
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert words is not None
    assert len(words) <= 400


@pytest.mark.parametrize("rule", RULES, ids=LAWS)
def test_each_module_of_a_rule_exists(rule: Rule) -> None:
    """A module that moves takes its rule along: a rule about a file that is gone holds for ever."""
    modules = [module_of(path) for path in SOURCES]
    patterns = f"{rule.who} {rule.not_who}".split()
    assert [pattern for pattern in patterns if not any(_matches(module, pattern) for module in modules)] == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b as c, d", ["a.b", "d"]),
        ("from a import b, c", ["a.b", "a.c"]),
        ("from a.b import *", ["a.b"]),
        ("from . import b", ["pack.age.b"]),
        ("from .. import b", ["pack.b"]),
        ("from ..b import c", ["pack.b.c"]),
        ("class C:\n  import a", ["a"]),
        ("try:\n  import a\nexcept ImportError:\n  import b", ["a", "b"]),
        ("importlib.import_module('a.b')", ["a.b"]),
        ("__import__('a')", ["a"]),
    ],
)
def test_every_form_of_import_is_read(source: str, names: list[str]) -> None:
    """Otherwise a rule is kept by writing the import in another way."""
    assert [found.name for found in imports_of(source, "pack.age")] == names


@pytest.mark.parametrize(
    ("source", "deferred"),
    [
        ("class C:\n  import a", False),
        ("def f():\n  import a", True),
        ("class C:\n  async def f(self):\n    if x:\n      import a", True),
        ("if TYPE_CHECKING:\n  import a", True),
        ("if typing.TYPE_CHECKING:\n  pass\nelse:\n  import a", False),
    ],
)
def test_what_waits_is_told_from_what_does_not(source: str, deferred: bool) -> None:
    """The rules about cost leave out what a start does not pay for."""
    assert [found.deferred for found in imports_of(source, "pack")] == [deferred]


@pytest.mark.parametrize(
    ("start", "never"),
    [
        ("broker.core.*", "trio zmq mcp click broker.hub client_shim.asyncio.client"),
        (
            "broker.daemon",
            "mcp pydantic click rich prometheus_client h11 broker.command.cli client_shim.asyncio.client",
        ),
        ("broker.command.cli", "mcp pydantic trio broker.daemon broker.hub"),
        ("client_shim.*", "broker trio mcp pydantic click msgspec loguru"),
        ("broker.gateway.stdio.connect", "asyncio typing click msgspec zmq msgpack"),
    ],
)
def test_what_is_really_loaded(start: str, never: str) -> None:
    """What the sources do not say, such as the `__init__` of a package on the way, is seen by loading it."""
    modules = [module for path in SOURCES if _matches(module := module_of(path), start)]
    assert modules
    code = f"import sys\nfor name in {modules}: __import__(name)\nprint(*sys.modules)"
    loaded = run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=PIPE, text=True).stdout.split()
    assert sorted(set(never.split()) & set(loaded)) == []


def import_graph() -> dict[str, set[str]]:
    """module → the modules of ours that its sources name, without the packages on the way."""
    modules = {module_of(path): path for path in SOURCES}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = (one.name for one in imports_of(path.read_text(encoding="utf-8"), package_of(path)))
        named = {one if one in modules else one.rpartition(".")[0] for one in found}
        graph[name] = {one for one in named if one in modules and one != name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, directly or not."""
    reach = {name: _reached(graph, name) for name in graph}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph}
    return [list(group) for group in sorted(groups) if group]


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    """What a module imports, with all that these import."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def module_of(path: Path) -> str:
    """The dotted name of the module in `path`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(path: Path) -> str:
    """The package that relative imports in `path` start from."""
    return ".".join(path.relative_to(ROOT).parent.parts)


def imports_of(source: str, package: str) -> Iterator[Import]:
    """All imports in `source`, in its order; relative ones are resolved from `package`."""
    return _imports_below(ast.parse(source), package, deferred=False)


def _imports_below(node: ast.AST, package: str, deferred: bool) -> Iterator[Import]:
    waits = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    for child in ast.iter_child_nodes(node):
        for name in _imported(child, package):
            yield Import(name, getattr(child, "lineno", 0), waits or _is_for_checkers(node, child))
        yield from _imports_below(child, package, waits or _is_for_checkers(node, child))


def _is_for_checkers(node: ast.AST, child: ast.AST) -> bool:
    if not isinstance(node, ast.If) or child not in node.body:
        return False
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _imported(node: ast.AST, package: str) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            origin = resolve_name("." * level + (module or ""), package)
            return [origin if alias.name == "*" else f"{origin}.{alias.name}" for alias in names]
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
            by_name = ast.unparse(function) in ("importlib.import_module", "import_module", "__import__")
            return [name] if by_name else []
    return []


_WAYS_OUT = "click.echo( click.secho( print( stdout.write( Text("
_OUT = {"output.py": "click.echo(", "tables.py": "Text(", "entry.py": "print(", "stub.py": "print("}


@pytest.mark.parametrize("path", [path for path in SOURCES if "broker" in path.parts], ids=str)
def test_what_commands_print_goes_one_way(path: Path) -> None:
    """`command.output` and `command.tables` take raw control characters out of it: nobody passes them by.

    The exceptions print words of their own: the entry point, and the stub before a server's process.
    """
    text = path.read_text(encoding="utf-8")
    used = {way for way in _WAYS_OUT.split() if re.search(rf"(?<![\w.]){re.escape(way)}", text)}
    assert used <= {_OUT.get(path.name, "")}, (
        f"{path}: print by broker.command.output, draw by broker.command.tables"
    )


# --- the hub ---------------------------------------------------------------------------------------------


def core_events() -> frozenset[str]:
    """The names of the methods of the core that take the time, except for those of a server's lifecycle."""
    functions = (
        node
        for path in sorted((ROOT / "broker/core").rglob("*.py"))
        if path.name != "lifecycle.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    )
    return frozenset(
        one.name for one in functions if one.args.args and one.args.args[-1].arg.strip("_") == "now"
    )


def direct_calls(source: str, events: frozenset[str]) -> list[str]:
    """The calls in a source of an event of the core, by a part of an engine that the source names."""
    called = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    names = [ast.unparse(func) for func in called if isinstance(func, ast.Attribute) and func.attr in events]
    return [name for name in names if re.search(r"\b_?(engine|registry|clients|dispatch|replies)\.", name)]


@pytest.mark.parametrize("room", ["daemon.py", "frontend", "management", "service", "upstream"])
def test_the_shell_tells_the_core_of_events_by_the_hub(room: str) -> None:
    """Else the effects of an event are not run, and nothing wakes the broker for what is due next."""
    folder, events = ROOT / "broker" / room, core_events()
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
    found = [f"{path}: {name}" for path in paths for name in direct_calls(path.read_text("utf-8"), events)]
    assert not found, "tell the hub: hub.run(engine.registry.spawned, name)"


def test_a_direct_call_of_the_core_is_seen() -> None:
    events = core_events()
    assert {"spawned", "received", "line", "lost"} <= events
    assert direct_calls("hub.engine.registry.spawned(name, now)", events) == ["hub.engine.registry.spawned"]
    assert direct_calls("hub.run(hub.engine.registry.spawned, name)", events) == []


# --- names ---------------------------------------------------------------------------------------------


def test_no_two_classes_share_a_name() -> None:
    """One word for one thing: a reader who meets a class knows which one it is.

    The exception has two public names: a message of the wire, and what a user's callback gets from it.
    """
    places: dict[str, list[str]] = {}
    for package in ("broker", "client_shim"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    shared = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert shared == {"Question": ["client_shim/questions.py", "client_shim/wire.py"]}
