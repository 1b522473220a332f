"""Checks of what does not start, of servers that need a runtime, and of the end of it all."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from client_shim.blocking import BlockingClient
from client_shim.errors import BrokerError
from tests.systemd import host
from tests.systemd.host import (
    CONFIG,
    ENDPOINT,
    PYTHON,
    ROOT,
    Skipped,
    call,
    configure,
    journal,
    last_words,
    sh,
    show,
    status,
    until,
    until_ready,
)


def a_broken_config_is_said_once_and_not_tried_again() -> None:
    """A broken config at boot: clear status and journal, and no storm of restarts, though clients knock."""
    sh("systemctl stop mcp-broker.socket mcp-broker.service")
    whole = CONFIG.read_text(encoding="utf-8")
    CONFIG.write_text('[servers.fine]\ncomand = "typo"\n', encoding="utf-8")
    before = journal().count(": 2 mistakes")
    sh("systemctl start mcp-broker.socket")
    for _ in range(10):  # they connect while nobody is there to read
        try:
            with BlockingClient(ENDPOINT, timeout_s=0.5):
                raise AssertionError("it answered")
        except BrokerError:
            time.sleep(0.1)
    until(lambda: show("ActiveState") == "failed")
    until(lambda: show("ActiveState", "mcp-broker.socket") == "inactive")
    assert show("Result") == "exit-code"
    assert show("ExecMainStatus") == "2"
    assert "comand" in show("StatusText"), show("StatusText")
    assert "servers.fine.comand: there is no such key; did you mean command?" in journal(), last_words()
    assert journal().count(": 2 mistakes") == before + 1, last_words()
    said = sh("systemctl restart mcp-broker", status=1)
    assert "Job for mcp-broker.service failed" in said, said
    until(lambda: show("ActiveState", "mcp-broker.socket") == "inactive")
    assert show("ActiveState") == "failed"
    CONFIG.write_text(whole, encoding="utf-8")
    sh("systemctl start mcp-broker")
    until_ready()
    assert show("ActiveState", "mcp-broker.socket") == "active"


def an_npx_server_runs_under_the_service() -> None:
    """An `npx` server, as the service's user, with its cache in the service's home."""
    package = ROOT / "tests/node/node_modules"
    if shutil.which("npx") is None or not package.is_dir():
        raise Skipped("there is no npx here, or no server-everything in tests/node (make node)")
    sh(f"mkdir /opt/everything && cp -r {ROOT}/tests/node/. /opt/everything && chmod -R a+rX /opt/everything")
    everything = {
        "command": "npx",
        "args": ["--no-install", "mcp-server-everything"],
        "cwd": "/opt/everything",
    }
    configure({"everything": everything})
    sh("systemctl restart mcp-broker")
    until_ready()
    assert status()["servers"][0]["tools"] > 5


def a_uvx_server_runs_under_the_service() -> None:
    """A `uvx` server, as the service's user, with its cache in the service's home."""
    beside = Path(sys.executable).parent
    if not (beside / "uvx").exists():
        raise Skipped("there is no uvx beside the Python of the tests (pip install uv)")
    sh(f"install -m 0755 {beside}/uv {beside}/uvx /usr/local/bin")
    sh(f"cp -r {host.WHEELS} /opt/service-wheels && chmod -R a+rX /opt/service-wheels")
    offline = ["--offline", "--no-index", "--find-links", "/opt/service-wheels", "--python", PYTHON]
    configure({"clock": {"command": "uvx", "args": [*offline, "mcp-server-time"]}})
    sh("systemctl restart mcp-broker")
    until_ready()
    assert status()["servers"][0]["tools"] == 2
    assert call("clock", "get_current_time", {"timezone": "UTC"})


CHECKS = (
    a_broken_config_is_said_once_and_not_tried_again,
    an_npx_server_runs_under_the_service,
    a_uvx_server_runs_under_the_service,
)
