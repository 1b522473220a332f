"""When a connection over TCP is given up: client and broker use the same times."""

from __future__ import annotations

LEASE_MS = 10_000
"""How long what was sent may stay unacknowledged. Over ``ipc://``, how long nothing may be heard."""

KEEPALIVE_S = 5
"""After so long without a byte, the kernel asks whether the other side is there, and again as often."""
