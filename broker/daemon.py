"""The broker's process, from its start to its end.

    claim the address and the state directory ─► end what an earlier broker left ─► listen ─► start the
    servers ─► serve ─► a signal ─► refuse new calls ─► wait for those in flight ─► say goodbye ─► end the
    servers

`run` prepares the process, `serve` builds the parts and runs them. A message takes this way:

    client ─► frontend.zmq.router ─► hub ─► core.engine ─► hub ─► upstream.supervisor ─► the server's stdin

One nursery has all tasks: the router, the clock of the hub, one supervisor for each server, the commands of
the operator (`management`), and the service manager's watchdog. The engine alone decides, and does no I/O.
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
from broker.frontend.address import ListenAddress, addresses_of
from broker.frontend.listening import claimed, listening, log_addresses, secret_key_of, set_all_permissions
from broker.hub import Hub
from broker.management.commands import manage
from broker.management.context import Context
from broker.management.reload import Reloader, log_faults
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
from broker.service.systemd import ServiceManager, status_lines
from broker.upstream.catalogue_files import CatalogueFiles
from broker.upstream.catalogue_keeper import CatalogueKeeper
from broker.upstream.starts import lifecycle_of
from broker.upstream.supervisors import Supervisors

if TYPE_CHECKING:
    from broker.management.metrics_http import MetricsServer

_LAST_STEPS_S = 10.0
"""Time for the end of the broker beside the waits for calls and servers, in seconds."""

_LOOK_S = 2.0
"""Interval at which the broker looks after its files, which others may clean away."""

logger = logging.getLogger("mcp-broker")


def run(config: Config, path: Path, endpoint: str | None, manager: ServiceManager) -> None:
    """Run a broker until SIGTERM, SIGINT or the end of its terminal. Any other SIGHUP reloads the config.

    Args:
        config: the content of `path`.
        path: the config file; relative paths of servers start at its folder.
        endpoint: the address of the command line, which is used instead of the config's.
        manager: the service manager that started the broker.

    Raises:
        ConfigError: the endpoint of the command line or of the variable is invalid, or there are too few
            descriptors for so many servers.
        ClaimError: the endpoint or the state directory cannot be used.
    """
    signals = Signals()
    _prepare_process(signals)
    soft_limit = raise_descriptor_limit()
    check_descriptor_limit(sum(server.runs for server in config.servers.values()))
    addresses = addresses_of(endpoint, config.broker, os.environ, manager.sockets)
    folder = path.resolve().parent
    state_dir = state_dir_of(config.broker, addresses[0].endpoint, os.environ, folder)
    secret_key = secret_key_of(config.broker, path, addresses)
    with claimed(addresses), hold_records(state_dir) as records:
        cgroup = _delegation()
        launcher = Launcher(folder, with_credentials(os.environ), records, cgroup, soft_limit)
        servers = config.servers
        end_leftovers(records, cgroup, lambda one: launcher.removal_of(one, servers.get(one.server)))
        gc.freeze()  # the collector need not look at what is loaded by now, in the middle of a call
        trio.run(serve, config, path.absolute(), addresses, secret_key, launcher, manager, signals)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # Python resets handlers while it exits: a reload would kill


def _prepare_process(signals: Signals) -> None:
    """Hide the process from the servers, and set what its signals do before and after `serve`."""
    faulthandler.enable()  # the watchdog ends a stuck broker by SIGABRT: the log shows where it was stuck
    if not hide_from_servers(os.environ):
        logger.warning("broker.not_hidden", extra={"pid": os.getpid()})
    for number in HANDLED:
        signal.signal(number, lambda number, _: sys.exit(0) if signals.ends(number) else None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent may have ignored it: then exit statuses are lost


def _delegation() -> Delegation | None:
    """Return the cgroup for the servers' cgroups, if there is one."""
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
    addresses: tuple[ListenAddress, ...],
    secret_key: str,
    launcher: Launcher,
    manager: ServiceManager,
    signals: Signals,
) -> None:
    """Build the parts of the broker and run them. Its addresses are claimed, no earlier process is left."""
    lifecycles = {name: lifecycle_of(server) for name, server in config.servers.items()}
    instance, least = secrets.token_hex(8), logger.getEffectiveLevel()
    engine = Engine(config, lifecycles, instance=instance, version=__version__, least=least)
    hub = Hub(engine, trio.lowlevel.current_clock().current_time)
    mask_by(engine.mask)
    keeper = CatalogueKeeper(hub, _catalogue_files(launcher, config))
    keeper.restore()
    with (
        trio.open_signal_receiver(*HANDLED) as received,
        listening(addresses, secret_key, hub) as (transport, look_after_sockets),
        _metrics(config.broker) as metrics,
    ):
        async with trio.open_nursery() as nursery:
            supervisors = Supervisors(hub, launcher, nursery)
            reloader = Reloader(hub, supervisors, path, partial(set_all_permissions, addresses), manager)
            shown = os.fsencode(path).decode(errors="replace")  # a path is bytes, an answer is text
            context = Context(hub, supervisors, reloader, addresses, shown, trio.current_time())
            hub.attach(transport, lambda request: nursery.start_soon(manage, context, request))
            hub.on_move = lambda: manager.status(
                *status_lines(engine.servers.values(), reloader.problems, reloader.waiting)
            )

            nursery.start_soon(transport.run)
            nursery.start_soon(hub.tick)
            if metrics is not None:
                nursery.start_soon(metrics.run, context)
            for server in config.servers.values():
                if server.runs:
                    supervisors.add(server.name)
            log_faults(config)
            nursery.start_soon(keeper.run)
            nursery.start_soon(supervisors.watch_memory)
            nursery.start_soon(_look_after, Memory().look, launcher.records.mend, look_after_sockets)
            nursery.start_soon(manager.feed, transport.pulse, hub.pulse)
            log_addresses(addresses)
            manager.ready()

            await _ended_by(received, signals, lambda: nursery.start_soon(reloader.hangup))
            manager.stopping(_longest_end(engine.config))
            nursery.start_soon(_log_further, received)
            await _end(hub, supervisors)
            await keeper.flush()
            nursery.cancel_scope.cancel()
    logger.info("broker.ended", extra={"pid": os.getpid()})


