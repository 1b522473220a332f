"""The effects: what the core wants done. The hub does it; the core touches nothing outside itself."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from msgspec import Struct

from broker.base.secrets import redact
from broker.config.keys import KeyConfig
from broker.core.clients.connections import CloseReason, Send

Fact = str | int | float | bool | None


class Level(IntEnum):
    """The importance of a log line. The numbers are those of `logging`."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Write(Struct, frozen=True, gc=False):
    """Write this line to a server's stdin."""

    server: str
    line: bytes


class Manage(Struct, frozen=True, gc=False):
    """Carry out a management request, then call `clients.managed` with the outcome.

    `key` is the name of the client's key, and `grant` what the client could do when its request came; `None`
    if it needs no key, and may do everything. Its connection may have ended since.
    """

    connection: bytes
    client_id: int
    method: str
    body: bytes
    key: str
    grant: KeyConfig | None


class Opened(Struct, frozen=True, gc=False):
    """Note that the session with a server is open: the handshake is done and the lists are read."""

    server: str


class EndProcess(Struct, frozen=True, gc=False):
    """End the process of a server: its handshake failed, or it hangs."""

    server: str
    reason: str


class Respawn(Struct, frozen=True, gc=False):
    """Start a server again without the era probe, which hung it."""

    server: str
    reason: str


class Demand(Struct, frozen=True, gc=False):
    """Start a broken or idle server now, because a client calls it."""

    server: str


class Idle(Struct, frozen=True, gc=False):
    """End the process of a server that nobody uses, or do not start one; the next call starts another."""

    server: str


class Admit(Struct, frozen=True, gc=False):
    """Go on with the start of a server that has waited for room in the budget."""

    server: str


class Closed(Struct, frozen=True, gc=False):
    """A connection has ended. Nothing may be sent to it any more."""

    connection: bytes
    reason: CloseReason


class Hold(Struct, frozen=True, gc=False):
    """Read the next messages of this connection later, at `until`: too many of its messages were refused."""

    connection: bytes
    until: float


class CreditExhausted(Struct, frozen=True, gc=False):
    """This connection has used up its credit: call `flow.refill` when nothing of it is left to be read."""

    connection: bytes


class LogOutput(Struct, frozen=True, gc=False):
    """Add this text to the log of a server's stderr: it is for people, not for a client."""

    server: str
    text: bytes


class Log(Struct, frozen=True):
    """Write a log line: an event and its facts, never a body."""

    level: Level
    event: str
    facts: dict[str, Fact]


Effect = (
    Send
    | Write
    | Manage
    | Opened
    | EndProcess
    | Respawn
    | Demand
    | Idle
    | Admit
    | Closed
    | Hold
    | CreditExhausted
    | LogOutput
    | Log
)


def log(level: Level, event: str, **facts: Fact) -> Log:
    """Return a `Log` with its facts as keywords."""
    return Log(level, event, facts)


class Effects(list[Effect]):
    """The effects of one step of the core, in order.

    Args:
        least: the lowest level that is logged.
        mask: removes secrets from the broker's own words to clients.
    """

    def __init__(self, least: int = Level.DEBUG, mask: Callable[[str], str] = redact) -> None:
        super().__init__()
        self._least = least
        self.mask = mask

    def is_logged(self, level: Level) -> bool:
        """Return whether lines of this level are logged. Ask before gathering facts at every call."""
        return level >= self._least

    def log(self, level: Level, event: str, **facts: Fact) -> None:
        """Add a log line, if its level is logged."""
        if level >= self._least:
            self.append(Log(level, event, facts))
