"""The broker daemon: what it is made of, how it starts, and in which order it ends.

    claim endpoint and state directory ─► end leftovers ─► listen ─► start the servers ─► serve
    ─► SIGTERM or SIGINT ─► no new calls ─► a bounded wait for those in flight ─► goodbye ─► end the servers

One nursery holds everything: the endpoint, the clock of the hub, and a supervisor for each server. What
clients and servers say goes through the hub to the engine, which decides; see there.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from broker import __version__
from broker.config.schema import BrokerConfig, Config
from broker.core.engine import Engine
from broker.frontend.address import Address, address_of, claim, set_permissions
from broker.frontend.socket_file import SocketFile
from broker.frontend.zmq.router import Endpoint
from broker.hub import Hub
from broker.management.commands import manage
from broker.management.context import Context
from broker.management.reload import Reloader, tell_faults
from broker.processes import containers
from broker.processes.cgroup import Delegation, delegation
from broker.processes.environment import hide_from_servers
from broker.processes.leftovers import end_leftovers
from broker.processes.process import Launcher, check_descriptor_limit, raise_descriptor_limit
from broker.processes.records import hold_records, state_dir_of
from broker.service.credentials import with_credentials
from broker.service.logging import mask_by
from broker.service.memory import Memory
from broker.service.signals import HANDLED, Signals
from broker.service.systemd import ServiceManager, summary
from broker.upstream.supervisor import lifecycle_of
from broker.upstream.supervisors import Supervisors

if TYPE_CHECKING:
    from broker.management.metrics_http import MetricsServer

_LAST_STEPS_S = 10.0
"""What the end takes beside its waits for calls and servers: the kill of what does not go."""

_LOOK_S = 2.0
"""How often it is looked whether the files are there by which others find the broker and its servers."""

logger = logging.getLogger("mcp-broker")


def run(config: Config, path: Path, endpoint: str | None, manager: ServiceManager) -> None:
    """Run a broker until SIGTERM or SIGINT, or until its terminal closes. Another SIGHUP reloads the config.

    Args:
        config: what `path` says.
        path: the config file; relative paths of servers start at its folder.
        endpoint: where to listen instead of where the config says.
        manager: who started it.

    Raises:
        ConfigError: the endpoint of the command line, or of the variable, is none; or there are too few
            descriptors for so many servers.
        ClaimError: the endpoint or the state directory cannot be had.
    """
    faulthandler.enable()  # where a broker was stuck that the watchdog ends by SIGABRT is then in the log
    if not hide_from_servers(os.environ):
        logger.warning("broker.not_hidden", extra={"pid": os.getpid()})
    meaning = Signals()
    for number in HANDLED:  # before and after `serve`, which has its own way with them
        signal.signal(number, lambda number, _: sys.exit(0) if meaning.ends(number) else None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as a parent may have it, no exit status is kept
    soft_limit = raise_descriptor_limit()
    check_descriptor_limit(sum(server.runs for server in config.servers.values()))
    address = address_of(endpoint, config.broker, os.environ, manager.sockets)
    folder = path.resolve().parent
    state_dir = state_dir_of(config.broker, address.endpoint, os.environ, folder)
    with claim(address), hold_records(state_dir) as records:
        delegation = _delegation()
        launcher = Launcher(folder, with_credentials(os.environ), records, delegation, soft_limit)
        servers = config.servers
        end_leftovers(records, delegation, lambda one: launcher.removal_of(one, servers.get(one.server)))
        gc.freeze()  # the collector need not look at what is loaded by now, in the middle of a call
        trio.run(serve, config, path.absolute(), address, launcher, manager, meaning)


def _delegation() -> Delegation | None:
    """Where the servers' cgroups are made; without, their processes are found one by one."""
    try:
        found = delegation()
    except OSError as error:
        logger.warning("broker.no_cgroups", extra={"reason": str(error)})
        return None
    if found is not None:
        logger.info("broker.cgroups", extra={"path": str(found.path)})
    return found


