"""Ends the processes and containers that an earlier broker left behind when it was killed.

Blocks. The broker runs it before it starts a server or serves a client.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from msgspec import structs

from broker.config.names import file_name
from broker.processes import containers
from broker.processes.cgroup import Delegation, is_removed
from broker.processes.containers import Removal, UnknownEngine
from broker.processes.records import ProcessRecord, Records, boot
from broker.processes.trees import Mark, TreeKiller

_ROUNDS = 100
_PAUSE_S = 0.02
_REMOVE_ROUNDS = 20

logger = logging.getLogger("mcp-broker")


def end_leftovers(
    records: Records, delegation: Delegation | None, removal_of: Callable[[ProcessRecord], Removal]
) -> None:
    """End every process and container of earlier brokers with this state directory, and log each.

    A container that its engine does not remove now is removed before its server is started.

    Args:
        delegation: the cgroup in which they made theirs, perhaps some without a record. The cgroup in a
            record is trusted only if it is the one that a broker makes for that server.
        removal_of: tells how the container of a record is removed, or raises `UnknownEngine`.
    """
    here = boot()
    written = [_believed(record, delegation) for record in records.earlier()]
    own = {record.cookie: record for record in written if record.boot == here}
    for server, cookie, cgroup in delegation.left(records.owner) if delegation else ():
        found = ProcessRecord(server=server, cookie=cookie, boot=here, cgroup=str(cgroup.path))
        own.setdefault(cookie, found)
    left = _kill_all(records.owner, list(own.values()))
    _remove_cgroups([record for record in own.values() if record.cookie not in left])
    left |= _end_containers(records, written, removal_of)
    for record in [*own.values(), *written]:
        if record.cookie not in left:
            records.forget(record)


def _believed(record: ProcessRecord, delegation: Delegation | None) -> ProcessRecord:
    """Return the record without a cgroup that does not belong to the broker."""
    if record.cgroup is None:
        return record
    own = delegation and delegation.of(file_name(record.server), record.cookie)
    return record if own and str(own.path) == record.cgroup else structs.replace(record, cgroup=None)


def _remove_cgroups(records: list[ProcessRecord]) -> None:
    """Remove the cgroups. A process may leave its cgroup a moment later than it leaves /proc."""
    for _ in range(_REMOVE_ROUNDS):
        if all(is_removed(record.own_cgroup) for record in records):
            break
        time.sleep(_PAUSE_S)


def _end_containers(
    records: Records, written: list[ProcessRecord], removal_of: Callable[[ProcessRecord], Removal]
) -> set[str]:
    """Remove the containers of all records at once. Return the cookies of those that may be left.

    This includes records of an earlier boot: the engine may have started their containers again.
    """
    noted = [record for record in written if record.container is not None]
    for path in records.cidfiles() - {records.cidfile(record) for record in noted}:
        _tell_container_left(path.stem.rpartition(".")[0], str(path), "its record is missing")
    left, known = set[str](), list[tuple[ProcessRecord, Removal]]()
    for record in noted:
        try:
            known.append((record, removal_of(record)))
        except UnknownEngine as error:
            if record.container is not None and os.path.lexists(record.container.cidfile):
                _tell_container_left(record.server, record.container.cidfile, str(error))
                records.owe(record, None)
                left.add(record.cookie)
    if not known:
        return left
    began = [os.path.exists(removal.container.cidfile) for _, removal in known]
    with ThreadPoolExecutor(len(known)) as threads:
        ends = threads.map(lambda one: containers.end(*one[1]), known)
    for (record, (container, _)), why, had_begun in zip(known, ends, began, strict=True):
        if why is not None:
            _tell_container_left(record.server, container.cidfile, why)
            records.owe(record, container)
            left.add(record.cookie)
        elif had_begun:
            logger.warning("broker.leftover_container_removed", extra={"server": record.server})
    return left


def _tell_container_left(server: str, cidfile: str, why: str) -> None:
    facts = {"server": server, "reason": why, "cidfile": cidfile}
    logger.error("broker.leftover_container", extra=facts)


def _kill_all(owner: str, records: list[ProcessRecord]) -> set[str]:
    """Kill until nothing is left. Return the cookies of the trees that are left nevertheless."""
    names = {record.cookie: record.server for record in records}
    told = set[int]()
    nothing, left = 0, set[str]()
    killer = TreeKiller([*(record.mark for record in records), Mark(f"{owner}.")])
    for _ in range(_ROUNDS):
        found = killer.round()
        left = {mark.cookie for mark, _ in found}
        nothing = 0 if found else nothing + 1
        if nothing == 2:
            break
        for mark, seen in found:
            if mark.cgroup:
                mark.cgroup.kill()
            if seen.pid not in told:
                facts = {"pid": seen.pid, "server": names.get(mark.cookie, "unknown")}
                logger.warning("broker.leftover_killed", extra=facts)
                told.add(seen.pid)
        time.sleep(_PAUSE_S)
    if left:
        logger.error("broker.leftover_cannot_be_killed", extra={"servers": ",".join(map(str, left))})
    return left
