"""Two hosts with a bad cable between them: network namespaces, and a thread that passes their frames on.

The thread loses and delays frames, and stops passing them when the cable is cut. (`tc netem` would do the
same, but is a module that many kernels lack.) It needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces need root and iproute2 (apt-get install iproute2)",
)

BROKER, CLIENT, CLIENT_LATER = "10.211.56.1", "10.211.56.2", "10.211.56.3"
_PATIENCE_S = 30
_ALL_FRAMES = 0x0003  # ETH_P_ALL
_SIOCETHTOOL = 0x8946
_SEND_CHECKSUMS, _GATHER, _SEGMENT = 0x17, 0x19, 0x1F  # ETHTOOL_STXCSUM, _SSG, _STSO
_CLONE_NEWNET = 0x40000000


class Cable:
    """What is between the two hosts. Its attributes may be changed while it is in use.

    Attributes:
        loss: the share of frames that is lost.
        delay_s: how long a frame takes.
        is_cut: whether it passes nothing on.
    """

    def __init__(self, ends: tuple[socket.socket, socket.socket]) -> None:
        self.loss, self.delay_s, self.is_cut = 0.0, 0.0, False
        self.lost = 0
        self._ends = ends
        self._random = random.Random(7)
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._is_over = True
        self._thread.join()
        for end in self._ends:
            end.close()

    def _run(self) -> None:
        while not self._is_over:
            rest = self._waiting[0][0] - time.monotonic() if self._waiting else 0.05
            readable, _, _ = select.select(self._ends, [], [], max(0.0, min(rest, 0.05)))
            for end in readable:
                self._take(self._ends.index(end))
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(self._waiting)
                with suppress(OSError):  # the host is gone
                    self._ends[to].send(frame)

    def _take(self, at: int) -> None:
        with suppress(OSError):
            frame, about = self._ends[at].recvfrom(65536)
            if about[2] == socket.PACKET_OUTGOING:
                return
            if self.is_cut or self._random.random() < self.loss:
                self.lost += 1
                return
            self._count += 1
            heapq.heappush(self._waiting, (time.monotonic() + self.delay_s, self._count, 1 - at, frame))


class Hosts:
    """The two hosts, by the names of their namespaces, and the cable."""

    def __init__(self, broker: str, client: str, cable: Cable) -> None:
        self.broker, self.client, self.cable = broker, client, cable

    def move(self, old: str, new: str) -> None:
        """The client's host gets another address, and loses the one that it had."""
        ip("-n", self.client, "address", "delete", f"{old}/24", "dev", "port")
        ip("-n", self.client, "address", "add", f"{new}/24", "dev", "port")


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=_PATIENCE_S)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a namespace: sockets and threads that are made here belong to it, and stay there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Two hosts and a good cable. No namespace stays behind, whatever happens."""
    names = [f"mb-{os.getpid()}-{word}" for word in ("broker", "client", "cable")]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        ends = [
            _plug(name, names[2], address) for name, address in zip(names, (BROKER, CLIENT), strict=False)
        ]
        cable = Cable((ends[0], ends[1]))
        try:
            yield Hosts(names[0], names[1], cable)
        finally:
            cable.close()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _plug(host: str, middle: str, address: str) -> socket.socket:
    """Give a host its address, and return the other end of its wire."""
    end = f"to-{host.rpartition('-')[2]}"
    ip("-n", host, "link", "add", "port", "type", "veth", "peer", end, "netns", middle)
    ip("-n", host, "address", "add", f"{address}/24", "dev", "port")
    for name in ("lo", "port"):
        ip("-n", host, "link", "set", name, "up")
    ip("-n", middle, "link", "set", end, "up")
    with inside(host):
        for command in (_SEND_CHECKSUMS, _GATHER, _SEGMENT):
            _turn_off("port", command)
    with inside(middle):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_FRAMES))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        made.bind((end, 0))
        return made


def _turn_off(device: str, command: int) -> None:
    """Have the kernel do the work of a card: the frames here never reach one."""
    value = ctypes.create_string_buffer(struct.pack("II", command, 0), 8)
    request = struct.pack("16sP", device.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def namespaces() -> list[str]:
    """The namespaces of this process's tests that exist."""
    with suppress(OSError):
        return [one.name for one in Path("/run/netns").iterdir() if one.name.startswith(f"mb-{os.getpid()}-")]
    return []
