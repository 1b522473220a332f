"""Talks to systemd: readiness, status, watchdog, socket activation.

The protocol is datagrams of `NAME=value` lines and a few variables (sd_notify(3), sd_watchdog_enabled(3),
sd_listen_fds(3)). The existing bindings need libsystemd or are not maintained.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence

from broker.base.text import clip
from broker.core.servers.lifecycle import State
from broker.core.servers.server import Server

FIRST_FD = 3
"""The first descriptor that systemd passes (SD_LISTEN_FDS_START)."""

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_NAMED = 5
_REASON_CHARS = 160

logger = logging.getLogger("mcp-broker")


class ServiceManager:
    """The service manager. Without one, messages to it are dropped.

    Args:
        address: the address of its socket, `@…` for an abstract one.
        watchdog_s: the seconds without a sign of life after which it restarts the broker.
        sockets: the descriptors that listen already, by endpoint.
        in_a_line: puts the lines of a status into one line, in the language of who reads it.
    """

    def __init__(
        self,
        address: str | None = None,
        watchdog_s: float | None = None,
        sockets: Mapping[str, int] | None = None,
        in_a_line: Callable[[Iterable[str]], str] = "; ".join,
    ) -> None:
        self.watchdog_s = watchdog_s
        self.sockets = dict(sockets or {})
        self._address = address
        self._in_a_line = in_a_line
        self._status = ""

    @classmethod
    def of(
        cls,
        environ: MutableMapping[str, str],
        pid: int | None = None,
        in_a_line: Callable[[Iterable[str]], str] = "; ".join,
    ) -> ServiceManager:
        """Read the manager's variables, and remove them from the environment: they are not for the servers.

        Args:
            environ: the variables of this process.
            pid: the pid that they must be meant for; this process by default.
            in_a_line: as of the class.
        """
        told = {name: environ.pop(name, "") for name in _VARIABLES}
        pid = os.getpid() if pid is None else pid
        watched = told["WATCHDOG_PID"] in ("", str(pid)) and told["WATCHDOG_USEC"].isdecimal()
        count = told["LISTEN_FDS"] if told["LISTEN_PID"] == str(pid) else ""
        return cls(
            told["NOTIFY_SOCKET"] or None,
            int(told["WATCHDOG_USEC"]) / 1e6 if watched else None,
            dict(_listeners(range(FIRST_FD, FIRST_FD + int(count)) if count.isdecimal() else ())),
            in_a_line,
        )

    # -- what it is told --------------------------------------------------------------------------

    def ready(self) -> None:
        """Tell that clients are served, or that a reload is over."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Tell that a reload begins; `ready` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, within_s: float) -> None:
        """Tell that the broker ends within this time, whatever the unit allows."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    def status(self, *texts: str) -> None:
        """Set the line that `systemctl status` shows."""
        lines = (" ".join(line.split()) for text in texts for line in text.splitlines())
        text = self._in_a_line(filter(None, lines))  # a further line would be a further message
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    async def feed(self, *pulses: Callable[[], Awaitable[None]]) -> None:
        """Feed the watchdog twice in its interval, as long as each of `pulses` returns."""
        if self.watchdog_s is None:
            return
        import trio  # the gateway, which runs on asyncio, tells the manager things too

        while True:
            for pulse in pulses:
                await pulse()
            self.alive()
            await trio.sleep(self.watchdog_s / 2)

    def alive(self) -> None:
        """Give a sign of life, for the watchdog."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as plug:
                plug.sendto("\n".join(lines).encode(errors="replace"), address)
        except OSError as error:  # it does not read, or is gone; the broker does not wait for it
            logger.warning("manager.not_told", extra={"what": lines[0], "reason": error.strerror})


def _listeners(fds: Iterable[int]) -> Iterator[tuple[str, int]]:
    """Yield the endpoint of each descriptor. A socket of another kind gets a name that no endpoint has."""
    for fd in fds:
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        with socket.socket(fileno=os.dup(fd)) as plug:
            name = plug.getsockname() if plug.family == socket.AF_UNIX else None
            listens = plug.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        plain = isinstance(name, str) and name.startswith("/") and listens
        yield f"ipc://{name}" if plain else f"descriptor {fd}", fd


def status_lines(
    servers: Iterable[Server], problems: Sequence[str] = (), waiting: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the state: how many servers are ready, and the problems of the others and the config.

    Args:
        servers: all configured servers.
        problems: the mistakes in the config file that the last reload refused.
        waiting: the keys that have no effect before a restart.
    """
    wanted = [server for server in servers if server.config.enabled]
    idle = sum(server.lifecycle.state is State.IDLE for server in wanted)
    others = [server for server in wanted if server.lifecycle.state not in (State.READY, State.IDLE)]
    yield f"{len(wanted) - len(others) - idle} of {len(wanted)} servers ready"
    if idle:
        yield f"{idle} idle"
    yield from map(_in_words, others[:_NAMED])
    if len(others) > _NAMED:
        yield f"and {len(others) - _NAMED} more"
    if problems:
        further = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        yield f"config not reloaded: {clip(problems[0], _REASON_CHARS)}{further}"
    if waiting:
        yield f"without effect until a restart: {clip(', '.join(waiting), _REASON_CHARS)}"


def _in_words(server: Server) -> str:
    why = f" ({clip(server.last_error, _REASON_CHARS)})" if server.last_error else ""
    return f"{server.name}: {server.shown_state}{why}"
