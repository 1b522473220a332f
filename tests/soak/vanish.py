"""How soon the broker knows that a client was killed."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from client_shim.blocking import BlockingClient
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, rogue
from tests.e2e.raw import process
from tests.soak.ground import Line, Progress, counted, favoured

GONE_MS = 100.0
STATED = 200


def run(count: int, progress: Progress) -> list[Line]:
    """`count` clients with a call in flight are killed; from the SIGKILL until no row is left of each."""
    took: list[float] = []
    with tempfile.TemporaryDirectory(prefix="mb-") as name, ExitStack() as stack:
        with favoured(count >= STATED) as are_favoured:
            broker = stack.enter_context(counted({"s": rogue()}, Path(name)))
        client = stack.enter_context(broker.client())
        for number in range(count):
            took.append(1000 * until_gone(broker.endpoint, client, are_favoured))
            progress(number + 1)
        status = client.request(MANAGEMENT, "status")
    took.sort()
    return [
        Line("real-time", int(are_favoured)),
        Line("vanish.median", round(took[len(took) // 2], 1), None, "ms", timed=True),
        Line("vanish.p99", round(took[int(0.99 * len(took))], 1), GONE_MS, "ms", timed=True),
        Line("vanish.longest", round(took[-1], 1), GONE_MS, "ms", timed=True),
        Line("vanish.calls-left", status["servers"][0]["in_flight"], 0),
    ]


def until_gone(endpoint: str, client: BlockingClient, is_favoured: bool) -> float:
    """Seconds from the SIGKILL of a client with a call in flight until the broker has no row of it."""
    with favoured(is_favoured), process(endpoint, "hang") as child:
        begin = time.monotonic()
        child.kill()
        while client.request(MANAGEMENT, "status")["broker"]["clients"] > 1:
            assert time.monotonic() - begin < PATIENCE_S
        return time.monotonic() - begin
