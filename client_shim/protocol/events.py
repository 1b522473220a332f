"""What a `ClientState` has to say: small frozen values that the shell acts upon."""

from __future__ import annotations

from typing import NamedTuple

from client_shim import errors


class Welcomed(NamedTuple):
    """The broker has answered the hello; requests may be made."""

    instance: str
    broker_version: str


class Progressed(NamedTuple):
    """Call `id` has made progress; the body is the params of the notification."""

    id: int
    body: bytes


class Logged(NamedTuple):
    """The server has a log message for call `id`; the body is the params of the notification."""

    id: int
    body: bytes


class Notified(NamedTuple):
    """A notification about no call, for one channel (or all of them: 0)."""

    channel: int
    service: str
    method: str
    body: bytes


class Questioned(NamedTuple):
    """A server asks something while it works on call `request_id`. It must be answered."""

    channel: int
    id: int
    request_id: int
    service: str
    method: str
    body: bytes


class Ended(NamedTuple):
    """Call `id` is over: with the bytes of its result, or with why there is none."""

    id: int
    outcome: bytes | errors.BrokerError


class Lost(NamedTuple):
    """The connection is over. The `Ended` of every call that was under way came before this.

    `announced` is true where the broker said that it ends: the next one is likely to come soon.
    """

    error: errors.Unavailable
    announced: bool = False


class Dropped(NamedTuple):
    """Something of the broker's was thrown away. `why` is the name of a counter, `what` tells people."""

    why: str
    what: str


Event = Welcomed | Progressed | Logged | Notified | Questioned | Ended | Lost | Dropped
