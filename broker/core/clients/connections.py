"""The connections of clients: credit, and messages that wait for it.

The credit of a connection bounds the bytes that were sent and that the client has not read yet. Beyond it,
messages wait in the outbox. A connection whose outbox exceeds its limit is closed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum

import msgspec
from msgspec import Struct

from broker.base.metrics import Counters
from broker.config.keys import KeyConfig
from client_shim import wire

Body = bytes | memoryview | None

Slot = tuple[object, ...]
"""The key of a waiting message. Its first element is the kind of message."""


class CloseReason(str, Enum):
    """The reason why a connection ended."""

    GOODBYE = "goodbye"
    LOST = "lost"
    CREDIT = "credit"
    OVERDRAWN = "overdrawn"
    UNGREETED = "ungreeted"
    REVOKED = "revoked"
    SHUTDOWN = "shutdown"


class Peer(Struct, frozen=True):
    """Who is at the other end, as the kernel or the key says.

    `uid`, `gid` and `pid` are those of the client's process; -1 where the kernel does not say (tcp, another
    pid namespace). `public` is the client's key (Z85), `key` the name of the key (the key itself if it
    has none any more), and `address` its machine; empty without a key.
    """

    uid: int = -1
    gid: int = -1
    pid: int = -1
    key: str = ""
    public: str = ""
    address: str = ""


class Send(Struct, frozen=True, gc=False):
    """Send a message to a client."""

    connection: bytes
    header: bytes
    body: Body = None


class Connection(Struct, eq=False):
    """One connection of a client.

    `grant` is what the client may do; `None` if it needs no key, and may do everything.

    `unread_bytes` were sent to it and have not been given back as credit. `last_id` is the highest id of the
    requests that the broker has admitted. `partings` counts goodbyes of channels, up to the number of calls.

    `taken_bytes` came from it and have not been given back as credit. `exhausted`: it has used up its credit,
    and gets more when it is known to have sent nothing beyond it. `beyond_bytes` came after that, behind a
    long request.
    """

    key: bytes
    name: str
    peer: Peer
    since: float
    grant: KeyConfig | None = None
    unread_bytes: int = 0
    outbox_bytes: int = 0
    calls: int = 0
    last_id: int = 0
    partings: int = 0
    posted: int = 0
    taken_bytes: int = 0
    exhausted: bool = False
    beyond_bytes: int = 0
    outbox: OrderedDict[Slot, tuple[bytes, Body]] = msgspec.field(default_factory=OrderedDict)

    @property
    def label(self) -> str:
        """What others are told of the client: the name that it gives itself, and the name of its key."""
        return f"{self.name} ({self.peer.key})" if self.peer.key else self.name

    def may_use(self, server: str) -> bool:
        """Return whether the client may use this server."""
        return self.grant is None or self.grant.may_use(server)


class Connections:
    """The table of connections, with credit and outboxes.

    Args:
        credit_bytes: the bytes that may be unread at a connection before messages wait.
        outbox_bytes: the bytes that may wait for a connection.
        counters: counts messages that a newer one has replaced.
    """

    def __init__(self, *, credit_bytes: int, outbox_bytes: int, counters: Counters | None = None) -> None:
        self._counters = Counters() if counters is None else counters
        self._credit_bytes = credit_bytes
        self.step_bytes = credit_bytes // 4
        """After so many bytes from a client the broker gives credit back."""
        self._outbox_bytes = outbox_bytes
        self._by_key: dict[bytes, Connection] = {}
        self.get: Callable[[bytes], Connection | None] = self._by_key.get
        """Returns the connection with this key, if it has said hello and has not ended."""
        self.overflowing: list[Connection] = []
        """Connections whose clients do not read; `finish` of the engine has them closed."""

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def is_waiting(self) -> bool:
        """Whether a message waits until its client has read what it was sent."""
        return any(connection.outbox for connection in self._by_key.values())

    def all(self) -> list[Connection]:
        """Return every connection."""
        return list(self._by_key.values())

    def open(
        self, key: bytes, name: str, peer: Peer, now: float, grant: KeyConfig | None = None
    ) -> Connection:
        """Add a connection whose client has said hello."""
        connection = Connection(key, name, peer, now, grant)
        self._by_key[key] = connection
        return connection

    def close(self, key: bytes) -> Connection | None:
        """Remove a connection that has ended, with its outbox."""
        return self._by_key.pop(key, None)

    def post(
        self,
        connection: Connection,
        message: wire.Message,
        body: Body = None,
        *,
        slot: Slot | None = None,
        instead_of: Slot | None = None,
    ) -> Send | None:
        """Return a message to send now, or put it into the outbox if the credit is used up.

        A message that waits in the same slot is replaced, such as older progress of a call. A message that
        waits in the slot `instead_of` is dropped. A connection whose outbox is too large is added to
        `overflowing`.
        """
        header = wire.encode(message)
        if not connection.outbox and connection.unread_bytes < self._credit_bytes:
            connection.unread_bytes += wire.cost(header, body)
            return Send(connection.key, header, body)
        if instead_of is not None:
            self._discount(connection, connection.outbox.pop(instead_of, None), instead_of)
        self._keep(connection, header, body, slot)
        return None

    def take(self, connection: Connection, size: int) -> Send | None:
        """Count a message from a client. Return the credit to send for it, if it is time for some.

        Credit is given back once a quarter of the window was read, as the client does. A connection that has
        used up the window is `exhausted`, and waits for `refill`.
        """
        connection.taken_bytes += size
        if connection.taken_bytes < self.step_bytes or connection.exhausted:
            return None
        if connection.taken_bytes < self._credit_bytes:
            return self.refill(connection)
        connection.exhausted = True
        return None

    def keep_behind(self, connection: Connection, size: int) -> bool:
        """Count a message that waits until it is taken in; return whether its client keeps to its credit.

        Until then no credit is given back. Beyond the credit only small messages may come, to as much again.
        """
        if connection.exhausted:
            connection.beyond_bytes += size
            return size <= wire.MAX_HEADER_BYTES and connection.beyond_bytes <= self._credit_bytes
        connection.taken_bytes += size
        connection.exhausted = connection.taken_bytes >= self._credit_bytes
        return True

    def refill(self, connection: Connection) -> Send | None:
        """Return the credit for all that was read."""
        taken = connection.taken_bytes + connection.beyond_bytes
        connection.taken_bytes, connection.beyond_bytes, connection.exhausted = 0, 0, False
        return self.post(connection, wire.Credit(0, 0, taken))

    def _discount(self, connection: Connection, replaced: tuple[bytes, Body] | None, slot: Slot) -> None:
        if replaced is not None:
            connection.outbox_bytes -= wire.cost(*replaced)
            self._counters.add(f"replaced.{slot[0]}")

    def _keep(self, connection: Connection, header: bytes, body: Body, slot: Slot | None) -> None:
        connection.posted += 1
        slot = slot or ("message", connection.posted)
        self._discount(connection, connection.outbox.get(slot), slot)
        kept = bytes(body) if isinstance(body, memoryview) else body
        connection.outbox[slot] = (header, kept)
        connection.outbox_bytes += wire.cost(header, kept)
        if connection.outbox_bytes > self._outbox_bytes and len(connection.outbox) > 1:
            self.overflowing.append(connection)

    def credit(self, connection: Connection, read_bytes: int) -> list[Send]:
        """Count the credit that a client gives. Return the messages that may be sent now."""
        connection.unread_bytes = max(0, connection.unread_bytes - read_bytes)
        posts = []
        while connection.outbox and connection.unread_bytes < self._credit_bytes:
            _, (header, body) = connection.outbox.popitem(last=False)
            size = wire.cost(header, body)
            connection.outbox_bytes -= size
            connection.unread_bytes += size
            posts.append(Send(connection.key, header, body))
        return posts
