"""The `[limits]` table: limits of the broker, whatever clients and servers do."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from broker.config.fields import SECONDS, SIZE, WHOLE, Bytes, Count, Seconds, about


class LimitsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[limits]` table: limits of the broker, whatever clients and servers do."""

    max_message_bytes: Annotated[
        Bytes,
        about("The largest request, result, or line of a server.", SIZE),
    ] = 33_554_432
    credit_bytes: Annotated[
        Bytes,
        about(
            "Bytes on the way on one connection, in each direction, before the other end has read some of "
            "them.",
            SIZE,
        ),
    ] = 8_388_608
    outbox_bytes: Annotated[
        Bytes,
        about(
            "Bytes that may wait for one connection beyond its credit; above it the connection is closed.",
            SIZE,
        ),
    ] = 67_108_864
    calls_per_channel: Annotated[Count, about("Calls of one client object that may wait or run.", WHOLE)] = (
        1024
    )
    calls_per_connection: Annotated[Count, about("Calls of one connection that may wait or run.", WHOLE)] = (
        4096
    )
    calls: Annotated[Count, about("Calls of all clients together that may wait or run.", WHOLE)] = 16384
    queue_bytes: Annotated[
        Bytes,
        about("Bytes of the params of all calls that wait or may be retried.", SIZE),
    ] = 134_217_728
    connections: Annotated[Count, about("Connections at the same time.", WHOLE)] = 4096
    starts_at_once: Annotated[
        Count, about("Servers that start at the same time; those that a call waits for come first.", WHOLE)
    ] = 4
    drain_sec: Annotated[
        Seconds, about("Seconds that calls in flight have to end when the broker is stopped.", SECONDS)
    ] = 5.0
