"""A broker whose lease over TCP is short, so that a test need not wait for the real one."""

from __future__ import annotations

from broker.__main__ import main
from broker.frontend.zmq import options

LEASE_MS, KEEPALIVE_S = 2000, 1

if __name__ == "__main__":
    options.LEASE_MS, options.KEEPALIVE_S = LEASE_MS, KEEPALIVE_S
    main()
