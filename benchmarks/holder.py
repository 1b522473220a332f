"""Holds so many connections to a broker, each of which has asked it something.

python holder.py ENDPOINT COUNT
"""

from __future__ import annotations

import os
import resource
import sys
import time

import zmq

from client_shim import wire

_LEASE = (
    (zmq.LINGER, 0),
    (zmq.HEARTBEAT_IVL, 1000),
    (zmq.HEARTBEAT_TIMEOUT, 10_000),
    (zmq.HEARTBEAT_TTL, 10_000),
)


def main(endpoint: str, count: int) -> None:
    """Connect, make a request, report it, and wait for the end."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, count + 8)
    held = [_connected(context, endpoint) for _ in range(count)]
    for socket in held:
        welcome = wire.decode(socket.recv_multipart()[0])
        assert isinstance(welcome, wire.Welcome)
        request = wire.Request(1, 1, welcome.instance, "time", "tools/list", None, 0, None)
        socket.send(wire.encode(request))
    for socket in held:
        socket.recv_multipart()
    print("ready", flush=True)
    time.sleep(600)


def _connected(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    for option, value in _LEASE:
        socket.setsockopt(option, value)
    socket.connect(endpoint)
    who = {"name": "held", "version": "1", "pid": os.getpid()}
    socket.send(wire.encode(wire.Hello(0, 0, [wire.VERSION], who)))
    return socket


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
