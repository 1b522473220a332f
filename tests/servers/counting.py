"""`rogue.py` with a tool that writes down each call which it begins, before it does anything for it.

    python -I -S tests/servers/counting.py RECORD [--flag ...]

RECORD is a file that gets a line for each call: the text that the caller gave it.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.servers.rogue import begin
from tests.servers.rogue_flags import parse
from tests.servers.rogue_methods import METHODS
from tests.servers.rogue_server import Server
from tests.servers.rogue_tools import TOOLS, described, text

TYPE_CHECKING = False  # see rogue_json
if TYPE_CHECKING:
    from tests.servers.rogue_json import Object
    from tests.servers.rogue_server import Handler, Request


def count_in(record: str) -> Handler:
    """The code of a tool that writes each call into this file, in one write."""

    def count(request: Request) -> Object | None:
        called = str(request.arguments["call"])
        fd = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, called.encode() + b"\n")
        os.close(fd)
        if request.cancelled.wait(float(request.arguments.get("seconds", 0))):
            return None
        return text(called)

    return count


def main(record: str, *arguments: str) -> None:
    """Serve until stdin ends."""
    flags = parse(list(arguments))
    begin(flags)
    about = described("count", "Writes down that it was called, and answers so.", {})
    Server(flags, METHODS, {**TOOLS, "count": (about, count_in(record))}).serve()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
