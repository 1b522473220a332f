"""The floor: a process between client and server that does nothing but forward, in the fastest bare loop.

    python forwarder.py poll|trio ENDPOINT COMMAND...

A ROUTER in front, the server's pipes behind; whoever asked last gets the next line.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

import zmq

_READ_BYTES = 1 << 20


class Forwarder:
    """Both ends and both directions, for one caller at a time."""

    def __init__(self, endpoint: str, command: list[str]) -> None:
        self.router: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self.router.bind(endpoint)
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.stdin, self.stdout = self.server.stdin.fileno(), self.server.stdout.fileno()
        self.fd = int(self.router.getsockopt(zmq.FD))
        self._caller = b""
        self._line: list[bytes] = []

    def there(self) -> None:
        """Pass on what clients sent."""
        while self.has_input():
            self._caller, line = self.router.recv_multipart()
            os.write(self.stdin, line)

    def back(self) -> bool:
        """Pass on the lines that the server wrote; return false at its end."""
        chunk = os.read(self.stdout, _READ_BYTES)
        self._line.append(chunk)
        if chunk.endswith(b"\n"):
            self.router.send(self._caller, zmq.SNDMORE)
            self.router.send(b"".join(self._line))
            self._line.clear()
        return bool(chunk)

    def has_input(self) -> bool:
        """Check for messages that the edge-triggered descriptor does not signal."""
        return bool(int(self.router.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def run_poll(forwarder: Forwarder) -> None:
    """Run the plain loop."""
    poll = select.poll()
    poll.register(forwarder.fd, select.POLLIN)
    poll.register(forwarder.stdout, select.POLLIN)
    while True:
        if not forwarder.has_input():
            ready = dict(poll.poll())
            if forwarder.stdout in ready and not forwarder.back():
                return
        forwarder.there()


async def run_trio(forwarder: Forwarder) -> None:
    """Run on the event loop of the broker."""
    import trio

    async def there() -> None:
        while True:
            forwarder.there()
            await trio.lowlevel.wait_readable(forwarder.fd)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(there)
        while True:
            await trio.lowlevel.wait_readable(forwarder.stdout)
            if not forwarder.back():
                break
            forwarder.there()  # the send may have taken the edge
        nursery.cancel_scope.cancel()


def main(loop: str, endpoint: str, command: list[str]) -> None:
    """Forward until the server ends."""
    forwarder = Forwarder(endpoint, command)
    print("ready", flush=True)
    try:
        if loop == "trio":
            import trio

            trio.run(run_trio, forwarder)
        else:
            run_poll(forwarder)
    finally:
        forwarder.server.kill()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
