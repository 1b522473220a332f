"""Relays lines between a host's pipes and the gateway's socket, on the standard library alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, poll
from socket import AF_UNIX, SOCK_NONBLOCK, SOCK_STREAM, socket
from time import monotonic

from broker.gateway.stdio.lines import MAX_LINE_BYTES, LineSplitter
from broker.gateway.stdio.relay_state import RelayState
from broker.gateway.stdio.stderr import say
from client_shim.trusted import Untrusted, open_folder

ENDPOINT = "MCP_BROKER_ENDPOINT"
SOCKETS = "MCP_BROKER_SOCKETS"
SYSTEM_SOCKET = "/run/mcp-broker/broker.sock"
SYSTEM_SOCKETS = "/run/mcp-broker-gateway/servers"
"""Where the gateway of the system has its sockets, beside those next to the broker's."""

PLAIN_CHARS = 64
"""The longest name of a server that is the name of its socket as it is."""

READ_BYTES = 65_536
PAUSE_BYTES = 1_048_576
"""What may wait for one side before the other is no longer read."""

WRITE_BYTES = 4096
"""A pipe that is ready takes so much without blocking (PIPE_BUF, pipe(7)); its flags are the host's too."""

TAKE_OVER_S = 5.0
"""How long a gateway that was there may be away before the conversation is held here, if the host waits."""

FIRST_TRY_S, LAST_TRY_S = 0.02, 1.0
"""The delays between two tries to reach it again: from the first to the longest."""

STEADY_S = 1.0
"""A connection that lasted longer was a good one; the next try after it comes soon."""

LOST = "the gateway was restarted, or lost the connection"
READABLE = POLLIN | POLLHUP | POLLERR | POLLNVAL


class HostGone(Exception):
    """The host has closed a pipe, or ended."""


class TooLong(Exception):
    """A message is longer than any that is passed on. Its answer would be missing, so the bridge ends."""

    def __init__(self) -> None:
        super().__init__(f"a message is longer than {MAX_LINE_BYTES} bytes, so the connection ends")


class SocketDir:
    """A folder where a gateway may have its sockets, and whether somebody named it."""

    def __init__(self, path: str, *, is_named: bool = False) -> None:
        self.path = path
        self.is_named = is_named

    def check(self) -> None:
        """See that no other user could listen there for the gateway. A named place is as its user wants it.

        Raises:
            Untrusted: another user could.
            OSError: there is no such folder.
        """
        if self.is_named:
            return
        parent, name = os.path.split(os.path.dirname(self.path))
        if parent == "/run":  # root gave the folder to the user of the service
            with open_folder(parent) as run, run.folder(name, given=True):
                return
        open_folder(self.path).close()


def places_of(environ: Mapping[str, str], endpoint: str | None) -> list[SocketDir]:
    """Return the folders where a gateway may have its sockets, the likeliest first.

    It is the folder that `$MCP_BROKER_SOCKETS` names, else `gateway` beside the broker's socket, which is
    found as every client finds it (docs/protocol.md).
    """
    if named := environ.get(SOCKETS):
        return [SocketDir(named, is_named=True)]
    told = endpoint or environ.get(ENDPOINT)
    if told in (None, "", f"ipc://{SYSTEM_SOCKET}") and os.path.lexists(SYSTEM_SOCKET):
        return [
            SocketDir(os.path.join(os.path.dirname(SYSTEM_SOCKET), "gateway")),
            SocketDir(SYSTEM_SOCKETS),
        ]
    if told:
        path = told.removeprefix("ipc://")
        return (
            [] if path == told else [SocketDir(os.path.join(os.path.dirname(path), "gateway"), is_named=True)]
        )
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return [SocketDir(os.path.join(runtime, "mcp-broker", "gateway"))]
    from client_shim.transport.endpoint import private_folder  # rarely needed

    return [SocketDir(os.path.join(private_folder(), "gateway"))]


def file_of(server: str) -> str:
    """Return the name of a server's socket. The general way costs memory, and is rarely needed."""
    is_plain = server.isascii() and server.replace("-", "").replace("_", "").replace(".", "").isalnum()
    if is_plain and server[0].isalnum() and len(server) <= PLAIN_CHARS:
        return f"{server}.sock"
    from broker.config.names import file_name, normal

    return f"{file_name(normal(server))}.sock"


