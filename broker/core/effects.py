"""What the core wants done. The hub does it; the core itself touches nothing."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from msgspec import Struct

from broker.base.secrets import redact
from broker.core.clients.connections import CloseReason, Send

Fact = str | int | float | bool | None


class Level(IntEnum):
    """How much a log line matters; the numbers are `logging`'s."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Write(Struct, frozen=True, gc=False):
    """Write this line to a server's stdin."""

    server: str
    line: bytes


class Manage(Struct, frozen=True, gc=False):
    """Carry out a management request, then `clients.managed` with the outcome."""

    connection: bytes
    client_id: int
    method: str
    body: bytes


class Opened(Struct, frozen=True, gc=False):
    """A server's handshake is done and its lists are read."""

    server: str


class EndProcess(Struct, frozen=True, gc=False):
    """A server's handshake failed; its process is to be ended."""

    server: str
    reason: str


class Respawn(Struct, frozen=True, gc=False):
    """The era probe hung a server: it is to be started again without one."""

    server: str
    reason: str


class Demand(Struct, frozen=True, gc=False):
    """A broken server is called: have it tried now."""

    server: str


class Closed(Struct, frozen=True, gc=False):
    """A connection ended; nothing may be sent to it any more."""

    connection: bytes
    reason: CloseReason


class Hold(Struct, frozen=True, gc=False):
    """What this connection says next can wait until then: what it says leads to nothing, time and again."""

    connection: bytes
    until: float


class CreditExhausted(Struct, frozen=True, gc=False):
    """This connection has used up its credit: call `clients.refill` once nothing of it is left to be read."""

    connection: bytes


class LogOutput(Struct, frozen=True, gc=False):
    """Keep this text among what the server wrote to stderr: it is for people, not for a client."""

    server: str
    text: bytes


class Log(Struct, frozen=True):
    """Write a line to the log: an event and its facts, never a body."""

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
    | Closed
    | Hold
    | CreditExhausted
    | LogOutput
    | Log
)


def log(level: Level, event: str, **facts: Fact) -> Log:
    """A `Log` with its facts as keywords."""
    return Log(level, event, facts)


class Effects(list[Effect]):
    """What one step of the core wants done, in order.

    Args:
        least: what matters less than this is not logged, and need not be said.
        mask: takes the secrets out of what clients are told in the broker's own words.
    """

    def __init__(self, least: int = Level.DEBUG, mask: Callable[[str], str] = redact) -> None:
        super().__init__()
        self._least = least
        self.mask = mask

    def is_logged(self, level: Level) -> bool:
        """Whether a line of this level is wanted: to be asked before facts are gathered at every call."""
        return level >= self._least

    def log(self, level: Level, event: str, **facts: Fact) -> None:
        """Want a line in the log."""
        if level >= self._least:
            self.append(Log(level, event, facts))
