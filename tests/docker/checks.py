"""What the image and compose.yaml do under a real engine: one function a check, in this order.

    python -m tests.docker           choose an engine, run the checks there, and write docs/docker.toml
    python -m tests.docker.checks    run them under the engine of `docker`, and print JSON

The standard library only: inside of `with-docker` there is nothing else. A check raises where something does
not hold, and yields its figures: a word, a measured number, and the most that it may be, if there is a bound.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.docker.engine import BACKEND, IMAGE, Figure, Place, Stack, docker, facts
from tests.docker.texts import in_language
from tests.docker.with_compose import (
    build,
    gateway,
    killed,
    restart,
    status,
    stop,
    stopped_server,
    stubborn,
    ten_pages,
    up,
)
from tests.docker.with_run import backend_first, derived, foreign_folder, imported, memory, other_users

Check = Callable[[Stack, Place], Iterator[Figure]]

CHECKS: tuple[Check, ...] = (
    *(build, up, status, ten_pages, restart, stubborn, killed, stopped_server, gateway, stop),
    *(backend_first, other_users, imported, memory, derived, foreign_folder),
)


def checked(check: Check, stack: Stack) -> dict[str, object]:
    """Run one check: its figures, and the reason why it failed, if it did."""
    place, began = Place(), time.monotonic()
    figures: list[dict[str, object]] = []
    failed = ""
    try:
        for what, measured, bound in check(stack, place):
            figures.append({"what": what, "measured": round(measured, 1), "bound": bound})
            if bound is not None and measured > bound:
                failed += in_language(
                    f"{what}: {measured:.1f}, and at most {bound}; ",
                    f"{what}：{measured:.1f}，上限 {bound}；",
                )
    except Exception:
        failed = traceback.format_exc()
    finally:
        place.end()
    took_s = round(time.monotonic() - began, 1)
    ending = in_language("FAILED", "失败  ") if failed else in_language("ok    ", "通过  ")
    print(f"{ending} {check.__name__:15} {took_s:6.1f} s  {failed}", file=sys.stderr, flush=True)
    return {"name": check.__name__, "seconds": took_s, "figures": figures, "failed": failed}


def main(wanted: list[str]) -> int:
    """Run the checks, or those that are named, after the first two; print what was found as JSON."""
    found = []
    with tempfile.TemporaryDirectory(prefix="mcp-broker-check-") as folder:
        Path(folder).chmod(0o755)
        stack = Stack(Path(folder))
        stack.end()  # of a run that was cut off
        try:
            for check in CHECKS:
                if not wanted or check in (build, up) or check.__name__ in wanted:
                    found.append(checked(check, stack))
            about = facts()
        finally:
            stack.end()
            with contextlib.suppress(AssertionError):
                docker("image", "rm", "--force", IMAGE, BACKEND)
    print(json.dumps({"about": about, "checks": found}))
    return int(any(one["failed"] for one in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
