"""What the commands and the metrics have access to."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from broker.frontend.address import ListenAddress
from broker.hub import Hub
from broker.management.reload import Reloader
from broker.management.shared import Shared
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
