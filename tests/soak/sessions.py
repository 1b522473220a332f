"""HTTP sessions come and go, half of them abandoned: nothing of them stays in gateway and broker."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.harness import RunningBroker, rogue, running, wait_until
from tests.gateway.gateways import Http, RunningGateway, close_all, gateway, text_of
from tests.soak.ground import FLAT_MIB, MEMORY_MIB, MIB, Line, Progress

AT_ONCE = 8
LIMITS = {"session_idle_sec": 1.0, "replay_sec": 1.0}
HANGS = {"name": "progress", "arguments": {"steps": 20, "delay": 0.1}, "_meta": {"progressToken": 1}}


def run(count: int, progress: Progress) -> list[Line]:
    """`count` sessions: opened, listened to, called, and deleted, or abandoned with a cut stream and call."""
    with running({"rogue": rogue("--era", "modern")}) as broker, gateway(broker, limits=LIMITS) as door:
        _rounds(door, AT_ONCE, lambda _: None)
        _at_rest(broker, door)
        before = _held(broker, door)
        odd = _rounds(door, count // 2, progress)
        _at_rest(broker, door)
        half = door.memory
        odd += _rounds(door, count - count // 2, lambda done: progress(count // 2 + done))
        _at_rest(broker, door)
        after = _held(broker, door)
        grown = (door.memory - half) / MIB
        left = door.figures()
        ended = door.stop()
    calls, channels, descriptors = (now - then for now, then in zip(after, before, strict=True))
    return [
        Line("sessions.odd", odd, 0),
        Line("sessions.left", left["sessions"], 0),
        Line("sessions.streams", left["streams"] + left["exchanges"], 0),
        Line("sessions.calls-open", calls, 0),
        Line("sessions.channels", max(0, channels), 0),
        Line("sessions.descriptors", max(0, descriptors), 0),
        Line("sessions.memory", round(grown, 1), MEMORY_MIB if count < 100 else FLAT_MIB, "MiB"),
        Line("sessions.gateway-status", ended, 0),
    ]


def _rounds(door: RunningGateway, count: int, progress: Progress) -> int:
    """So many sessions, a few at a time; how many were served wrongly."""
    odd = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count))
            odd += sum(pool.map(lambda number: not _is_served(door.http(), number), numbers))
            close_all()
            progress(numbers.stop)
    return odd


def _is_served(client: Http, number: int) -> bool:
    """Whether a session does what it has to; the odd ones are abandoned."""
    session = client.initialized()
    stream = session.listen()
    echoed = text_of(session.ask("tools/call", {"name": "echo", "arguments": {"n": number}}))
    if number % 2:
        session.stream("tools/call", HANGS).next()
        return bool(echoed == {"n": number})
    stream.close()
    return bool(echoed == {"n": number} and session.send("DELETE").status == 204)


def _at_rest(broker: RunningBroker, door: RunningGateway) -> None:
    """Until no session and no call is open, and only the gateway's own channel is left."""
    wait_until(lambda: door.figures()["sessions"] == 0, door.figures)
    wait_until(lambda: _held(broker, door)[0] == 0 and _held(broker, door)[1] <= 1)


def _held(broker: RunningBroker, door: RunningGateway) -> tuple[int, int, int]:
    """What is open: calls and channels at the broker, descriptors of the gateway."""
    status = broker.status()
    calls = sum(server["in_flight"] + server["queued"] for server in status["servers"])
    channels = sum(one["channels"] for one in status["clients"] if one["pid"] == door.process.pid)
    return calls, channels, len(os.listdir(f"/proc/{door.process.pid}/fd"))