def _catalogue_files(launcher: Launcher, config: Config) -> CatalogueFiles:
    """Return the files of the kept catalogues, in the state directory."""
    state_dir, max_bytes = launcher.records.folder, config.limits.max_message_bytes
    return CatalogueFiles(state_dir, launcher.folder, launcher.environ, max_bytes)


@contextmanager
def _metrics(config: BrokerConfig) -> Iterator[MetricsServer | None]:
    """Yield the server of the metrics, if the config wants it. Only then is its code loaded."""
    if config.metrics is None:
        yield None
        return
    from broker.management.metrics_http import MetricsServer

    metrics = MetricsServer(config.metrics, config)
    try:
        yield metrics
    finally:
        metrics.close()


async def _look_after(*looks: Callable[[], None]) -> None:
    """Look after the memory and the files of the broker, at intervals."""
    while True:
        await trio.sleep(_LOOK_S)
        for look in looks:
            look()


async def _ended_by(received: AsyncIterator[int], signals: Signals, reload: Callable[[], None]) -> None:
    """Wait for a signal that ends the broker; reload at each other one."""
    async for number in received:
        if signals.ends(number):
            logger.info("broker.ending", extra={"signal": signal.Signals(number).name})
            return
        reload()


async def _log_further(received: AsyncIterator[int]) -> None:
    """Log further signals. They change nothing: every step of the end has a time limit."""
    async for number in received:
        logger.info("broker.already_ending", extra={"signal": signal.Signals(number).name})


def _longest_end(config: Config) -> float:
    """Return the time limit for the end of the broker, in seconds."""
    patience_s = max((server.timeout_stop_sec for server in config.servers.values()), default=0.0)
    container_s = containers.END_S if any(map(containers.is_container, config.servers.values())) else 0.0
    return config.limits.drain_sec + 2 * patience_s + container_s + _LAST_STEPS_S


async def _end(hub: Hub, supervisors: Supervisors) -> None:
    """End calls first, then connections, then servers, so that no answer is lost that can still be given."""
    drain_s = hub.engine.config.limits.drain_sec
    left = await hub.drain(drain_s)
    if left:
        logger.warning("broker.calls_cut", extra={"calls": left, "after_s": drain_s})
    hub.run(hub.engine.clients.goodbye, "the broker is shutting down")
    await supervisors.stop()
