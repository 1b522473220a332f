"""A broker whose lease over TCP is short, so that a test need not wait for the real one."""

from __future__ import annotations

from client_shim import lease

LEASE_MS, KEEPALIVE_S = 2000, 1

if __name__ == "__main__":
    lease.LEASE_MS, lease.KEEPALIVE_S = LEASE_MS, KEEPALIVE_S

    from broker.__main__ import main

    main()
