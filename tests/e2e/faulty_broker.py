"""A broker with a fault of its own at the place that $FAULT names. Once, when $ARMED exists."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from broker.__main__ import main
from broker.core.servers.replies import Replies
from broker.processes import process
from broker.processes.process import Launcher
from broker.upstream.stdio.pipe import Pipe
from broker.upstream.stdio.stderr import StderrLog

PLACES: dict[str, tuple[object, str]] = {
    "its start": (Launcher, "spawn"),
    "its stdin": (Pipe, "_put"),
    "its last lines": (Pipe, "caught_up"),
    "its stderr": (StderrLog, "_take"),
    "its end": (process, "kill_tree"),
    "the core": (Replies, "line"),
}


def break_once(owner: object, name: str, armed: Path) -> None:
    """Have this method raise when it is called next, once the file is there."""
    whole = getattr(owner, name)

    def broken(*args: Any, **keys: Any) -> Any:
        if armed.exists():
            armed.unlink()
            raise ValueError("nobody thought of this")
        return whole(*args, **keys)

    setattr(owner, name, broken)


if __name__ == "__main__":
    break_once(*PLACES[os.environ["FAULT"]], Path(os.environ["ARMED"]))
    sys.exit(main())
