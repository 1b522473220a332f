"""What is done to the installed service inside a booted systemd; `test_service.py` reads what it says.

    python -m tests.systemd.session WHEELS

Every check is a function whose docstring says what it guards. They run in their order, each on what the one
before has left, and each gives a line of JSON: its name, how long it took, and what was wrong, if anything.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable

from tests.systemd import boot_checks, life_checks, place_checks
from tests.systemd.host import Skipped

CHECKS: dict[str, Callable[[], None]] = {
    check.__name__: check for module in (place_checks, life_checks, boot_checks) for check in module.CHECKS
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
    place_checks.WHEELS = sys.argv[1]
    for one in CHECKS.values():
        print(json.dumps(run(one)), flush=True)
