"""The table of open calls: ids, progress tokens and deadlines.

Every call gets an id of the broker's own, which is never used again. It is the JSON-RPC id and the progress
token towards the server, so ids that clients choose never meet.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from broker.config.limits import LimitsConfig
from broker.core.calls.retry import NoRetry

MAX_EXTENDED_S = 86_400.0
"""A call ends so many seconds after it began, whatever progress is made: MCP asks for such a limit."""


class Call(Struct, eq=False):
    """One open request of a client.

    `id` is the broker's, `client_id` the client's. `name` is the tool or prompt, `token` the client's
    progress token. `client_pid` is the pid of the client, as the kernel says. `answers`: the request
    continues a call in which the server asked back. `unclear`: long params have a key twice.

    `no_retry` is set when the call is sent: the reason why it must not be sent a second time. `deaths` counts
    the deaths of the server during the call; `death` describes the last one. `orphaned`: the process is gone,
    and the call has not been ended or sent again yet. `abandoned`: its channel is closed, and the call has
    not been ended yet. `from_memory`: the broker answers it itself.

    `wants_log`: the client asked for log messages. `takes`: the methods of the questions that the client
    answers. Until `paused_until` its time stands still, because a question is open.
    """

    id: int
    channel_key: tuple[bytes, int]
    connection: bytes
    channel: int
    client_id: int
    server: str
    method: str
    name: str | None
    body: bytes
    meta: dict[str, Any] | None
    wants_progress: bool
    extends: bool
    token: int | str
    timeout_s: float
    deadline: float
    since: float
    sent: bool = False
    sent_at: float = 0.0
    client_pid: int = -1
    logged: int = 0
    answers: bool = False
    no_retry: NoRetry | None = None
    deaths: int = 0
    death: str = ""
    orphaned: bool = False
    wants_log: bool = False
    takes: frozenset[str] = frozenset()
    paused_until: float = -math.inf
    unclear: bool = False
    abandoned: bool = False
    from_memory: bool = False

    @property
    def given_s(self) -> float:
        """The seconds that the call was given in the end: its timeout, or the most that progress can make of
        it."""
        extended = self.extends and self.deadline >= self.since + MAX_EXTENDED_S
        return max(self.timeout_s, MAX_EXTENDED_S) if extended else self.timeout_s

    @property
    def begun(self) -> bool:
        """Whether a server has it or had it, so that it may have been carried out."""
        return self.sent or self.deaths > 0


class CallTable:
    """The table of open calls. A call enters it once, by `add`, and leaves it once, by `end`."""

    def __init__(self) -> None:
        self._last_id = 0
        self._calls: dict[int, Call] = {}
        self._by_client: dict[bytes, dict[int, Call]] = {}
        self._per_channel: dict[tuple[bytes, int], int] = {}
        self._deadlines: list[tuple[float, int]] = []
        self.body_bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        return f"<CallTable calls={len(self._calls)} clients={len(self._by_client)}>"

    def new_id(self) -> int:
        """Return an id that was never used before, for a call or for a request of the broker's own."""
        self._last_id += 1
        return self._last_id

    def add(self, call: Call) -> None:
        """Add a call. Its client id must not be open on that connection."""
        self._calls[call.id] = call
        self._by_client.setdefault(call.connection, {})[call.client_id] = call
        self._per_channel[call.channel_key] = self._per_channel.get(call.channel_key, 0) + 1
        self.body_bytes += len(call.body)
        self._watch(call)

    def mark_sent(self, call: Call, now: float) -> None:
        """Note that the call is written to its server. Its params are kept only if it may be sent again."""
        call.sent, call.sent_at = True, now
        if call.no_retry is not None:
            self.body_bytes -= len(call.body)
            call.body = b""
            call.meta = None

    def mark_lost(self, call: Call) -> None:
        """Give a call a new id, because its server has died and the call is sent again."""
        del self._calls[call.id]
        call.id = self.new_id()
        call.sent = call.orphaned = False
        self._calls[call.id] = call
        self._watch(call)

    def end(self, call: Call) -> None:
        """Remove a call, whatever its ending was."""
        del self._calls[call.id]
        self.body_bytes -= len(call.body)
        mine = self._by_client[call.connection]
        del mine[call.client_id]
        if not mine:
            del self._by_client[call.connection]
        left = self._per_channel[call.channel_key] - 1
        if left:
            self._per_channel[call.channel_key] = left
        else:
            del self._per_channel[call.channel_key]

    def by_id(self, id: object) -> Call | None:
        """Return the open call that a reply or progress of a server names, if there is one."""
        return self._calls.get(id) if type(id) is int else None

    def by_client(self, connection: bytes, client_id: int) -> Call | None:
        """Return the open call that a client knows by `client_id`."""
        return self._by_client.get(connection, {}).get(client_id)

    def of_client(self, connection: bytes, channel: int | None = None) -> list[Call]:
        """Return the open calls of a connection, or of one of its channels."""
        calls = self._by_client.get(connection, {}).values()
        return [call for call in calls if channel is None or call.channel == channel]

    def of_server(self, server: str) -> list[Call]:
        """Return the open calls of a server, sent or waiting."""
        return [call for call in self._calls.values() if call.server == server]

    def busy_until(self, server: str, before: float, now: float) -> float | None:
        """Return the latest deadline of the calls that a server got by `before` and still has, if any."""
        deadlines = [
            call.deadline
            for call in self.of_server(server)
            if call.sent and call.sent_at <= before and call.deadline > now
        ]
        return max(deadlines, default=None)

    def exceeded(self, limits: LimitsConfig, channel_key: tuple[bytes, int], size: int) -> str | None:
        """Return the name of the limit that a further call with params of this size would exceed."""
        if self._per_channel.get(channel_key, 0) >= limits.calls_per_channel:
            return "calls_per_channel"
        if len(self._by_client.get(channel_key[0], ())) >= limits.calls_per_connection:
            return "calls_per_connection"
        if len(self._calls) >= limits.calls:
            return "calls"
        return "queue_bytes" if self.body_bytes + size > limits.queue_bytes else None

    def extend(self, call: Call, now: float) -> None:
        """Begin the time of a call anew, up to a limit, because progress was made."""
        start = max(now, call.paused_until)
        call.deadline = max(call.deadline, min(start + call.timeout_s, call.since + MAX_EXTENDED_S))
        self._watch(call)

    def pause(self, call: Call, until: float, now: float) -> None:
        """Let the time of a call stand still until then; `until` in the past lets it go on.

        The deadline moves at once by the length of the pause, and back if the pause ends early.
        """
        before = max(call.paused_until, now)
        longest = max(0.0, call.since + MAX_EXTENDED_S - call.deadline)
        call.paused_until = min(max(until, now), before + longest)
        call.deadline += call.paused_until - before
        self._watch(call)

    def _watch(self, call: Call) -> None:
        heapq.heappush(self._deadlines, (call.deadline, call.id))
        if len(self._deadlines) > 64 + 2 * len(self._calls):
            self._deadlines = [(open.deadline, open.id) for open in self._calls.values()]
            heapq.heapify(self._deadlines)

    def next_deadline(self) -> float | None:
        """Return the time when the next open call runs out of time."""
        while self._deadlines:
            deadline, id = self._deadlines[0]
            call = self._calls.get(id)
            if call is not None and call.deadline == deadline:
                return deadline
            heapq.heappop(self._deadlines)
        return None

    def expired(self, now: float) -> Iterator[Call]:
        """Yield the open calls whose time is up. The caller ends each before it asks for the next."""
        while True:
            deadline = self.next_deadline()
            if deadline is None or deadline > now:
                return
            yield self._calls[self._deadlines[0][1]]
