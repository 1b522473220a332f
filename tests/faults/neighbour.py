"""A client that calls a healthy server all the time, in a process of its own, and checks every answer.

    python tests/faults/neighbour.py ENDPOINT SERVER FILE

It writes a line to FILE for each call: the time at its end and how long it took, in seconds, by the clock
that all processes share. It ends at the end of its input, with status 0 if every call was answered rightly.
"""

from __future__ import annotations

import itertools
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from client_shim.blocking import BlockingClient

PAUSE_S = 0.005
PATIENCE_S = 60.0


class Answered(NamedTuple):
    """One call: when it was answered, by `time.monotonic`, and after how many seconds."""

    at: float
    took_s: float


class Neighbour:
    """The running client, as its test sees it."""

    def __init__(self, child: subprocess.Popen[bytes], record: Path) -> None:
        self._child = child
        self._record = record

    def answers(self, begin: float = 0.0, end: float = float("inf")) -> list[Answered]:
        """The calls answered in this time."""
        lines = self._record.read_text().splitlines(keepends=True)
        all_of_them = (Answered(*map(float, line.split())) for line in lines if line.endswith("\n"))
        return [answered for answered in all_of_them if begin <= answered.at - answered.took_s < end]

    def finish(self) -> list[Answered]:
        """End it; every answer.

        Raises:
            AssertionError: a call was not answered, or wrongly.
        """
        _, complaint = self._child.communicate(timeout=PATIENCE_S)
        assert self._child.returncode == 0, complaint.decode()
        return self.answers()


@contextmanager
def neighbour(endpoint: str, server: str) -> Iterator[Neighbour]:
    """A client at work, from its first answer on."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        record = Path(folder, "answers")
        command = [sys.executable, __file__, endpoint, server, str(record)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            try:
                give_up = time.monotonic() + PATIENCE_S
                while not (record.exists() and record.stat().st_size):
                    assert child.poll() is None
                    assert time.monotonic() < give_up, "it was never answered"
                    time.sleep(0.01)
                yield Neighbour(child, record)
            finally:
                child.kill()


def quantile_ms(answers: list[Answered], q: float) -> float:
    """The time that a share `q` of the calls took at most."""
    times = sorted(answered.took_s for answered in answers)
    return 1000 * times[min(len(times) - 1, int(q * len(times)))]


def main(endpoint: str, server: str, path: str) -> None:
    """Call until the input ends."""
    client = BlockingClient(endpoint, timeout_s=PATIENCE_S, name="neighbour")
    with open(path, "w", encoding="ascii") as record, client:
        for number in itertools.count():
            if select.select([sys.stdin], [], [], PAUSE_S)[0]:
                break
            begun = time.monotonic()
            params = {"name": "echo", "arguments": {"number": number}}
            result = client.request(server, "tools/call", params)
            end = time.monotonic()
            assert json.loads(result["content"][0]["text"]) == {"number": number}, result
            record.write(f"{end:.6f} {end - begun:.6f}\n")
            record.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
