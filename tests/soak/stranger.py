"""A client among strangers: its ids and tokens are those of all the others, and its secret is its own.

    python tests/soak/stranger.py ENDPOINT SECRET SERVER ...

It calls until its input ends, waits for what is open, and writes one line of JSON: what became of its calls,
and how much of what it heard was not its own.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from client_shim import wire
from tests.e2e.raw import PATIENCE_MS, Peers, RawPeer, Received

AHEAD = 6
"""Calls that it has open at once."""

SECRET = re.compile(rb"secret-\w+")
TOKENS = (1, 2, "1", "token")
"""What every stranger calls its progress by."""


class Stranger:
    """One client and what it has heard."""

    def __init__(self, peer: RawPeer, secret: str, servers: list[str]) -> None:
        self.peer = peer
        self.secret = secret.encode()
        self.servers = servers
        self.counts: Counter[str] = Counter()
        self.open: set[int] = set()
        self._dice = random.Random(secret)
        self._next = 0

    def ask(self) -> None:
        """One more call, under the next of the ids that all strangers use; now and then it is cancelled."""
        self._next += 1
        dice, progress = self._dice, self._dice.random() < 0.7
        arguments = {"secret": self.secret.decode(), "steps": dice.randrange(4), "delay": 0.002}
        body = json.dumps({"name": "chant", "arguments": arguments}).encode()
        flags = wire.WANTS_PROGRESS if progress else 0
        meta = {"progressToken": dice.choice(TOKENS)} if progress else None
        self.peer.call(dice.choice(self.servers), body, id=self._next, flags=flags, meta=meta)
        self.open.add(self._next)
        if dice.random() < 0.1:
            self.peer.say(wire.Cancel(1, self._next, None))

    def hear(self, received: Received) -> None:
        """Take in a message: find its call, and end it where the message does."""
        message, body = received
        foreign = [said for said in SECRET.findall(body or b"") if said != self.secret]
        self.counts["foreign"] += len(foreign)
        if isinstance(message, wire.Notification):
            self.counts["progress"] += 1
            self.counts["late"] += message.id not in self.open
        elif isinstance(message, (wire.Result, wire.Error, wire.Fault)):
            self.counts["late"] += message.id not in self.open
            self.open.discard(message.id)
            kind = message.code if isinstance(message, wire.Fault) else type(message).__name__.lower()
            self.counts[kind] += 1
            self.counts["unsigned"] += kind == "result" and self.secret not in (body or b"")

    def listen(self, patience_ms: int) -> None:
        """Take in what comes, and give the credit back."""
        if self.peer.socket.poll(patience_ms):
            for received in self.peer.waiting():
                self.hear(received)
            self.peer.give_credit()

    def run(self) -> None:
        """Call until the input ends, then wait for the rest."""
        poller = zmq.Poller()
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        while not poller.poll(0):
            while len(self.open) < AHEAD:
                self.ask()
            self.listen(100)
            time.sleep(0.01)  # fifty of them share two processors with all the servers
        give_up = time.monotonic() + PATIENCE_MS / 1000
        while self.open and time.monotonic() < give_up:
            self.listen(100)
        self.counts["lost"] += len(self.open)


def main(endpoint: str, secret: str, *servers: str) -> None:
    """Be that client."""
    with closing(Peers(endpoint)) as peers:
        stranger = Stranger(peers.hello(), secret, list(servers))
        stranger.run()
        print(json.dumps(stranger.counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
