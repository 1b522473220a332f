"""A server that greets as it should, and then does what its first argument says, never reading again.

The second argument is how often it does so; without one it never ends.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable

ROLES: dict[str, Callable[[int], bytes]] = {
    "ask": lambda number: b'{"jsonrpc":"2.0","id":%d,"method":"ping"}' % number,
    "ask with a long id": lambda number: b'{"jsonrpc":"2.0","id":"%b","method":"ping"}' % (b"x" * 65_000),
    "write too long a line": lambda number: b'{}\n{"method":"%b"}' % (b"x" * 400_000),
}
"""What it does → a line of it, or several."""


def greet() -> None:
    """Answer what a client of 2025-11-25 begins with."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["method"] == "initialize":
            result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
            write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode())
        elif message["method"] == "notifications/initialized":
            return


def write(line: bytes) -> None:
    """Write a line at once."""
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def main(role: str, times: str = "") -> None:
    """Greet, do it, and wait to be ended."""
    greet()
    numbers: Iterable[int] = range(int(times)) if times else itertools.count()
    for number in numbers:
        write(ROLES[role](number))
    time.sleep(1_000_000)


if __name__ == "__main__":
    main(*sys.argv[1:])
