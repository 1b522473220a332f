"""Keeps the catalogues of the servers in the state directory, off the path of messages.

The keeper looks at the catalogues at intervals and writes those that have changed, one at a time, in a
thread. A disk that hangs stops the keeper and nothing else.
"""

from __future__ import annotations

import logging

import trio
from msgspec import Struct

from broker.core.mcp.methods import Era
from broker.core.servers.catalogue import Catalogue
from broker.core.servers.kept import keep
from broker.core.servers.server import Server
from broker.hub import Hub
from broker.upstream.catalogue_files import CatalogueFiles, NotKeptError

LOOK_S = 1.0
"""The interval of the looks. Whatever changes between two looks is one write."""

FLUSH_S = 1.0
"""The longest time that the end of the broker waits for the last writes."""

TRY_AGAIN_S = 60.0
"""The time after which a write that failed is tried again."""

logger = logging.getLogger("mcp-broker")


class _Seen(Struct):
    """What was last written of a server, or could not be written."""

    catalogue: Catalogue
    revision: int
    era: Era | None
    failed_at: float | None = None

    def is_of(self, server: Server) -> bool:
        """Return whether it is what the server has now."""
        same_lists = server.catalogue is self.catalogue and self.catalogue.revision == self.revision
        return same_lists and server.remembered is self.era

    def is_due(self, now: float) -> bool:
        """Return whether a write that failed is tried again."""
        return self.failed_at is not None and now >= self.failed_at + TRY_AGAIN_S


class CatalogueKeeper:
    """Restores the catalogues of the servers, and keeps them.

    Args:
        hub: its engine has the servers.
        files: the files.
    """

    def __init__(self, hub: Hub, files: CatalogueFiles) -> None:
        self._hub = hub
        self._files = files
        self._seen: dict[str, _Seen] = {}
        self._ending, self._ended = trio.Event(), trio.Event()

    def restore(self) -> None:
        """Restore the catalogues that an earlier broker kept. It blocks: call it before anything runs."""
        engine = self._hub.engine
        for name, kept in self._files.load(engine.config.servers).items():
            engine.registry.restore(name, kept)
            self._seen[name] = _seen(engine.servers[name])

    async def run(self) -> None:
        """Keep the catalogues up to date, and look once more after `flush`. Only this task writes."""
        is_last = False
        while not is_last:
            with trio.move_on_after(LOOK_S):
                await self._ending.wait()
            is_last = self._ending.is_set()
            await self._look_at_all()
        self._ended.set()

    async def flush(self) -> None:
        """Have `run` write what has changed since its last look, and wait for it: the broker ends."""
        self._ending.set()
        with trio.move_on_after(FLUSH_S) as scope:
            await self._ended.wait()
        if scope.cancelled_caught:
            logger.warning("catalogues.not_flushed", extra={"after_s": FLUSH_S})

    async def _look_at_all(self) -> None:
        servers = self._hub.engine.servers
        for name in self._seen.keys() - servers.keys():
            del self._seen[name]
        for server in list(servers.values()):
            await self._look(server)

    async def _look(self, server: Server) -> None:
        """Write the catalogue of a server if it has changed, or could not be written some time ago."""
        seen = self._seen.get(server.name)
        if server.catalogue is None or server.outdated or server.withdrawn:
            return  # its lists are not those of the program that the config names
        if seen is not None and seen.is_of(server) and not seen.is_due(trio.current_time()):
            return
        self._seen[server.name] = now = _seen(server)
        kept = keep(server.catalogue, server.remembered)
        try:
            await trio.to_thread.run_sync(self._files.write, server.config, kept, abandon_on_cancel=True)
        except NotKeptError as error:
            now.failed_at = trio.current_time()
            if seen is None or seen.failed_at is None:  # not again at each try
                logger.warning("catalogue.not_kept", extra={"server": server.name, "reason": str(error)})


def _seen(server: Server) -> _Seen:
    assert server.catalogue is not None
    return _Seen(server.catalogue, server.catalogue.revision, server.remembered)
