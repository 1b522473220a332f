"""Refusals of the broker to tell a session of changes: counted, and logged from time to time."""

from __future__ import annotations

import logging
import time

from broker.base.rate_limit import RateLimit
from client_shim.errors import BrokerError

logger = logging.getLogger("mcp-broker")

LOGGED_AT_ONCE = 20
"""Refusals that are logged at once; beyond them one a second is."""


class ListenRefusals:
    """The refusals of the sessions of one door."""

    def __init__(self) -> None:
        self.count = 0
        self._logged = RateLimit(LOGGED_AT_ONCE, 1.0)
        self._unlogged = 0
        """Refusals since the last one that was logged."""

    def add(self, client: str, server: str, error: BrokerError) -> None:
        """Count a refusal, and log it unless there are many.

        Args:
            client: what the broker's `status` calls the client.
        """
        self.count += 1
        if not self._logged.take(time.monotonic()):
            self._unlogged += 1
            return
        extra = {"client": client, "server": server, "reason": str(error), "unlogged": self._unlogged}
        logger.warning("gateway.not_listening", extra=extra)
        self._unlogged = 0
