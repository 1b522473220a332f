"""What channels have subscribed to: a row for each channel that listens, and only while it does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, KeysView, Mapping

import msgspec
from msgspec import Struct

from broker.config.names import normal
from broker.core.calls.queue import ChannelKey

MAX_CHANNELS = 16_384
"""The number of channels that may listen at once."""

MAX_CHANNELS_OF_ONE = 4096
"""The same for one connection, so that it cannot keep the others from it."""

MAX_URIS = 16_384
"""The number of subscriptions to resources: one for each channel and uri."""

MAX_URIS_OF_ONE = 1024
"""The same for one connection."""

MAX_URI_BYTES = 2048
"""The longest uri that can be subscribed to."""

MAX_URIS_BYTES = 2 * 1024 * 1024
"""The bytes of all subscribed uris: a server of 2026-07-28 is sent all of them at each change."""

MAX_URIS_BYTES_OF_ONE = 256 * 1024
"""The same for one connection."""

MAX_PARAMS_BYTES = 512 * 1024
"""The largest params of a `listen`: larger ones exceed the other limits, and take long to read."""

MAX_SERVERS_NAMED = 1024
"""The number of servers that one `listen` may name."""

MAX_SERVER_BYTES = 256
"""The longest name of a server: a server that is not configured may be named, and the name is kept."""

_PARTS = frozenset("/?#")


class Subscription(Struct, frozen=True):
    """What one channel subscribes to: the lists of servers (`None`: of all), and resources by server."""

    servers: frozenset[str] | None = frozenset()
    resources: dict[str, frozenset[str]] = {}

    def __bool__(self) -> bool:
        return self.servers is None or bool(self.servers) or bool(self.resources)

    @property
    def named(self) -> frozenset[str]:
        """The servers that it names."""
        return (self.servers or frozenset()) | self.resources.keys()

    def without(self, servers: Collection[str]) -> Subscription:
        """Return it without these servers."""
        if not servers:
            return self
        resources = {name: uris for name, uris in self.resources.items() if name not in servers}
        return Subscription(self.servers and self.servers - frozenset(servers), resources)

    @property
    def uris(self) -> int:
        """The number of subscribed resources."""
        return sum(map(len, self.resources.values()))

    @property
    def uris_bytes(self) -> int:
        """The length of all uris in UTF-8."""
        return sum(len(uri.encode(errors="replace")) for uris in self.resources.values() for uri in uris)


class _ListenParams(Struct, forbid_unknown_fields=True):
    servers: list[str] | None = []
    resources: dict[str, list[str]] = {}


def read_subscription(body: bytes) -> Subscription:
    """Return what the params of `listen` say.

    Raises:
        ValueError: they are not as docs/protocol.md has them; the message says why.
    """
    if len(body) > MAX_PARAMS_BYTES:
        raise ValueError(f"its params may be {MAX_PARAMS_BYTES} bytes, and are {len(body)}")
    seen = msgspec.json.decode(body, type=_ListenParams)
    named = {*(seen.servers or ()), *seen.resources}
    if len(named) > MAX_SERVERS_NAMED or any(len(name.encode()) > MAX_SERVER_BYTES for name in named):
        raise ValueError(f"it may name {MAX_SERVERS_NAMED} servers, each in {MAX_SERVER_BYTES} bytes")
    for uris in seen.resources.values():
        if any(not uri or len(uri.encode(errors="replace")) > MAX_URI_BYTES for uri in uris):
            raise ValueError(f"a uri has 1 to {MAX_URI_BYTES} bytes")
    resources = {normal(server): frozenset(uris) for server, uris in seen.resources.items() if uris}
    return Subscription(None if seen.servers is None else frozenset(map(normal, seen.servers)), resources)


class Limit(Struct, frozen=True):
    """A limit that would be exceeded: its name and its value."""

    name: str
    value: int


class Subscriptions:
    """The table of channels that listen, with an index by server and uri."""

    def __init__(self) -> None:
        self._rows: dict[bytes, dict[int, Subscription]] = {}
        self._subscribers: dict[str, dict[str, dict[ChannelKey, None]]] = {}
        self._lengths: dict[str, dict[int, int]] = {}
        """The number of uris of a server by length: only such parts of a uri are looked up."""
        self._channels = 0
        self._uris = self._uris_bytes = 0

    def __len__(self) -> int:
        return self._channels

    def __repr__(self) -> str:
        servers = len(self._subscribers)
        return f"<Subscriptions channels={self._channels} uris={self._uris} servers={servers}>"

    def of(self, channel_key: ChannelKey) -> Subscription:
        """Return what a channel has subscribed to."""
        return self._rows.get(channel_key[0], {}).get(channel_key[1]) or Subscription()

    def channels(self, connection: bytes) -> list[int]:
        """Return the channels of a connection that listen."""
        return list(self._rows.get(connection, ()))

    def exceeded(self, channel_key: ChannelKey, wants: Subscription) -> Limit | None:
        """Return the limit that this subscription would exceed."""
        before, mine = self.of(channel_key), self._rows.get(channel_key[0], {})
        new = bool(wants) and not before
        if new and len(mine) >= MAX_CHANNELS_OF_ONE:
            return Limit("listening channels of a connection", MAX_CHANNELS_OF_ONE)
        if new and self._channels >= MAX_CHANNELS:
            return Limit("listening channels", MAX_CHANNELS)
        more = wants.uris - before.uris
        if more > 0 and sum(one.uris for one in mine.values()) + more > MAX_URIS_OF_ONE:
            return Limit("subscribed resources of a connection", MAX_URIS_OF_ONE)
        if more > 0 and self._uris + more > MAX_URIS:
            return Limit("subscribed resources", MAX_URIS)
        more = wants.uris_bytes - before.uris_bytes
        if more > 0 and sum(one.uris_bytes for one in mine.values()) + more > MAX_URIS_BYTES_OF_ONE:
            return Limit("bytes of subscribed uris of a connection", MAX_URIS_BYTES_OF_ONE)
        if more > 0 and self._uris_bytes + more > MAX_URIS_BYTES:
            return Limit("bytes of subscribed uris", MAX_URIS_BYTES)
        return None

    @property
    def count(self) -> int:
        """The number of subscribed resources."""
        return self._uris

    def want(self, channel_key: ChannelKey, wants: Subscription) -> set[str]:
        """Replace the subscription of a channel. Return the servers whose subscribed resources have
        changed."""
        changed = self._forget(channel_key)
        if wants:
            self._rows.setdefault(channel_key[0], {})[channel_key[1]] = wants
            self._channels += 1
            self._uris += wants.uris
            self._uris_bytes += wants.uris_bytes
        for server, uris in wants.resources.items():
            for uri in uris:
                self._join(server, uri, channel_key)
        return changed | set(wants.resources)

    def drop(self, connection: bytes, channel: int | None = None) -> set[str]:
        """Remove a channel or a whole connection. Return the same."""
        channels = list(self._rows.get(connection, ())) if channel is None else [channel]
        changed: set[str] = set()
        for number in channels:
            changed |= self._forget((connection, number))
        return changed

    def _forget(self, channel_key: ChannelKey) -> set[str]:
        mine = self._rows.get(channel_key[0], {})
        wants = mine.pop(channel_key[1], None)
        if wants is None:
            return set()
        if not mine:
            del self._rows[channel_key[0]]
        self._channels -= 1
        self._uris -= wants.uris
        self._uris_bytes -= wants.uris_bytes
        for server, uris in wants.resources.items():
            for uri in uris:
                self._leave(server, uri, channel_key)
        return set(wants.resources)

    def _join(self, server: str, uri: str, channel_key: ChannelKey) -> None:
        table = self._subscribers.setdefault(server, {})
        if uri not in table:
            lengths = self._lengths.setdefault(server, {})
            lengths[len(uri)] = lengths.get(len(uri), 0) + 1
        table.setdefault(uri, {})[channel_key] = None

    def _leave(self, server: str, uri: str, channel_key: ChannelKey) -> None:
        table, lengths = self._subscribers[server], self._lengths[server]
        del table[uri][channel_key]
        if not table[uri]:
            del table[uri]
            lengths[len(uri)] -= 1
            if not lengths[len(uri)]:
                del lengths[len(uri)]
        if not table:
            del self._subscribers[server], self._lengths[server]

    def listeners(self, server: str, *, by_name: bool = False) -> Iterator[ChannelKey | None]:
        """Yield the channels that follow the lists of a server; `by_name`: only those that have named it.

        Changes between two steps count. `None` is a pause, so that no step is long.
        """
        for connection in list(self._rows):
            for channel in list(self._rows.get(connection, ())):
                servers = self.of((connection, channel)).servers
                hears = not by_name if servers is None else server in servers
                yield (connection, channel) if hears else None

    def uris(self, server: str) -> KeysView[str]:
        """Return the subscribed resources of a server."""
        return self._subscribers.get(server, {}).keys()

    def has_subscribers(self, server: str) -> bool:
        """Return whether a channel has subscribed to a resource of this server."""
        return server in self._subscribers

    def subscribers(self, server: str, uri: str) -> Iterator[ChannelKey | None]:
        """Yield, in the same way, the channels that have subscribed to a resource or to one that it is a part
        of."""
        heard: set[ChannelKey] = set()
        for length in list(self._lengths.get(server, ())):
            for channel_key in list(self._of(server, uri[:length])) if _is_whole(uri, length) else ():
                if channel_key not in heard and channel_key in self._of(server, uri[:length]):
                    heard.add(channel_key)
                    yield channel_key
            yield None

    def _of(self, server: str, uri: str) -> Mapping[ChannelKey, None]:
        return self._subscribers.get(server, {}).get(uri, {})


def _is_whole(uri: str, length: int) -> bool:
    """Return whether the first characters of a uri name it, or a resource that it is a part of.

    MCP lets a server name a part of what was subscribed to.
    """
    return length == len(uri) or (length < len(uri) and not _PARTS.isdisjoint(uri[length - 1 : length + 1]))
