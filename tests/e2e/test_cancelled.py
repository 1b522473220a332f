"""The next call of a serialized server after a call was cancelled: real servers on both lines of the SDK."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from client_shim import BrokerClient
from tests.e2e.harness import PATIENCE_S, ROOT, running, script

MCP1_PYTHON = str(ROOT / ".venv-mcp1" / "bin" / "python")
LONG_S = 600.0


@pytest.mark.parametrize(
    ("python", "keys"),
    [
        pytest.param(MCP1_PYTHON, {"cancel_grace_sec": LONG_S}, id="1.x, which answers a cancelled call"),
        pytest.param(
            None, {"stops_on_cancel": True, "cancel_grace_sec": LONG_S}, id="2.x, by the operator's word"
        ),
        pytest.param(None, {"cancel_grace_sec": 0.5}, id="2.x, after a while"),
    ],
)
@pytest.mark.parametrize("protocol", ["legacy", "auto"])
def test_the_next_call_does_not_wait_for_the_timeout(
    python: str | None, keys: dict[str, Any], protocol: str, tmp_path: Path
) -> None:
    """The server's `timeout` would make it wait for ten minutes, and its own ends long before."""
    at = {"python": python} if python is not None else {}
    server = script(
        "tests/servers/cancelled.py", **at, serialized=True, timeout=LONG_S, protocol=protocol, **keys
    )
    for folder in ("stays", "goes on"):
        (tmp_path / folder).mkdir()
    (tmp_path / "goes on" / "go").touch()
    with running({"sdk": server}) as broker:

        async def main() -> None:
            async with BrokerClient("page", broker.endpoint) as page:
                call = asyncio.ensure_future(
                    page.call_tool("sdk", "waits", {"folder": str(tmp_path / "stays"), "seconds": 0})
                )
                while not (tmp_path / "stays" / "begun").exists():
                    await asyncio.sleep(0.01)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                goes_on = {"folder": str(tmp_path / "goes on"), "seconds": 0}
                result = await page.call_tool("sdk", "waits", goes_on, timeout=PATIENCE_S)
                assert result.content[0].text == "done"

        asyncio.run(main())
