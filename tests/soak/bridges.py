"""Hosts start bridges and end them, half of them with a call under way: nothing of them stays.

A bridge is `mcp-broker connect`, as an MCP host starts one for each session.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.e2e.harness import RunningBroker, running, script, wait_until
from tests.gateway.bridges import Bridge, channels_of, gateway_of, wait_for_sockets
from tests.gateway.gateways import RunningGateway
from tests.soak.ground import FLAT_MIB, MEMORY_MIB, Line, Progress

AT_ONCE = 4
SERVER = "one"


def run(count: int, progress: Progress) -> list[Line]:
    """`count` bridges through a gateway, in turn: opened, called, and ended in four ways."""
    with running({SERVER: script("tests/servers/sdk2_server.py")}) as broker:
        gateway = gateway_of(broker)
        try:
            wait_for_sockets(broker, SERVER)
            _rounds(broker, AT_ONCE, lambda _: None)
            before = _held(broker, gateway)
            odd = _rounds(broker, count // 2, progress)
            half_mib = _memory_mib(gateway.process.pid)
            odd += _rounds(broker, count - count // 2, lambda done: progress(count // 2 + done))
            wait_until(
                lambda: all(now <= then for now, then in zip(_held(broker, gateway), before, strict=True))
            )
            after = _held(broker, gateway)
            grown = _memory_mib(gateway.process.pid) - half_mib
        finally:
            ended = gateway.stop()
    calls, channels, descriptors = (now - then for now, then in zip(after, before, strict=True))
    return [
        Line("bridges.odd", odd, 0),
        Line("bridges.calls-open", calls, 0),
        Line("bridges.channels", channels, 0),
        Line("bridges.descriptors", descriptors, 0),
        Line("bridges.memory", round(grown, 1), MEMORY_MIB if count < 100 else FLAT_MIB, "MiB"),
        Line("bridges.gateway-status", ended, 0),
    ]


def _held(broker: RunningBroker, gateway: RunningGateway) -> tuple[int, int, int]:
    """What is open for the gateway: calls and channels at the broker, descriptors of its own."""
    open_calls = sum(server["in_flight"] + server["queued"] for server in broker.status()["servers"])
    return open_calls, channels_of(broker, gateway), len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


def _is_at_most(now: tuple[int, ...], then: tuple[int, ...]) -> bool:
    return all(one <= other for one, other in zip(now, then, strict=True))


def _rounds(broker: RunningBroker, count: int, progress: Progress) -> int:
    """So many bridges, a few at a time; how many did not do what they have to."""
    odd = 0
    for first in range(0, count, AT_ONCE):
        bridges = [Bridge(broker, SERVER) for _ in range(min(AT_ONCE, count - first))]
        for number, bridge in enumerate(bridges):
            odd += not _is_served(bridge, leaves_a_call=number % 2 == 1)
        for number, bridge in enumerate(bridges):
            odd += not _ends(bridge, first + number)
        progress(min(first + AT_ONCE, count))
    return odd


def _is_served(bridge: Bridge, *, leaves_a_call: bool) -> bool:
    name = bridge.initialize()["serverInfo"]["name"]
    added = bridge.call("add", {"a": 2, "b": 3})["result"]["structuredContent"]
    if leaves_a_call:
        bridge.start("tools/call", {"name": "slow", "arguments": {"delay_s": 600}})
    return (name, added) == ("sdk2", {"result": 5})


def _ends(bridge: Bridge, number: int) -> bool:
    """End a bridge: most by the end of its input, some by a signal."""
    by_signal = {5: signal.SIGTERM, 6: signal.SIGKILL}.get(number % 8)
    if by_signal is not None:
        bridge.process.send_signal(by_signal)
    bridge.close()
    return bridge.process.returncode == (0 if by_signal is None else -by_signal)


def _memory_mib(pid: int) -> float:
    status = Path("/proc", str(pid), "status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
