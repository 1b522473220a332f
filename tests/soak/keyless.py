"""Many connections of somebody without a key, while clients with a key and on the path are served."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from client_shim import wire
from client_shim.key_file import KeyFile
from tests.e2e.harness import ROOT, RunningBroker, Table, rogue
from tests.e2e.raw import Peers
from tests.network.place import Keys, reachable
from tests.soak.ground import COUNTED, MEMORY_MIB, Line, Progress, favoured, least_mib, vitals

STATED = 10_000
AT_ONCE = 4000
CALLS = 20
SLOWER = 2.0
"""Law 5: how much slower the others may be."""


def run(count: int, progress: Progress) -> list[Line]:
    """`count` connections in all the raw ways of an attacker, of which 4,000 are held.

    The calls meanwhile are compared with those during the same attack on another broker: it is not the
    machine that must be as fast as before, which has the attacker's work, too.
    """
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        keys = Keys(Path(name))
        laptop = keys.new("laptop")
        servers: dict[str, Table] = {"s": rogue()}
        program, arguments = (COUNTED, str(Path(name) / "tasks")), ("--log-level", "warning")
        with ExitStack() as stack:
            with favoured(count >= STATED) as are_favoured:
                broker, address = stack.enter_context(
                    reachable(keys, servers, program=program, arguments=arguments)
                )
                _, other = stack.enter_context(reachable(keys, servers))

            def calls() -> list[float]:
                with favoured(are_favoured):
                    return served(broker, address, laptop)

            calls()
            before = vitals(broker, Path(name))
            quiet = during(other, count, calls)
            progress(0)
            attacked = during(address, count, calls)
            progress(count)
            after = vitals(broker, Path(name), like=before)
            grown = least_mib(broker.pid, 5.0) - before.memory_mib
            restarts = broker.server("s")["restarts"]
    return [
        Line("real-time", int(are_favoured)),
        Line("calls", len(attacked)),
        Line("keyless.slower", round(p99(attacked) / p99(quiet), 2), SLOWER, timed=True),
        Line("keyless.restarts", restarts, 0),
        *after.left_since(before),
        Line("memory", round(grown, 1), MEMORY_MIB, "MiB"),
    ]


def during(address: str, count: int, calls: Callable[[], list[float]]) -> list[float]:
    """The calls that are made while an attack goes on."""
    took: list[float] = []
    with attack(address, count) as child:
        while child.poll() is None:
            took += calls()
    return took


@contextmanager
def attack(address: str, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """An attacker with a process of its own, which ends when it has made all its connections."""
    command = [sys.executable, "-m", "tests.network.attacker", address, str(count), str(AT_ONCE)]
    with subprocess.Popen(command, cwd=ROOT) as child:
        try:
            yield child
            assert child.wait() == 0
        finally:
            child.kill()


def served(broker: RunningBroker, address: str, laptop: KeyFile) -> list[float]:
    """The seconds of each call of a client that comes in with a key, and of one on the path."""
    took = []
    with closing(Peers(address)) as peers, closing(Peers(broker.endpoint)) as local:
        for peer in (peers.hello(keys=laptop), local.hello()):
            for _ in range(CALLS):
                began = time.perf_counter()
                answer, _ = peer.ask(peer.request("s"), b'{"name":"echo","arguments":{"text":"hi"}}')
                assert isinstance(answer, wire.Result), answer
                took.append(time.perf_counter() - began)
                peer.give_credit()
    return took


def p99(took: list[float]) -> float:
    """The time that one call of a hundred exceeds."""
    return sorted(took)[int(0.99 * len(took))]
