"""How soon the broker knows that a client was killed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from client_shim.blocking import BlockingClient
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, rogue
from tests.e2e.raw import process
from tests.soak.ground import Line, Progress, counted

GONE_MS = 100.0


def run(count: int, progress: Progress) -> list[Line]:
    """`count` clients with a call in flight are killed; from the SIGKILL until no row is left of each."""
    took: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="mb-") as name,
        counted({"s": rogue()}, Path(name)) as broker,
        broker.client() as client,
    ):
        for number in range(count):
            took.append(1000 * until_gone(broker.endpoint, client))
            progress(number + 1)
        status = client.request(MANAGEMENT, "status")
    took.sort()
    return [
        Line("vanish.median", round(took[len(took) // 2], 1), None, "ms", timed=True),
        Line("vanish.p99", round(took[int(0.99 * len(took))], 1), GONE_MS, "ms", timed=True),
        Line("vanish.longest", round(took[-1], 1), GONE_MS, "ms", timed=True),
        Line("vanish.calls-left", status["servers"][0]["in_flight"], 0),
    ]


def until_gone(endpoint: str, client: BlockingClient) -> float:
    """Seconds from the SIGKILL of a client with a call in flight until the broker has no row of it."""
    with process(endpoint, "hang") as child:
        begin = time.monotonic()
        child.kill()
        while client.request(MANAGEMENT, "status")["broker"]["clients"] > 1:
            assert time.monotonic() - begin < PATIENCE_S
        return time.monotonic() - begin
