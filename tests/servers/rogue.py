"""An MCP server that behaves as badly as it is told to.

    python -I -S tests/servers/rogue.py [--flag ...]

The standard library only, so that it starts in a few hundredths of a second. `rogue_flags.py` is the table of
flags, `rogue_tools.py` that of tools, `rogue_replies.py` that of broken replies, `rogue_methods.py` that of
methods by era; `rogue_server.py` has the pipes and what a client must keep to.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.servers.rogue_flags import Flags, parse
from tests.servers.rogue_methods import METHODS
from tests.servers.rogue_process import WAIT_S, leave, record_start, write_all
from tests.servers.rogue_server import Server
from tests.servers.rogue_tools import TOOLS


def begin(flags: Flags) -> None:
    """What happens before it may be asked anything, in the order of the table."""
    if flags.start_file:
        record_start(flags.start_file)
    if flags.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(flags.start_delay)
    flags.held = b"x" * (flags.hold_mib * 1024 * 1024)
    if flags.stderr_at_start:
        write_all(2, flags.stderr_at_start.encode() + b"\n")
    if flags.exit_at_start >= 0:
        os._exit(flags.exit_at_start)


def speak_first(server: Server) -> None:
    """What it leaves and says before it was asked."""
    flags, out = server.flags, server.out
    if flags.fork_at_start:
        server.descendants.append(leave(flags.fork_at_start))
    if flags.banner:
        out.write(flags.banner.encode() + b"\n")
    if flags.flood_stderr:
        threading.Thread(target=flood_stderr, daemon=True).start()
    if flags.flood_stdout:
        threading.Thread(target=flood_stdout, args=(server,), daemon=True).start()
    if flags.endless_line:
        out.write(b"x" * flags.endless_line, last=True)


def flood_stderr() -> None:
    """Write until nobody reads."""
    while True:
        write_all(2, b"flood\n" * 100)


def flood_stdout(server: Server) -> None:
    """Log until nobody reads."""
    while True:
        server.notify("notifications/message", {"level": "info", "logger": "flood", "data": "x" * 200})


def main() -> None:
    """Serve until stdin ends, or longer."""
    flags = parse(sys.argv[1:])
    begin(flags)
    server = Server(flags, METHODS, TOOLS)
    speak_first(server)
    server.serve()
    if flags.ignore_eof or flags.close_stdin_after:
        time.sleep(WAIT_S)
    os._exit(0)  # calls under way are not waited for


if __name__ == "__main__":
    main()
