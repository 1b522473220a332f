"""Clients with the same ids and tokens, killed and restarted servers: not one foreign byte, no residue."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from tests.soak.crowd import Crowd, busy, settled
from tests.soak.ground import Line, Progress, beside, counted, faulty, starts, vitals

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
            size = CLIENTS if count > 20 else 12
            # The last two servers are never touched, so that their pids can be compared in the end.
            crowd = Crowd(broker, size, stranger, SERVERS[:3])
            for second in range(count):
                crowd.disturb()
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


def stranger(endpoint: str, number: int) -> list[str]:
    """The command of a client."""
    program = str(Path(__file__).with_name("stranger.py"))
    return [program, endpoint, f"secret-{number}x{os.getpid()}", *SERVERS]
