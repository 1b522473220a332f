"""What is done to the installed service inside a booted systemd; `test_service.py` reads what it says.

    python -m tests.systemd.session WHEELS [CHECK ...]      with names: only these, after the installation

Every check is a function whose docstring says what it guards. They run in their order, each on what the one
before has left, and each gives a line of JSON: its name, how long it took, and what was wrong, if anything.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable

from tests.systemd import (
    boot_checks,
    gateway_checks,
    host,
    life_checks,
    place_checks,
    reload_checks,
    user_checks,
)
from tests.systemd.host import Skipped

MODULES = (place_checks, gateway_checks, life_checks, reload_checks, user_checks, boot_checks)

CHECKS: dict[str, Callable[[], None]] = {
    check.__name__: check for module in MODULES for check in module.CHECKS
}


def run(check: Callable[[], None]) -> dict[str, object]:
    """One line of the result."""
    began = time.monotonic()
    seen: dict[str, object] = {"check": check.__name__}
    try:
        check()
    except Skipped as skipped:
        seen["skipped"] = str(skipped)
    except BaseException:
        seen["failed"] = traceback.format_exc()
    return {**seen, "seconds": round(time.monotonic() - began, 2)}


if __name__ == "__main__":
    host.WHEELS = sys.argv[1]
    first, *others = CHECKS
    for name in (first, *(sys.argv[2:] or others)):
        print(json.dumps(run(CHECKS[name])), flush=True)
