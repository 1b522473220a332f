"""Events of a `ClientState`: small frozen values that the shell acts upon."""

from __future__ import annotations

from typing import NamedTuple

from client_shim import errors


class Welcomed(NamedTuple):
    """The broker has answered the hello: requests may be sent."""

    instance: str
    broker_version: str


class Progressed(NamedTuple):
    """Call `id` has made progress. The body is the params of the notification."""

    id: int
    body: bytes


class Logged(NamedTuple):
    """The server has logged a message about call `id`. The body is the params of the notification."""

    id: int
    body: bytes


class Notified(NamedTuple):
    """A notification that is not about a call, for one channel, or for all of them: 0."""

    channel: int
    service: str
    method: str
    body: bytes


class Questioned(NamedTuple):
    """A server asks a question while it works on call `request_id`.

    The shell must answer it by `ClientState.answer` or `refuse`. A question ends with its call.
    """

    channel: int
    id: int
    request_id: int
    service: str
    method: str
    body: bytes


class Withdrawn(NamedTuple):
    """The broker no longer wants an answer to question `id`, which was about call `request_id`."""

    id: int
    request_id: int
    reason: str | None


class Ended(NamedTuple):
    """Call `id` has ended, with the bytes of its result or with an error."""

    id: int
    outcome: bytes | errors.BrokerError


class Lost(NamedTuple):
    """The connection has ended. The `Ended` of each of its calls came before this.

    `announced` is true if the broker said that it shuts down: the next one is likely to come soon.
    """

    error: errors.Unavailable
    announced: bool = False


class Dropped(NamedTuple):
    """A message of the broker was dropped. `why` names a counter; `what` describes the message."""

    why: str
    what: str


Event = Welcomed | Progressed | Logged | Notified | Questioned | Withdrawn | Ended | Lost | Dropped
