"""Checks of the gateway's units: a service and a user of its own, in front of the installed broker."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

from tests.systemd.host import as_user, sh, show, units, until

UNIT = "mcp-broker-gateway.service"
SOCKET = "mcp-broker-gateway.socket"
STATE = Path("/var/lib/mcp-broker-gateway")
SERVERS = Path("/run/mcp-broker-gateway/servers")
URL = "http://127.0.0.1:8420"

ASK = """
import json, sys, urllib.error, urllib.request
url, token, server = sys.argv[1:]
version = "2026-07-28"
meta = {"protocolVersion": version, "clientCapabilities": {}}
meta = {"io.modelcontextprotocol/" + key: value for key, value in meta.items()}
body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
headers = {"Content-Type": "application/json", "Mcp-Protocol-Version": version, "Mcp-Method": "tools/list"}
headers["Authorization"] = "Bearer " + token
request = urllib.request.Request(f"{url}/mcp/{server}", json.dumps(body).encode(), headers)
try:
    with urllib.request.urlopen(request) as answer:
        print(answer.status, len(json.load(answer)["result"]["tools"]))
except urllib.error.HTTPError as error:
    print(error.status, json.load(error)["error"]["message"])
"""


def ask(token: str, user: str = "root", server: str = "fine") -> str:
    """What a client gets that a user runs."""
    return as_user(user, "/opt/mcp-broker/bin/python", "-c", ASK, URL, token, server)


def journal() -> str:
    """The end of what the gateway has logged."""
    sh("journalctl --sync")
    return sh(f"journalctl --quiet --output cat --unit {UNIT} --lines 40")


def token() -> str:
    """The gateway's own."""
    return (STATE / "token").read_text(encoding="utf-8").strip()


def it_is_installed_and_not_enabled() -> None:
    """A port is opened by who wants it, and by nobody else."""
    assert show("UnitFileState", UNIT) == "disabled"
    assert show("ActiveState", SOCKET) == "inactive"


def verify_finds_nothing_in_the_gateways_units() -> None:
    """`systemd-analyze verify` is clean, for the system's units and for a user's."""
    for name in (UNIT, SOCKET):
        assert sh(f"systemd-analyze verify {units()}/system/{name}") == ""
        assert sh(f"systemd-analyze --user verify {units()}/user/{name}", env="XDG_RUNTIME_DIR=/run") == ""


def the_gateways_exposure_is_smaller() -> None:
    """`systemd-analyze security --offline=yes`: 2.0 at most, for it starts no program of others."""
    said = sh(f"systemd-analyze security --offline=yes --no-pager --threshold=20 {units()}/system/{UNIT}")
    assert re.search(rf"Overall exposure level for {UNIT}: ([01]\.\d|2\.0)", said), said


def it_runs_as_its_own_user_and_serves_who_has_the_token() -> None:
    """Enabled and started, a client with the token is served, and one without is told what to do."""
    sh(f"systemctl enable --now {UNIT}")
    assert show("ActiveState", SOCKET) == "active"
    until(lambda: int(show("MainPID", UNIT)), journal)
    assert show("ActiveState", UNIT) == "active", journal()
    assert sh(f"ps -o user:32= -p {show('MainPID', UNIT)}").strip() == "mcp-broker-gateway"
    assert ask(token()).startswith("200 ")
    assert ask(token(), "stranger").startswith("200 ")
    said = ask("wrong", "stranger")
    assert said.startswith("401 "), said
    assert "token" in said


def only_its_user_can_read_the_token() -> None:
    """Nothing writes a token into a file that others can read; nor is it in the journal."""
    assert stat.S_IMODE((STATE / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE(STATE.stat().st_mode) == 0o700
    as_user("stranger", "cat", str(STATE / "token"), status=1)
    as_user("mcp-broker", "cat", str(STATE / "token"), status=1)
    assert token() not in journal()


def the_sockets_of_connect_are_for_the_brokers_group() -> None:
    """Who may use the broker's socket may use these, and nobody else."""
    until(lambda: (SERVERS / "fine.sock").exists(), lambda: sh(f"ls -l {SERVERS}", status=None))
    about = (SERVERS / "fine.sock").stat()
    assert sh(f"stat -c %G {SERVERS / 'fine.sock'}").strip() == "mcp-broker"
    assert stat.S_IMODE(about.st_mode) == 0o660
    hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    connect = f"(echo '{hello}'; sleep 3) | timeout 20 mcp-broker connect fine"
    said = as_user("backend", "sh", "-c", connect)
    assert '"result":{}' in said, said


def a_restart_turns_no_client_away() -> None:
    """systemd listens meanwhile."""
    sh(f"systemctl kill --signal=KILL {UNIT}")
    assert ask(token()).startswith("200 ")
    sh(f"systemctl restart {UNIT}")
    assert ask(token()).startswith("200 ")


def settings_with_a_mistake_are_told() -> None:
    """Status 2, with the line; no client triggers the next try."""
    path = Path("/etc/mcp-broker/gateway.toml")
    path.write_text("[gateway]\nlissten = []\n", encoding="utf-8")
    sh(f"systemctl restart {UNIT}", status=1)
    until(lambda: show("ActiveState", SOCKET) == "inactive")
    assert "gateway.lissten (line 2)" in journal()
    path.unlink()
    sh(f"systemctl restart {SOCKET} {UNIT}")
    assert ask(token()).startswith("200 ")
    sh(f"systemctl disable --now {UNIT} {SOCKET}")


CHECKS = (
    it_is_installed_and_not_enabled,
    verify_finds_nothing_in_the_gateways_units,
    the_gateways_exposure_is_smaller,
    it_runs_as_its_own_user_and_serves_who_has_the_token,
    only_its_user_can_read_the_token,
    the_sockets_of_connect_are_for_the_brokers_group,
    a_restart_turns_no_client_away,
    settings_with_a_mistake_are_told,
)
