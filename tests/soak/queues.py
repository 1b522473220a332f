"""One channel with a long queue, and one with a single call: the single one waits for those that run."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import closing
from pathlib import Path

from client_shim import wire
from tests.e2e.raw import Peers, RawPeer
from tests.soak.ground import Line, Progress, counted, faulty

AT_ONCE = 4
TURN = b'{"name":"turn"}'


def run(count: int, progress: Progress) -> list[Line]:
    """`count` calls of one channel; the other's comes when all of them are in the queue."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        servers = {"s": faulty(Path(name, "starts"), max_in_flight=AT_ONCE, timeout=120.0)}
        with counted(servers, Path(name)) as broker, closing(Peers(broker.endpoint)) as peers:
            many, single = peers.hello(), peers.hello()
            ids = {many.call("s", TURN) for _ in range(count)}
            many.ping()
            broker.wait(lambda status: status["servers"][0]["queued"] == count - AT_ONCE)
            its = single.call("s", TURN)
            broker.wait(lambda status: status["servers"][0]["queued"] == count - AT_ONCE + 1)
            os.kill(broker.pids()["s"], signal.SIGUSR1)
            turn = turns(single, {its})[its]
            all_turns = turns(many, ids)
            progress(count)
        first = min(all_turns.values())
        return [
            Line("queues.waited-for", turn - first - AT_ONCE + 1, AT_ONCE),
            Line("queues.lost", count - len(all_turns), 0),
        ]


def turns(peer: RawPeer, ids: set[int]) -> dict[int, int]:
    """The how-manieth at the server each of these calls was."""
    found: dict[int, int] = {}
    while len(found) < len(ids):
        message, body = peer.receive()
        peer.give_credit()
        if message.id in ids:
            assert isinstance(message, wire.Result), message
            found[message.id] = int((body or b"").partition(b'"text":"')[2].partition(b'"')[0])
    return found
