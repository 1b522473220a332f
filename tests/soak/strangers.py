"""Clients with the same ids and tokens, killed and restarted servers: not one foreign byte, no residue."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, RunningBroker
from tests.soak.ground import REST_S, Line, Progress, beside, counted, faulty, starts, vitals

CLIENTS = 50
ENDINGS = ("result", "server-died", "cancelled")
SERVERS = ("one", "two", "three", "four", "five")


def run(count: int, progress: Progress) -> list[Line]:
    """`count` seconds of it."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(name)
        servers = {
            server: faulty(folder / server, restart_sec=0.05, start_limit_burst=1000) for server in SERVERS
        }
        with counted(servers, folder) as broker:
            before, pids = vitals(broker, folder), broker.pids()
            crowd = Crowd(broker, CLIENTS if count > 20 else 12)
            for second in range(count):
                crowd.disturb(pids)
                time.sleep(1)
                progress(second + 1)
            heard = crowd.finish()
            assert heard["result"] > count, f"hardly anything was answered: {heard}"
            status = settled(broker)
            after = vitals(broker, folder, like=before)
            broker.wait_ready()
            now = broker.pids()
            changed = sum(now[server] != pids[server] for server in SERVERS if not crowd.disturbed[server])
            unasked = sum(
                max(0, len(starts(folder / server)) - 1 - crowd.disturbed[server]) for server in SERVERS
            )
        return [
            Line("calls", sum(heard[kind] for kind in ENDINGS)),
            Line("strangers.foreign", heard["foreign"], 0),
            Line("strangers.unsigned", heard["unsigned"], 0),
            Line("strangers.lost", heard["lost"], 0),
            Line("strangers.late", heard["late"], 0),
            Line("strangers.clients-left", status["broker"]["clients"] - 1, 0),
            Line("strangers.calls-left", busy(status), 0),
            Line("strangers.disturbances", crowd.disturbed.total()),
            Line("strangers.pids-changed", changed, 0),
            Line("strangers.starts-unasked", unasked, 0),
            Line("two-at-once", sum(beside(folder / server) for server in SERVERS), 0),
            *after.more_than(before),
        ]


def settled(broker: RunningBroker) -> dict[str, Any]:
    """The status once nobody is there but who asks for it, or as it is when that does not come."""
    give_up = time.monotonic() + REST_S
    while True:
        status = broker.status()
        if (status["broker"]["clients"] == 1 and not busy(status)) or time.monotonic() > give_up:
            return status
        time.sleep(0.05)


def busy(status: dict[str, Any]) -> int:
    """Calls that are still there."""
    return sum(row["in_flight"] + row["queued"] for row in status["servers"])


class Crowd:
    """The clients, and what is done to them and to the servers."""

    def __init__(self, broker: RunningBroker, size: int) -> None:
        self._broker = broker
        self._dice = random.Random(size)
        self._born = 0
        self.disturbed: Counter[str] = Counter()
        """How often each server was killed or restarted."""
        self._children = [self._bear() for _ in range(size)]

    def _bear(self) -> subprocess.Popen[bytes]:
        self._born += 1
        script = str(Path(__file__).with_name("stranger.py"))
        secret = f"secret-{self._born}x{os.getpid()}"
        command = [sys.executable, script, self._broker.endpoint, secret, *SERVERS]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def disturb(self, pids: dict[str, int]) -> None:
        """One client is killed and another one comes; a server is killed, or restarted by the command.

        The last two servers are never touched, so that their pids can be compared in the end.
        """
        at = self._dice.randrange(len(self._children))
        self._children[at].kill()
        self._children[at].communicate()
        self._children[at] = self._bear()
        server = self._dice.choice(SERVERS[:3])
        self.disturbed[server] += 1
        pid = self._broker.pids().get(server)
        if self._dice.random() < 0.5 and pid is not None:
            os.kill(pid, signal.SIGKILL)
        else:
            with self._broker.client() as client:
                client.request(MANAGEMENT, "restart", {"server": server})

    def finish(self) -> Counter[str]:
        """Let all of them end their calls and go; what they have heard together."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.close()
            child.stdin = None
        heard: Counter[str] = Counter()
        for child in self._children:
            told, _ = child.communicate(timeout=2 * PATIENCE_S)
            assert child.returncode == 0
            heard.update(json.loads(told))
        return heard