class Relay:
    """The lines between a host and a gateway.

    Args:
        server: the name of the server in `broker.toml`.
        places: where the gateway may have its sockets.
        stdin, stdout: descriptors of the host's pipes.
    """

    def __init__(self, server: str, places: list[SocketDir], stdin: int, stdout: int) -> None:
        self.state = RelayState(f"connect-{os.urandom(8).hex()}")
        self.host_lines = LineSplitter()
        self.to_gateway: deque[bytes] = deque()
        """Lines that the gateway does not have, the first of them perhaps in part."""
        self.to_host = bytearray()
        self._server = server
        self._places = places
        self._said: dict[str, str] = {}
        self._stdin, self._stdout = stdin, stdout
        self._stdout_poll = poll()
        self._stdout_poll.register(stdout, POLLOUT)
        self._socket: socket | None = None
        self._gateway_lines = LineSplitter()
        self._sent = self._waiting = 0
        """Of the first line that waits, how much was sent; and the bytes that wait in all."""
        self._connected_at = self._lost_at = self._next_try = 0.0
        self._delay_s = FIRST_TRY_S

    def connect(self) -> bool:
        """Return whether a gateway took the connection. Nobody but its user, or root, can have made it."""
        for place in self._places:
            made = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK)
            try:
                place.check()
                made.connect(os.path.join(place.path, file_of(self._server)))
            except (OSError, Untrusted) as error:
                made.close()
                if isinstance(error, Untrusted):
                    self._say_once(place.path, str(error))
            else:
                self._socket = made
                self._connected_at = monotonic()
                return True
        return False

    def _say_once(self, path: str, words: str) -> None:
        """Tell the operator of a folder, unless these were the last words on it: it is tried every second."""
        if self._said.get(path) != words:
            self._said[path] = words
            say(words)

    def run(self) -> bool:
        """Relay until the host is gone; return whether the conversation has to be held here instead.

        Raises:
            HostGone: the host has closed a pipe.
        """
        if not self.connect():
            return True
        self._lost_at = monotonic()  # should it be lost before it is a good one
        while True:
            self._turn()
            if self._socket is None and monotonic() >= self._next_try and not self._reconnect():
                waits = self._waiting > 0 or self.host_lines.rest or self.state.is_opening
                if waits and monotonic() - self._lost_at > TAKE_OVER_S:
                    return True

    # --- one turn ----------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait until something can be read or written, and do it."""
        wanted = poll()
        wanted.register(self._stdin, POLLIN if self._waiting < PAUSE_BYTES else 0)
        wanted.register(self._stdout, POLLOUT if self.to_host else 0)
        gateway = self._socket
        if gateway is not None:
            reads = POLLIN if len(self.to_host) < PAUSE_BYTES else 0
            if events := reads | (POLLOUT if self.to_gateway else 0):  # it would tell of a hang-up for ever
                wanted.register(gateway, events)
        patience_ms = None if gateway is not None else max(1.0, (self._next_try - monotonic()) * 1000)
        for fd, seen in wanted.poll(patience_ms):
            if fd == self._stdin:
                self._read_host(seen)
            elif fd == self._stdout:
                self._write_host(seen)
            elif gateway is not None and gateway is self._socket:
                self._serve(gateway, seen)

    def _read_host(self, events: int) -> None:
        if not events & POLLIN:  # it has hung up, and nothing is left to be read
            raise HostGone
        for line in self.host_lines.feed(read_of(self._stdin)):
            if line is None:
                raise TooLong
            self.state.from_host(line)
            self.to_gateway.append(line)
            self._waiting += len(line)
        if self._socket is not None:  # it most likely takes it now: one turn less
            self._serve(self._socket, POLLOUT)

    def _write_host(self, events: int) -> None:
        if events & (POLLERR | POLLNVAL) or not self.to_host:
            raise HostGone
        try:
            with memoryview(self.to_host) as view:
                size = os.write(self._stdout, view[:WRITE_BYTES])
        except OSError:
            raise HostGone from None
        del self.to_host[:size]

    def _write_host_now(self) -> None:
        """Write what the host takes without a wait."""
        while self.to_host and (ready := self._stdout_poll.poll(0)):
            self._write_host(ready[0][1])

    def _serve(self, gateway: socket, events: int) -> None:
        try:
            if events & POLLOUT:
                self._write_gateway(gateway)
            if events & READABLE and len(self.to_host) < PAUSE_BYTES:
                data = gateway.recv(READ_BYTES)
                if not data:
                    raise ConnectionResetError
                self._read_gateway(data)
        except BlockingIOError:
            pass
        except OSError:
            self._lose(gateway)

    def _read_gateway(self, data: bytes) -> None:
        for line in self._gateway_lines.feed(data):
            if line is None:
                raise TooLong
            for passed in self.state.from_gateway(line):
                self.to_host += passed + b"\n"
        self._write_host_now()

    def _write_gateway(self, gateway: socket) -> None:
        while self.to_gateway:
            line = self.to_gateway[0]
            rest = line[self._sent :] + b"\n"
            size = gateway.send(rest)
            if size < len(rest):
                self._sent += size
                return
            self._done()

    def _done(self) -> None:
        """The gateway has the first line that waited."""
        self._waiting -= len(self.to_gateway.popleft())
        self._sent = 0

    # --- the gateway is gone -------------------------------------------------------------------------------

    def _lose(self, gateway: socket) -> None:
        gateway.close()
        self._socket = None
        self._gateway_lines = LineSplitter()
        self._sent = 0
        for line in self.state.lost(LOST, list(self.to_gateway)):
            self.to_host += line + b"\n"
        if monotonic() - self._connected_at > STEADY_S:
            self._lost_at, self._delay_s = monotonic(), FIRST_TRY_S
        self._try_later()

    def _try_later(self) -> None:
        self._next_try = monotonic() + self._delay_s
        self._delay_s = min(2 * self._delay_s, LAST_TRY_S)

    def _reconnect(self) -> bool:
        if not self.connect():
            self._try_later()
            return False
        for line in reversed(self.state.replay(list(self.to_gateway))):
            self.to_gateway.appendleft(line)
            self._waiting += len(line)
        return True


def read_of(fd: int) -> bytes:
    """Return what a pipe of the host has.

    Raises:
        HostGone: its end, or an error.
    """
    try:
        data = os.read(fd, READ_BYTES)
    except OSError:
        raise HostGone from None
    if not data:
        raise HostGone
    return data