async def serve(
    config: Config,
    path: Path,
    address: Address,
    launcher: Launcher,
    manager: ServiceManager,
    meaning: Signals,
) -> None:
    """Put the broker together and run it. The place is claimed, and no earlier broker's process left."""
    lifecycles = {name: lifecycle_of(server) for name, server in config.servers.items()}
    instance, least = secrets.token_hex(8), logger.getEffectiveLevel()
    engine = Engine(config, lifecycles, instance=instance, version=__version__, least=least)
    hub = Hub(engine, trio.lowlevel.current_clock().current_time)
    mask_by(engine.mask)
    file = SocketFile(address) if address.is_file else None

    with (
        trio.open_signal_receiver(*HANDLED) as signals,
        _listening(address, config, hub, file) as transport,
        _scraped(config.broker) as metrics,
    ):
        async with trio.open_nursery() as nursery:
            supervisors = Supervisors(hub, launcher, nursery)
            reloader = Reloader(hub, supervisors, path, partial(set_permissions, address), manager)
            hub.on_move = lambda: manager.status(
                summary(engine.servers.values(), reloader.problems, reloader.waiting)
            )
            shown = os.fsencode(path).decode(errors="replace")  # a path is bytes, an answer is text
            looks = (
                [partial(file.look, partial(_listen_again, transport, address, file, hub))] if file else []
            )
            context = Context(hub, supervisors, reloader, address.endpoint, shown, trio.current_time())
            hub.attach(transport, lambda request: nursery.start_soon(manage, context, request))
            nursery.start_soon(transport.run)
            nursery.start_soon(hub.tick)
            if metrics is not None:
                nursery.start_soon(metrics.run, context)
            for server in config.servers.values():
                if server.runs:
                    supervisors.add(server.name)
            tell_faults(config)
            nursery.start_soon(_look_after, Memory().look, launcher.records.mend, *looks)
            nursery.start_soon(manager.feed, transport.pulse, hub.pulse)
            logger.info("broker.listening", extra={"endpoint": address.endpoint, "pid": os.getpid()})
            manager.ready()

            async for number in signals:
                if meaning.ends(number):
                    break
                nursery.start_soon(reloader.hangup)
            logger.info("broker.ending", extra={"signal": signal.Signals(number).name})
            manager.stopping(_longest_end(hub.engine.config))
            nursery.start_soon(_be_patient, signals)
            await _end(hub, supervisors)
            nursery.cancel_scope.cancel()
    logger.info("broker.ended", extra={"pid": os.getpid()})


@contextmanager
def _listening(address: Address, config: Config, hub: Hub, file: SocketFile | None) -> Iterator[Endpoint]:
    transport = Endpoint(address.endpoint, config.limits, hub, file.make() if file else address.listener)
    try:
        set_permissions(address, config.broker)
        yield transport
    finally:
        transport.close()
        if file is not None:
            file.remove()


def _listen_again(transport: Endpoint, address: Address, file: SocketFile, hub: Hub) -> None:
    transport.listen(file.make())
    set_permissions(address, hub.engine.config.broker)


async def _look_after(*looks: Callable[[], None]) -> None:
    """See to what others may clean away while the broker runs."""
    while True:
        await trio.sleep(_LOOK_S)
        for look in looks:
            look()


@contextmanager
def _scraped(config: BrokerConfig) -> Iterator[MetricsServer | None]:
    """Where the metrics are read, if the config wants that; nobody else pays for it."""
    if config.metrics is None:
        yield None
        return
    from broker.management.metrics_http import MetricsServer

    metrics = MetricsServer(config.metrics, config)
    try:
        yield metrics
    finally:
        metrics.close()


async def _be_patient(signals: AsyncIterator[int]) -> None:
    """A further signal changes nothing: every step of the end is bounded."""
    async for number in signals:
        logger.info("broker.already_ending", extra={"signal": signal.Signals(number).name})


def _longest_end(config: Config) -> float:
    """No end of the broker takes longer than this, in seconds."""
    patience_s = max((server.timeout_stop_sec for server in config.servers.values()), default=0.0)
    engine_s = containers.END_S if any(map(containers.is_container, config.servers.values())) else 0.0
    return config.limits.drain_sec + 2 * patience_s + engine_s + _LAST_STEPS_S


async def _end(hub: Hub, supervisors: Supervisors) -> None:
    """Calls first, then connections, then servers: nobody loses what could still be had."""
    drain_s = hub.engine.config.limits.drain_sec
    left = await hub.drain(drain_s)
    if left:
        logger.warning("broker.calls_cut", extra={"calls": left, "after_s": drain_s})
    hub.run(hub.engine.clients.goodbye, "the broker is shutting down")
    await supervisors.stop()
