"""What the answer to a ping shows that was sent behind a cancellation: docs/configuration.md says it.

The server has read the cancellation, as it reads its stdin in order. Whether the handler is over by
then depends on the SDK and on the handler.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.servers.driver import PATIENCE_S, Driven

SERVERS = Path(__file__).parent
ROOT = SERVERS.parent.parent
SDK1 = (str(ROOT / ".venv-mcp1" / "bin" / "python"), str(SERVERS / "cancelled.py"))
SDK2 = (sys.executable, str(SERVERS / "cancelled.py"))
NODE = ("node", str(ROOT / "tests" / "node" / "cancelled.mjs"))
LOOP = (sys.executable, str(SERVERS / "plain_loop.py"))

OVER, UNDER_WAY = True, False
SILENT = None


@pytest.mark.parametrize(
    ("command", "tool", "is_over", "answer"),
    [
        pytest.param(SDK1, "waits", OVER, "Request cancelled", id="Python 1, async"),
        pytest.param(SDK1, "ignores", UNDER_WAY, "Request cancelled", id="Python 1, async that ignores it"),
        pytest.param(SDK1, "blocks", OVER, "done", id="Python 1, no coroutine"),
        pytest.param(SDK2, "waits", OVER, SILENT, id="Python 2, async"),
        pytest.param(SDK2, "ignores", UNDER_WAY, SILENT, id="Python 2, async that ignores it"),
        pytest.param(SDK2, "blocks", UNDER_WAY, SILENT, id="Python 2, no coroutine"),
        pytest.param(NODE, "waits", OVER, SILENT, id="TypeScript, heeds the signal"),
        pytest.param(NODE, "ignores", UNDER_WAY, SILENT, id="TypeScript, ignores the signal"),
        pytest.param(LOOP, "blocks", OVER, "done", id="a plain loop"),
    ],
)
def test_a_ping_behind_a_cancellation(
    command: tuple[str, ...], tool: str, is_over: bool, answer: str | None, tmp_path: Path
) -> None:
    """Law 8: so the answer to the ping is no proof by itself; `stops_on_cancel` is the operator's word."""
    if command is NODE and not (ROOT / "tests" / "node" / "node_modules" / ".installed").exists():
        pytest.skip("node or its packages are not installed")
    with Driven(*command).open_legacy() as server:
        call = server.begin_call(tool, folder=str(tmp_path), seconds=0.3 if is_over else 2 * PATIENCE_S)
        wait_for(tmp_path / "begun")
        server.cancel(call)
        server.ask("ping")
        assert (tmp_path / "over").exists() is is_over
        assert said(server, call) == answer
        (tmp_path / "go").touch()


def said(server: Driven, call: int) -> str | None:
    """What it has answered to the call until now."""
    if call not in server._answers:
        return None
    reply = server.answer(call)
    if "error" in reply:
        message: str = reply["error"]["message"]
        return message
    text: str = reply["result"]["content"][0]["text"]
    return text


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < until, f"no {path.name}"
        time.sleep(0.01)
