"""What the commands and the metrics have access to."""

from __future__ import annotations

from typing import Any

import trio
from msgspec import Struct

from broker.frontend.address import ListenAddress
from broker.hub import Hub
from broker.management.reload import Reloader
from broker.management.shared import Shared
from broker.processes.trees import Tree, trees_of
from broker.upstream.supervisors import Supervisors


class Context(Struct, frozen=True):
    """The parts of a running broker."""

    hub: Hub
    supervisors: Supervisors
    reloader: Reloader
    addresses: tuple[ListenAddress, ...]
    config_path: str
    started_at: float
    shared: dict[str, Shared[dict[str, Any]]] = {}
    """Answers that take long and are the same for all who ask, by command."""

    async def trees(self) -> dict[str, Tree]:
        """Return the process trees of the servers that have one, by name. A thread reads /proc."""
        marks = {name: one.process.mark for name, one in self.supervisors.items() if one.process}
        found = await trio.to_thread.run_sync(trees_of, list(marks.values()))
        return {name: found[mark.cookie] for name, mark in marks.items()}
