"""The service under a real systemd: `make install`, the Debian package, and what happens to a service.

One boot for all of it; each test here is one line of what `session.py` said in there.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.project.wheels import package, wheels, why_no_package
from tests.systemd.inside import needs_systemd, under_systemd
from tests.systemd.session import AFTER_REBOOT, BEFORE_REBOOT, CHECKS
from tests.systemd.walk_checks import uv_wheel

SESSION_S = 600
"""It takes a minute and a half on an idle machine."""

pytestmark = pytest.mark.timeout(SESSION_S + 120)


@pytest.fixture(scope="module")
def session() -> dict[str, dict[str, Any]]:
    """What became of each check."""
    needs_systemd()
    uv_wheel()
    given = wheels(), why_no_package() or package()
    done = under_systemd(sys.executable, "-m", "tests.systemd.session", *given, limit_s=SESSION_S)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    assert lines, done.stdout + done.stderr
    return {line["check"]: line for line in lines}


@pytest.mark.parametrize("check", [*CHECKS, *AFTER_REBOOT])
def test_the_service(check: str, session: dict[str, dict[str, Any]]) -> None:
    """Each check says in its docstring what it guards."""
    if check in AFTER_REBOOT and "skipped" in session.get(BEFORE_REBOOT, {}):
        pytest.skip(session[BEFORE_REBOOT]["skipped"])
    assert check in session, f"the session ended before; it came to {list(session)}"
    seen = session[check]
    if "skipped" in seen:
        pytest.skip(seen["skipped"])
    assert "failed" not in seen, seen["failed"]
