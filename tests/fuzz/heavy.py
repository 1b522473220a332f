"""The heaviest single messages: each as large as a message may be, in the shape that costs its reader most.

What must hold of each (laws 5 and 6): no step of the core that handles it is long, and it takes little memory
beside the message itself. Time is the processor time of this thread, the best of some tries. Memory is the
peak resident size of the process during all steps, above the size before them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from broker.config.loading import load
from broker.core.mcp.methods import Era
from broker.core.servers.reading import MAX_ITEMS, MAX_PAGE_BYTES
from broker.core.servers.visibility import MAX_NAME_CHARS
from client_shim import wire
from tests.core.steps import longest_step
from tests.core.world import INSTANCE, World

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tests.core.world import Arguments

STEP_S = 0.05
"""How long one step may hold the loop, in seconds of the processor."""

GROWTH = 3.0
"""How many times its size a message may take beside itself."""

TRIES = 3
SIZE_BYTES: int = load({"servers": {"x": {"command": "x"}}}, {}).limits.max_message_bytes
"""The largest message that the default config lets in."""

Make = Callable[[int], bytes]


class Shape(NamedTuple):
    """One message.

    `make` gets the size in bytes. `answers` is the method of the request that the line answers; the line has
    `%(id)d` for its id. `table` is the server's in the config.
    """

    make: Make
    answers: str | None = None
    era: Era = Era.LEGACY
    from_client: bool = False
    table: dict[str, object] | None = None


class Cost(NamedTuple):
    """What one message cost: its longest step, and the memory beside it."""

    seconds: float
    growth: float


def _filled(head: bytes, unit: bytes, tail: bytes) -> Make:
    return lambda size: head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


def _numbered(head: bytes, unit: bytes, tail: bytes) -> Make:
    """As `_filled`, with every unit another one: `unit` takes a number of seven digits."""
    count = len(unit % 0)
    return lambda size: (
        head + b",".join(unit % n for n in range((size - len(head) - len(tail)) // (count + 1))) + tail
    )


_REPLY = b'{"jsonrpc":"2.0","id":%%(id)d,"result":%b}'
_TOLD = b'{"jsonrpc":"2.0","method":"notifications/%b","params":%b}'


def _reply(result: Make) -> Make:
    return lambda size: _REPLY % result(size - 64)


def _told(method: bytes, params: Make) -> Make:
    return lambda size: _TOLD % (method, params(size - 128))


_KEYS = _numbered(b"{", b'"%07d":1', b"}")
_NAMES = _numbered(b"[", b'"%07d"', b"]")
_ONES = _filled(b"[", b"1,", b"1]")
_NESTS = _filled(b"[", b"[[],[]],", b"1]")
_DEEP = _filled(b"[", b"[" * 256 + b"]" * 256 + b",", b"1]")
_SAWS = _filled(b"[" * 200, b"[[[[[[],1],2],3],4],", b"1" + b"]" * 200)
_ESCAPES = _filled(b'{"a":"', rb"\ud83e\uddfa\"", b'"}')


def _items(member: bytes, item: bytes, unit: bytes) -> Make:
    """The largest page of a list: as many items as it may have, or as many bytes of their keys."""

    def make(size: int) -> bytes:
        room = (min(size, MAX_PAGE_BYTES) - 128) // MAX_ITEMS - len(item % (0, b"")) - 1
        count = MAX_ITEMS if room > 0 else size // (len(item % (0, unit)) + 1)
        text = unit * max(1, room // len(unit))
        return b'{"%b":[%b]}' % (member, b",".join(item % (number, text) for number in range(count)))

    return _reply(make)


def _patterns(pattern: str) -> dict[str, object]:
    """A table with as many patterns as it may have, none of which matches an item; `%03d` is its number."""
    hide = [pattern % number for number in range(128)]
    return {section: {"only": ["*", *hide[1:]], "hide": hide} for section in ("tools", "resources")}


_MANY_TOOLS = _items(b"tools", b'{"name":"%07d%b"}', b"x")
_MANY_URIS = _items(b"resources", b'{"uri":"file:///%07d%b"}', b"x")
_MANY_ESCAPES = _items(b"resources", b'{"uri":"file:///%07d%b"}', b"%2525")
_TEXT = _filled(b'{"content":[{"type":"text","text":"', b"x", b'"}]}')
_CHINESE = _filled(b'{"content":[{"type":"text","text":"', "你".encode(), b'"}]}')

SHAPES: dict[str, Shape] = {
    # lines that are no message
    "line of backslashes in a key": Shape(_filled(b'{"', b"\\", b"")),
    "line of opening brackets": Shape(_filled(b'{"a":', b"[", b"")),
    "line of quotes": Shape(_filled(b"{", b'"', b"")),
    "line of braces": Shape(_filled(b"", b"{", b"")),
    "line of letters": Shape(_filled(b"", b"x", b"")),
    "line of spaces": Shape(_filled(b"", b" ", b"")),
    "broken reply with its id first": Shape(
        _filled(b'{"id":%(id)d,"jsonrpc":"2.0","result":[', b'"id",', b""), "call"
    ),
    "broken reply with its id last": Shape(_filled(b'{"result":"', b"\\u", b'","id":%(id)d}'), "call"),
    "broken UTF-8 at the end": Shape(
        _filled(b'{"result":"', b"x", b'\xff","id":%(id)d,"jsonrpc":"2.0"}'), "call"
    ),
    # batches
    "batch of empty objects": Shape(_filled(b"[", b"{},", b"{}]")),
    "batch of notifications": Shape(_filled(b"[", b'{"jsonrpc":"2.0","method":"x"},', b"{}]")),
    # replies to a call
    "result of one text": Shape(_reply(_TEXT), "call"),
    "result of one Chinese text": Shape(_reply(_CHINESE), "call"),
    "result of many keys": Shape(_reply(_KEYS), "call"),
    "result of many numbers": Shape(_reply(_ONES), "call"),
    "result of many lists": Shape(_reply(_NESTS), "call"),
    "result of many deep lists": Shape(_reply(_DEEP), "call"),
    "result of many lists in deep ones": Shape(_reply(_SAWS), "call"),
    "result of one text in escapes": Shape(_reply(_ESCAPES), "call"),
    "reply with many other members": Shape(
        _numbered(b'{"jsonrpc":"2.0","id":%(id)d,"result":{},', b'"%07d":1', b"}"), "call"
    ),
    "reply with its result many times": Shape(
        _filled(b'{"jsonrpc":"2.0","id":%(id)d,', b'"result":{},', b'"result":{}}'), "call"
    ),
    "error with much data": Shape(
        lambda size: (
            b'{"jsonrpc":"2.0","id":%%(id)d,"error":{"code":1,"message":"m","data":%b}}' % _KEYS(size - 99)
        ),
        "call",
    ),
    "error with a long message": Shape(
        _filled(b'{"jsonrpc":"2.0","id":%(id)d,"error":{"code":1,"message":"', b"x", b'"}}'), "call"
    ),
    # replies to the broker's own requests
    "list of many small items": Shape(
        _reply(lambda size: b'{"tools":%b}' % _numbered(b"[", b'{"name":"%07d"}', b"]")(size - 12)),
        "tools/list",
    ),
    "many names, patterns with a star at the end": Shape(
        _MANY_TOOLS, "tools/list", table=_patterns("x%03d*")
    ),
    "many names, patterns with a star at both ends": Shape(
        _MANY_TOOLS, "tools/list", table=_patterns("*a%03d*")
    ),
    "many names, patterns with many stars": Shape(
        _MANY_TOOLS, "tools/list", table=_patterns("*%03d*x*x*x*x*y")
    ),
    "many uris, patterns with a star at the end": Shape(
        _MANY_URIS, "resources/list", table=_patterns("file:///x%03d*")
    ),
    "many uris, patterns with a star at both ends": Shape(
        _MANY_URIS, "resources/list", table=_patterns("*a%03d*")
    ),
    "many uris, patterns with many stars": Shape(
        _MANY_URIS, "resources/list", table=_patterns("*%03d*x*x*x*x*y")
    ),
    "many uris in escapes, patterns with variables": Shape(
        _MANY_ESCAPES, "resources/list", table=_patterns("file:///{+a}x%03d{b}x{c}*y")
    ),
    "few long uris, long patterns": Shape(
        _reply(
            lambda size: (
                b'{"resources":[%b]}'
                % b",".join(
                    b'{"uri":"%d%b"}' % (number, b"x" * (MAX_NAME_CHARS - 8))
                    for number in range(min(size, MAX_PAGE_BYTES) // (MAX_NAME_CHARS + 32))
                )
            )
        ),
        "resources/list",
        table=_patterns("*%03d" + "x*" * 28 + "y"),
    ),
    "list result of many keys": Shape(_reply(_KEYS), "tools/list"),
    "list of one item with many keys": Shape(
        _reply(lambda size: b'{"tools":[{"name":"a","inputSchema":%b}]}' % _KEYS(size - 48)), "tools/list"
    ),
    "list with a long cursor": Shape(
        _reply(_filled(b'{"tools":[],"nextCursor":"', b"x", b'"}')), "tools/list"
    ),
    "capabilities of many keys": Shape(
        _reply(lambda size: b'{"protocolVersion":"2025-11-25","capabilities":%b}' % _KEYS(size - 64)),
        "initialize",
    ),
    "discovery of many keys": Shape(
        _reply(lambda size: b'{"supportedVersions":["2026-07-28"],"capabilities":%b}' % _KEYS(size - 64)),
        "server/discover",
        Era.MODERN,
    ),
    # notifications and requests of a server
    "progress of many keys": Shape(_told(b"progress", _KEYS)),
    "log message of many keys": Shape(_told(b"message", _KEYS)),
    "log message of a modern server": Shape(_told(b"message", _KEYS), era=Era.MODERN),
    "updated with a long uri": Shape(_told(b"resources/updated", _filled(b'{"uri":"', b"x", b'"}'))),
    "acknowledged with many names": Shape(
        _told(
            b"subscriptions/acknowledged",
            lambda size: (
                b'{"_meta":{"io.modelcontextprotocol/subscriptionId":%%(id)d},'
                b'"notifications":{"resourceSubscriptions":%b}}' % _NAMES(size - 128)
            ),
        ),
        "subscriptions/listen",
        Era.MODERN,
    ),
    "notification with a long method": Shape(_filled(b'{"jsonrpc":"2.0","method":"', b"x", b'"}')),
    "question with a long id": Shape(_filled(b'{"jsonrpc":"2.0","method":"ping","id":"', b"x", b'"}')),
    "question with a long method": Shape(_filled(b'{"jsonrpc":"2.0","id":1,"method":"', b"x", b'"}')),
    # requests of a client
    "call with one text": Shape(
        _filled(b'{"name":"echo","arguments":{"a":"', b"x", b'"}}'), from_client=True
    ),
    "call with many keys": Shape(
        lambda size: b'{"name":"echo","arguments":%b}' % _KEYS(size - 32), from_client=True
    ),
    "call with many numbers": Shape(
        lambda size: b'{"name":"echo","arguments":{"a":%b}}' % _ONES(size - 40), from_client=True
    ),
    "call with many lists": Shape(
        lambda size: b'{"name":"echo","arguments":{"a":%b}}' % _NESTS(size - 40), from_client=True
    ),
    "call with many deep lists": Shape(
        lambda size: b'{"name":"echo","arguments":{"a":%b}}' % _DEEP(size - 40), from_client=True
    ),
    "params of many keys": Shape(_KEYS, from_client=True),
    "params that are broken at the end": Shape(_filled(b'{"a":"', b"x", b'"'), from_client=True),
    "params of opening brackets": Shape(_filled(b'{"a":', b"[", b""), from_client=True),
    "params of backslashes": Shape(_filled(b'{"', b"\\", b""), from_client=True),
}


def cost(shape: Shape, size: int) -> Cost:
    """What a message of this shape and size costs the core: the least time of some tries, the most memory."""
    tries = [_once(shape, size) for _ in range(TRIES)]
    return Cost(min(one.seconds for one in tries), max(one.growth for one in tries))


def _once(shape: Shape, size: int) -> Cost:
    world = World({"time": shape.table or {}}, max_message_bytes=size)
    script = world.scripts["time"]
    script.era = shape.era
    if shape.answers == "subscriptions/listen":
        script.capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
    if shape.answers == "resources/list":
        script.capabilities = {"tools": {}, "resources": {}}
    if shape.answers in ("initialize", "server/discover", "tools/list", "resources/list"):
        script.mute = {shape.answers}
    process = world.start("time")
    client = world.client()
    if shape.answers == "call":
        client.call()
    if shape.from_client:
        header = wire.encode(wire.Request(1, 1, INSTANCE, "time", "tools/call", None, 0, None))
        body = shape.make(size)
        return _measured(world, size, world.engine.clients.received, client.key, client.peer, header, body)
    line = shape.make(size)
    if shape.answers is not None:
        method = "tools/call" if shape.answers == "call" else shape.answers
        line = line.replace(b"%(id)d", b"%d" % process.got(method)[-1]["id"])
    return _measured(world, size, world.engine.replies.line, "time", line)


def _measured(
    world: World,
    size: int,
    event: Callable[[Unpack[Arguments], float], object],
    *arguments: Unpack[Arguments],
) -> Cost:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, proc(5)
    before = resident_bytes()
    seconds, kept = longest_step(world, event, *arguments)
    growth = max(0, resident_bytes("VmHWM") - before) / size
    del kept
    return Cost(seconds, growth)


def resident_bytes(field: str = "VmRSS") -> int:
    """A figure of this process's memory, by its name in /proc/self/status (proc(5))."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(f"{field}:")) * 1024
