"""`mcp-broker connect SERVER`: what an MCP host starts in place of the server. The standard library alone.

Where a gateway listens it relays lines, and the conversation lives in the gateway. Where none does,
`broker.gateway.stdio.holder` holds the conversation in this process.
"""

from __future__ import annotations

import os
import signal
import sys

from broker.gateway.stdio.relay import HostGone, Relay, TooLong, places_of
from broker.gateway.stdio.stderr import Stderr, say


def own_pipes() -> tuple[int, int]:
    """Return descriptors of the host's pipes that nothing else writes to: what prints, prints to stderr.

    Raises:
        OSError: a pipe is closed.
    """
    for fd in (0, 1):  # a copy of the one would take the number of the other
        os.fstat(fd)
    nowhere = os.open(os.devnull, os.O_RDWR)  # stands for stderr where that is closed
    stdin, stdout = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    os.dup2(nowhere, 0)
    if nowhere > 2:
        os.close(nowhere)
    return stdin, stdout


def connect(server: str, endpoint: str | None = None) -> int:
    """Relay between stdio and the gateway, or hold the conversation here; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        stdin, stdout = own_pipes()
    except OSError:
        say("stdin or stdout is closed, so there is no host to serve")
        return 1
    sys.stderr = Stderr()  # for the log of the shim and for tracebacks, too
    relay = Relay(server, places_of(os.environ, endpoint), stdin, stdout)
    try:
        if relay.run():
            from broker.gateway.stdio.holder import hold

            return hold(relay, server, endpoint, stdin, stdout)
    except (HostGone, BrokenPipeError):
        return 0
    except TooLong as error:
        say(str(error))
        return 1
    return 0


USAGE = "usage: mcp-broker connect SERVER [--endpoint ADDRESS]"


def main(arguments: list[str]) -> int:
    """Run the command with these arguments; return the exit status."""
    server, endpoint = "", None
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--endpoint" and rest:
            endpoint = rest.pop(0)
        elif word.startswith("--endpoint="):
            endpoint = word.partition("=")[2]
        elif word.startswith("-") or server:
            say(USAGE)
            return 2
        else:
            server = word
    if not server:
        say(USAGE)
        return 2
    return connect(server, endpoint)
