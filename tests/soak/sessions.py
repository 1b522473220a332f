"""HTTP sessions, all open at once, half of them abandoned: nothing of them stays in gateway and broker.

An abandoned session is never deleted. Its connections are cut, by their end or by a reset, while it listens
and while a call of it is under way.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from tests.e2e.harness import RunningBroker, rogue, running, wait_until
from tests.gateway.gateways import Legacy, RunningGateway, Stream, close_all, gateway, text_of
from tests.soak.ground import FLAT_MIB, MEMORY_MIB, MIB, Line, Progress

THREADS = 8
LIMITS = {"session_idle_sec": 1.0, "replay_sec": 1.0}
GOES_ON = {"name": "progress", "arguments": {"steps": 20, "delay": 0.1}, "_meta": {"progressToken": 1}}
"""A call that ends by itself: that of a legacy client is not cancelled when the client leaves."""

T = TypeVar("T")
R = TypeVar("R")


class Open(NamedTuple):
    """A session that listens."""

    number: int
    session: Legacy
    stream: Stream
    is_well: bool


class Held(NamedTuple):
    """What is held for clients: by the broker for the gateway, and by the gateway."""

    calls: int
    channels: int
    connections: int
    descriptors: int


def run(count: int, progress: Progress) -> list[Line]:
    """Two waves of `count` sessions: all opened, then deleted, or abandoned with a cut stream and call."""
    _allow_descriptors(4 * count)
    with running({"rogue": rogue("--era", "modern")}) as broker, gateway(broker, limits=LIMITS) as door:
        _wave(door, THREADS, lambda _: None)
        _at_rest(broker, door)
        before = _held(broker, door)
        odd, at_once = _wave(door, count, lambda done: progress(done // 2))
        _at_rest(broker, door)
        half = door.memory
        more_odd, _ = _wave(door, count, lambda done: progress((count + done) // 2))
        _at_rest(broker, door)
        after = _held(broker, door)
        grown = (door.memory - half) / MIB
        left = door.figures()
        ended = door.stop()
    return [
        Line("sessions.at-once", at_once),
        Line("sessions.odd", odd + more_odd + (at_once < count), 0),
        Line("sessions.left", left["sessions"], 0),
        Line("sessions.streams", left["streams"] + left["exchanges"], 0),
        Line("sessions.bytes", left["held_bytes"], 0),
        Line("sessions.calls-open", after.calls - before.calls, 0),
        Line("sessions.channels", max(0, after.channels - before.channels), 0),
        Line("sessions.connections", max(0, after.connections - before.connections), 0),
        Line("sessions.descriptors", max(0, after.descriptors - before.descriptors), 0),
        Line("sessions.memory", round(grown, 1), MEMORY_MIB if count < 100 else FLAT_MIB, "MiB"),
        Line("sessions.gateway-status", ended, 0),
    ]


def _wave(door: RunningGateway, count: int, progress: Progress) -> tuple[int, int]:
    """Open so many sessions, and end them. Return how many were served wrongly, and were open at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        begun = list(_told(pool, lambda number: _opened(door, number), range(count), progress))
        at_once = door.figures()["sessions"]
        odd = sum(not is_well for is_well in _told(pool, _ended, begun, lambda _: None))
    close_all()
    return odd, at_once


def _told(pool: ThreadPoolExecutor, do: Callable[[T], R], over: Iterable[T], progress: Progress) -> list[R]:
    found = []
    for result in pool.map(do, over):
        found.append(result)
        progress(len(found))
    return found


def _opened(door: RunningGateway, number: int) -> Open:
    session = door.http().initialized()
    stream = session.listen()
    echoed = text_of(session.ask("tools/call", {"name": "echo", "arguments": {"n": number}}))
    return Open(number, session, stream, stream.status == 200 and echoed == {"n": number})


def _ended(one: Open) -> bool:
    """Delete a session, or abandon it: every other one, and half of those by a reset of its connections."""
    if one.number % 2 == 0:
        one.stream.close()
        return one.is_well and one.session.send("DELETE").status == 204
    call = one.session.stream("tools/call", GOES_ON)
    is_under_way = call.next() is not None
    for stream in (call, one.stream):
        if one.number % 4 == 1:
            stream.reset()
        else:
            stream.close()
    return one.is_well and is_under_way


def _allow_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def _at_rest(broker: RunningBroker, door: RunningGateway) -> None:
    """Until no session and no call is open, and only the gateway's own channel is left."""
    wait_until(lambda: door.figures()["sessions"] == 0, door.figures)
    wait_until(
        lambda: (held := _held(broker, door)).calls == 0 and held.channels <= 1, lambda: _held(broker, door)
    )


def _held(broker: RunningBroker, door: RunningGateway) -> Held:
    status = broker.status()
    mine = [one for one in status["clients"] if one["pid"] == door.process.pid]
    calls = sum(server["in_flight"] + server["queued"] for server in status["servers"])
    descriptors = len(os.listdir(f"/proc/{door.process.pid}/fd"))
    return Held(calls, sum(one["channels"] for one in mine), len(mine), descriptors)
