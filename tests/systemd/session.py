"""What is done to the installed service inside a booted systemd; `test_service.py` reads what it says.

    python -m tests.systemd.session WHEELS PACKAGE [CHECK ...]      with names: only these, once installed

PACKAGE is the path of the Debian package, or why it cannot be built.

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
    install_checks,
    life_checks,
    package_checks,
    place_checks,
    reload_checks,
    user_checks,
    walk_checks,
)
from tests.systemd.host import Skipped

INSTALLED: tuple[Callable[[], None], ...] = tuple(
    check
    for module in (place_checks, gateway_checks, life_checks, reload_checks, user_checks, boot_checks)
    for check in module.CHECKS
)
"""The checks of the installed service."""

CHECKS: dict[str, Callable[[], None]] = {
    check.__name__: check
    for check in (
        *install_checks.CHECKS,
        *package_checks.FIRST,
        *INSTALLED,
        *package_checks.LAST,
        *walk_checks.CHECKS,
    )
}
BEFORE_REBOOT = walk_checks.CHECKS[-1].__name__
AFTER_REBOOT = {check.__name__: check for check in walk_checks.AFTER_REBOOT}


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


def session(names: list[str]) -> None:
    """Run the checks, then reboot; the next boot runs this again, for the checks after it."""
    rebooted = walk_checks.REBOOTED.exists()
    if names:
        names = [package_checks.FIRST[0].__name__, *names]
    checks = AFTER_REBOOT if rebooted else {name: CHECKS[name] for name in names or CHECKS}
    for check in checks.values():
        print(json.dumps(run(check), ensure_ascii=False), flush=True)
    if not rebooted and walk_checks.REBOOTED.exists():
        walk_checks.reboot()


if __name__ == "__main__":
    host.WHEELS, package, *chosen = sys.argv[1:]
    host.PACKAGE, host.NO_PACKAGE = (package, "") if package.endswith(".deb") else ("", package)
    session(chosen)
