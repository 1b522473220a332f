"""Laws 5 and 6: no line, and no request, of the full size holds the broker up or takes many times its size.

Each was measured before: `{"` with 32 million backslashes took 1.4 s and 1.9 GiB, an acknowledgement with
3.1 million names 10.8 s and 505 MiB that stayed.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from broker.core.mcp.methods import Era
from broker.core.servers.replies import MAX_TOLD_BYTES
from client_shim import wire
from tests.core.clients.test_notifications import ALL, LISTS
from tests.core.steps import LONGEST_S, longest_step
from tests.core.world import World

MIB = 1024 * 1024
FULL = 32 * MIB
MANY = 4 * MIB
"""Of this size the memory is looked at: to count it takes long."""
SLOWER = 6
"""So much slower a machine may be: what is of the wrong kind takes twenty times as long and more."""

Make = Callable[[int, int], bytes]


def filled(before: bytes, piece: bytes, after: bytes) -> Make:
    """A line of a size, of many times the same piece. `%d` is the id of the request that it answers."""
    return lambda size, id: before.replace(b"%d", b"%d" % id) + piece * (size // len(piece)) + after


def told(method: bytes, before: bytes, piece: bytes, after: bytes) -> Make:
    """A notification with such params."""
    return filled(
        b'{"jsonrpc":"2.0","method":"notifications/%b","params":%b' % (method, before), piece, after
    )


RESULT = b'{"jsonrpc":"2.0","id":%d,"result":'
LINES: dict[str, Make] = {
    "a long text": filled(RESULT + b'"', b"x", b'"}'),
    "text that is not ASCII": filled(RESULT + b'"', "洗濯機".encode(), b'"}'),
    "one character that is not ASCII": filled(RESULT + '"🧺'.encode(), b"x", b'"}'),
    "numbers": filled(RESULT + b"[", b"12,", b"1]}"),
    "keys": filled(RESULT + b"{", b'"abcde":1,', b'"b":2}}'),
    "rows": filled(RESULT + b"[", b'{"a":1,"b":"hello","c":[1,2,3]},', b"1]}"),
    "empty objects": filled(RESULT + b"[", b"{},", b"1]}"),
    "deep all the way": filled(RESULT + b"[" * 490, b"[[[[[[[[[[[[]]]]]]]]]]]],", b"1" + b"]" * 490 + b"}"),
    "backslashes": filled(b'{"', b"\\", b""),
    "backslashes in JSON-RPC": filled(b'{"jsonrpc":"2.0","id":%d,"result":"', b"\\", b""),
    "escaped quotes without an end": filled(b'{"jsonrpc":"2.0","id":%d,"result":"', b'\\"', b""),
    "quotes": filled(b'{"jsonrpc":"2.0",', b'"', b""),
    "brackets": filled(b'{"jsonrpc":"2.0","id":', b"[", b""),
    "colours": filled(b"\x1b[0m", b" ", b"x"),
    "blanks": filled(b"", b" ", b"{"),
    "a banner": filled(b"", b"=", b""),
    "a batch of nothing": filled(b"[", b"{},", b"{}]"),
    "a batch of nulls": filled(b"[", b"null,", b"1]"),
    "progress with many keys": told(b"progress", b"{", b'"k":1,', b'"progressToken":1}}'),
    "an update with many keys": told(b"resources/updated", b"{", b'"k":1,', b'"uri":"u"}}'),
    "an update with a long uri": told(b"resources/updated", b'{"uri":"', b"/", b'"}}'),
    "a log message": told(b"message", b'{"data":"', b"x", b'"}}'),
    "many names": told(
        b"subscriptions/acknowledged", b'{"notifications":{"resourceSubscriptions":[', b'"u",', b'"u"]}}}'
    ),
    "a request of its own": filled(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"x":"', b"x", b'"}}'),
    "a long id": filled(b'{"jsonrpc":"2.0","method":"x","id":"', b"x", b'"}'),
    "a long method": filled(b'{"jsonrpc":"2.0","id":1,"method":"', b"x", b'"}'),
}


def line_of(name: str, era: Era, size: int, method: str = "tools/call") -> tuple[World, bytes]:
    """A broker with a call at its server, and a line that could be its answer."""
    world = World({"time": {}}, outbox_bytes=1 << 30)
    script = world.scripts["time"]
    script.era, script.capabilities, script.lists = era, ALL, dict(LISTS)
    process = world.start()
    client = world.client()
    client.listen(time=["u"])
    if method == "tools/call":
        client.call()
    else:
        script.mute = {method}
        process.tell("tools/list_changed")
    return world, LINES[name](size, process.got(method)[-1]["id"])


@pytest.mark.parametrize("era", list(Era))
@pytest.mark.parametrize("name", LINES)
def test_no_line_of_the_full_size_holds_the_broker_up(name: str, era: Era) -> None:
    """Law 5: one step of the core, with whatever follows from the line."""
    took = []
    for _ in range(2):
        world, line = line_of(name, era, FULL)
        took.append(longest_step(world, world.engine.replies.line, "time", line)[0])
    assert min(took) < SLOWER * LONGEST_S


@pytest.mark.parametrize("name", LINES)
def test_no_line_takes_many_times_its_size(name: str) -> None:
    """Law 6: nor is more than that kept of it."""
    world, line = line_of(name, Era.MODERN, MANY)
    tracemalloc.start()
    try:
        _, effects = longest_step(world, world.engine.replies.line, "time", line)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3 * MANY
    del effects


@pytest.mark.parametrize("items", [b'"k":1,', b'"tools":[],'])
def test_a_list_with_many_keys_or_items_takes_little(items: bytes) -> None:
    """Laws 5 and 6: a result with 3.1 million keys took 2.0 s."""
    world, _ = line_of("numbers", Era.LEGACY, 1, "tools/list")
    id = world.processes["time"].got("tools/list")[-1]["id"]
    line = b'{"jsonrpc":"2.0","id":%d,"result":{%b"tools":[%b{}]}}' % (id, items * 3_000_000, b"{}," * 100)
    tracemalloc.start()
    try:
        world.run(world.engine.replies.line, "time", line)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3 * len(line)


def test_a_list_of_far_too_many_items_is_refused_before_they_are_made() -> None:
    """Law 6: of ten million items there would be as many objects first."""
    world, _ = line_of("numbers", Era.LEGACY, 1, "tools/list")
    id = world.processes["time"].got("tools/list")[-1]["id"]
    line = b'{"jsonrpc":"2.0","id":%d,"result":{"tools":[%b{}]}}' % (id, b"{}," * 2_000_000)
    before, line = world.engine.servers["time"].catalogue, line
    tracemalloc.start()
    try:
        world.run(world.engine.replies.line, "time", line)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3 * len(line) + 40 * MIB  # what reads so many is made once
    assert world.engine.servers["time"].catalogue is before


def test_a_large_notification_is_counted_and_goes_nowhere() -> None:
    """Laws 6 and 9: results may be large, what is said unasked may not."""
    world, line = line_of("a log message", Era.LEGACY, MAX_TOLD_BYTES)
    world.run(world.engine.replies.line, "time", line)
    assert world.engine.servers["time"].dropped["large.notification"] == 1
    world, line = line_of("a log message", Era.LEGACY, MAX_TOLD_BYTES - 100)
    world.run(world.engine.replies.line, "time", line)
    assert world.engine.servers["time"].dropped["large.notification"] == 0


def test_no_request_of_the_full_size_holds_the_broker_up() -> None:
    """Law 5: params are checked before they are passed on."""
    for piece in (b"[],", b'"x",', b'{"a":[1]},', b"12,"):
        body = b'{"name":"echo","arguments":[%b1]}' % (piece * ((FULL - 100) // len(piece)))
        took = []
        for id in (1, 2):
            world = World(outbox_bytes=1 << 30)
            world.start()
            client = world.client()
            header = wire.encode(wire.Request(1, id, "i-1", "time", "tools/call", None, 0, None))
            received = world.engine.clients.received
            took.append(longest_step(world, received, client.key, client.peer, header, body)[0])
        assert min(took) < SLOWER * LONGEST_S
