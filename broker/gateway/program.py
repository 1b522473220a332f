"""The gateway as a program: opens its doors, waits, and ends in order.

Theory of operation. Both doors are open before a broker answers, since requests wait for one. The end goes
from the outside to the inside: no new connection, no new request; the streams that only listen end, so that
their clients come back to the next gateway; the calls in flight have `drain_sec`; what is left is answered
with an error; then the connections are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import uvloop

from broker.gateway.addresses import Address
from broker.gateway.audit import Audit
from broker.gateway.http.app import HttpDoor
from broker.gateway.http.listener import Listener
from broker.gateway.http.listening import sockets_at
from broker.gateway.http.sse import COMMENT_S
from broker.gateway.http.state import StateFolder, state_dir_of
from broker.gateway.settings import AuditConfig, GatewayLimits, Settings
from broker.gateway.stdio.sockets import Sockets
from broker.service.claims import ClaimError
from broker.service.memory import Memory
from broker.service.systemd import ServiceManager
from client_shim.transport.endpoint import default_endpoint
from client_shim.trusted import Untrusted

logger = logging.getLogger("mcp-broker")

ENDING = "the gateway is being stopped; call again, the next one answers"

_COLLECT_AFTER = 10_000
"""New objects after which the collector runs. At Python's 700 it took a sixth of the time."""

_ANOTHER = "change `path` in [audit] of gateway.toml, such as to a file in its state directory"

_LAST_S = 2.0
"""How long clients may take to read the last words."""


class Gateway:
    """One running gateway.

    Args:
        settings: of `gateway.toml`.
        state: the open state directory.
        plugs: the sockets to speak HTTP at, with their addresses.
        folder: where the sockets of `connect` lie; `None` for none.
        audit: the audit log, where there is one.
    """

    def __init__(
        self,
        settings: Settings,
        state: StateFolder,
        plugs: Mapping[Address, socket.socket],
        folder: Path | None,
        audit: Audit | None = None,
    ) -> None:
        self._audit = audit
        self._settings = settings
        self._plugs = plugs
        self._state = state
        self._folder = folder

    async def run(self, manager: ServiceManager) -> None:
        """Serve until SIGTERM or SIGINT."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)
        limits, endpoint = self._settings.limits, self._settings.gateway.endpoint
        door = HttpDoor(self._settings, self._state, self._audit)
        listener = Listener(door, limits, door.refused)
        sockets = Sockets(self._folder, endpoint, self._audit) if self._folder is not None else None
        keeping = [
            loop.create_task(_ticking(door, listener, manager, limits)),
            loop.create_task(door.sample()),
        ]
        if sockets is not None:
            door.bridges = lambda: sockets.clients
            keeping.append(loop.create_task(sockets.run()))
        for address, plug in self._plugs.items():
            needs_token = self._settings.gateway.token and not address.path
            await listener.open(plug, {"needs_token": needs_token})
            logger.info("gateway.listening", extra={"address": str(address), "pid": os.getpid()})
        manager.ready()
        try:
            await over.wait()
        finally:
            manager.stopping(limits.drain_sec + 2 * _LAST_S)
            logger.info("gateway.ending", extra=dict(door.figures()))
            listener.stop_listening()
            door.end_streams(ENDING)
            await listener.finished(limits.drain_sec)
            if sockets is not None:
                await sockets.aclose(ENDING)
            door.end_calls(ENDING)
            await listener.aclose(_LAST_S)
            await door.aclose()
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            logger.info("gateway.ended", extra={"pid": os.getpid()})


async def _ticking(
    door: HttpDoor, listener: Listener, manager: ServiceManager, limits: GatewayLimits
) -> None:
    """Put away what is over, and every 15 s send comments, cut who takes nothing, and feed the watchdog."""
    loop, memory = asyncio.get_running_loop(), Memory()
    sweep_s, comment_at = min(COMMENT_S, limits.session_idle_sec, limits.replay_sec), loop.time() + COMMENT_S
    while True:
        await asyncio.sleep(sweep_s)
        door.sweep()
        memory.look()
        if loop.time() < comment_at:
            continue
        comment_at = loop.time() + COMMENT_S
        door.comment()
        if manager.watchdog_s is not None:
            manager.alive()
        if cut := listener.cut_stalled(loop.time()):
            logger.warning("gateway.clients_cut", extra={"clients": cut, "reason": "they take nothing"})


def run(
    settings: Settings, environ: Mapping[str, str], manager: ServiceManager, say: Callable[..., str]
) -> None:
    """Run a gateway until it is ended.

    Args:
        say: returns a text of the commands in the language of the reader, by its word and facts.

    Raises:
        ClaimError: it cannot have its state directory, or an address; the message says why.
    """
    _allow_many_descriptors()
    door = settings.gateway
    path = state_dir_of(door.state_dir, environ)
    state = StateFolder.open(path, settings.limits.session_sec, time.time())
    with contextlib.closing(state), contextlib.ExitStack() as held:
        plugs = {address: held.enter_context(plug) for address, plug in sockets_at(door.listen, manager)}
        _tell_token(state, plugs, say if sys.stderr.isatty() else None)
        folder = _sockets_folder(door.sockets, door.endpoint, environ)
        gateway = Gateway(settings, state, plugs, folder, _audit(settings.audit, held))
        loop = uvloop.new_event_loop()
        gc.freeze()  # the collector need not look at what is loaded by now, in the middle of a call
        gc.set_threshold(_COLLECT_AFTER)
        try:
            loop.run_until_complete(gateway.run(manager))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def _audit(config: AuditConfig, held: contextlib.ExitStack) -> Audit | None:
    """Open the audit log where the settings name one; `held` closes it."""
    if config.path is None:
        return None
    try:
        return held.enter_context(contextlib.closing(Audit(config.path, config)))
    except Untrusted as error:
        raise ClaimError(f"the audit log {config.path} cannot be used: {error}; or {_ANOTHER}") from error
    except OSError as error:
        raise ClaimError(
            f"the audit log {config.path} cannot be written: {error.strerror}; make its folder for the user "
            f"of the gateway, or {_ANOTHER}"
        ) from error


def _allow_many_descriptors() -> None:
    """Each client takes a descriptor; the usual limit of 1024 is meant for programs that use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _sockets_folder(named: str | None, endpoint: str | None, environ: Mapping[str, str]) -> Path | None:
    """The folder of the sockets of `connect`: the one that is named, the service's own, or one beside the
    broker's socket."""
    if named is not None:
        return Path(named) if named else None
    if environ.get("RUNTIME_DIRECTORY"):
        return Path(environ["RUNTIME_DIRECTORY"].partition(":")[0], "servers")
    found = endpoint or default_endpoint()
    return Path(found.removeprefix("ipc://")).parent / "gateway" if found.startswith("ipc://") else None


def _tell_token(state: StateFolder, addresses: Iterable[Address], say: Callable[..., str] | None) -> None:
    """Say where the token is; at the first start, and only to a terminal (`say`), say what it is."""
    port = next((address for address in addresses if not address.path), None)
    if port is None or not state.is_new_token:
        return
    if say is None:  # the journal can be read by others
        logger.info("gateway.token_made", extra={"path": state.token_path})
        return
    told = say("gateway_token", path=state.token_path, address=port, token=state.token)
    sys.stderr.write(f"{told}\n\n")
    sys.stderr.flush()
