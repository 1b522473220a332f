"""Leases: one channel has a stateful server for itself until it closes or makes no call for `lease_sec`.

A channel gets the lease with the first of its calls that is sent to the server. What the broker answers from
memory needs no lease. The lease ends by `_end`, whatever the reason is; the fair queue of the server says
whose turn it is then.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from broker.base.metrics import Counters
from broker.core.calls.queue import Lease
from broker.core.calls.table import Call
from broker.core.clients.connections import Connections
from broker.core.effects import Effects, Level
from broker.core.servers.server import Server


class LeaseEnd(str, Enum):
    """The reason why a lease ended."""

    CLOSED = "closed"  # its channel was closed, or the connection was lost
    IDLE = "idle"  # its holder made no call for `lease_sec`
    RELEASED = "released"  # the operator ended it
    PROCESS_GONE = "process-gone"  # and with it the state that the lease was for
    RELOAD = "reload"  # the server's table has no `lease_sec` any more


class Leases:
    """The leases of all servers.

    Args:
        servers: each server by its name.
        freed: gives a server its next calls after its lease has ended.
    """

    def __init__(
        self,
        servers: dict[str, Server],
        connections: Connections,
        counters: Counters,
        effects: Effects,
        freed: Callable[[Server, float], None],
    ) -> None:
        self._servers = servers
        self._connections = connections
        self._counters = counters
        self._effects = effects
        self._freed = freed

    def grant(self, server: Server, call: Call, now: float) -> None:
        """Grant the lease of a server to the channel of a call that is sent now, unless a channel has it."""
        queue = server.queue
        if queue.lease is not None:
            return
        connection = self._connections.get(call.connection)
        assert connection is not None
        queue.lease = Lease(call.channel_key, connection.label, call.client_pid, since=now, used_at=now)
        self._counters.add("lease.granted")
        self._effects.log(
            Level.INFO,
            "lease.granted",
            server=server.name,
            **_holder(queue.lease),
            waited_s=round(now - call.since, 3),
        )

    def channel_closed(self, connection: bytes, channel: int | None, now: float) -> None:
        """End the leases of a channel that is closed, or of all channels of a connection."""
        for server in self._servers.values():
            lease = server.queue.lease
            if lease is not None and lease.holder[0] == connection and channel in (None, lease.holder[1]):
                self._end(server, LeaseEnd.CLOSED, now)

    def process_gone(self, server: Server, now: float) -> None:
        """End the lease of a server whose process is gone: the state that its holder had there is gone."""
        self._end(server, LeaseEnd.PROCESS_GONE, now)

    def retune(self, server: Server, now: float) -> None:
        """End the lease of a server whose table has no `lease_sec` any more."""
        if server.queue.lease_s is None:
            self._end(server, LeaseEnd.RELOAD, now)

    def release(self, server: Server, now: float) -> None:
        """End the lease because the operator wants it."""
        self._end(server, LeaseEnd.RELEASED, now)

    def tick(self, server: Server, now: float) -> None:
        """End the lease whose time is over."""
        ends_at = server.queue.lease_ends_at
        if ends_at is not None and ends_at <= now:
            self._end(server, LeaseEnd.IDLE, now)

    def _end(self, server: Server, reason: LeaseEnd, now: float) -> None:
        lease = server.queue.end_lease()
        if lease is None:
            return
        self._counters.add(f"lease.ended.{reason.value}")
        self._effects.log(
            Level.INFO,
            "lease.ended",
            server=server.name,
            **_holder(lease),
            reason=reason.value,
            held_s=round(now - lease.since, 3),
        )
        self._freed(server, now)


def _holder(lease: Lease) -> dict[str, Any]:
    return {"client": lease.client, "pid": lease.pid, "channel": lease.holder[1]}


def shown(server: Server, now: float) -> dict[str, Any] | None:
    """Return what `status` shows of a lease, or `None` if no channel has it.

    `ends_in_s` is the time until its end at the earliest: the holder may call again.
    """
    queue, lease = server.queue, server.queue.lease
    if lease is None:
        return None
    return {
        **_holder(lease),
        "since_s": round(now - lease.since, 3),
        "idle_s": 0.0 if queue.lease_ends_at is None else round(now - lease.used_at, 3),
        "ends_in_s": round(queue.lease_left_s(now), 3),
        "waiting": queue.waiting_for_lease,
    }
