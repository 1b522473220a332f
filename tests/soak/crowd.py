"""Clients in processes of their own: some are killed and replaced, while servers are killed and restarted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, RunningBroker
from tests.soak.ground import REST_S


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
    """The clients, and what is done to them and to the servers. A client works until its input ends; then it
    writes what it has counted, as JSON.

    Args:
        size: how many clients there are at any time.
        command: makes the command of a client, from the endpoint and its number.
        victims: the servers that are killed and restarted.
    """

    def __init__(
        self,
        broker: RunningBroker,
        size: int,
        command: Callable[[str, int], list[str]],
        victims: Sequence[str],
    ) -> None:
        self._broker = broker
        self._command = command
        self._victims = victims
        self._dice = random.Random(size)
        self._born = 0
        self.disturbed: Counter[str] = Counter()
        """How often each server was killed or restarted."""
        self._children = [self._bear() for _ in range(size)]

    def _bear(self) -> subprocess.Popen[bytes]:
        self._born += 1
        command = [sys.executable, *self._command(self._broker.endpoint, self._born)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def disturb(self) -> None:
        """One client is killed and another one comes; a server is killed, or restarted by the command."""
        at = self._dice.randrange(len(self._children))
        self._children[at].kill()
        self._children[at].communicate()
        self._children[at] = self._bear()
        server = self._dice.choice(self._victims)
        self.disturbed[server] += 1
        pid = self._broker.pids().get(server)
        if self._dice.random() < 0.5 and pid is not None:
            os.kill(pid, signal.SIGKILL)
        else:
            with self._broker.client() as client:
                client.request(MANAGEMENT, "restart", {"server": server})

    def finish(self) -> Counter[str]:
        """Let all of them end their calls and go; what they have counted together."""
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
