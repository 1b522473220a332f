"""Checks of the units for a user's own service manager, under one."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.e2e.harness import toml
from tests.systemd.host import ROGUE, processes_of, sh, until

USER = "someone"
MANAGER = "manager-of-someone"


def _as_them(command: str, *, status: int | None = 0) -> str:
    """The output of a command of that user, in a session with a manager of its own."""
    uid = sh(f"id -u {USER}").strip()
    session = f"env -C / HOME=/home/{USER} XDG_RUNTIME_DIR=/run/user/{uid} sh -c {shlex.quote(command)}"
    return sh(f"setpriv --reuid={USER} --regid={USER} --init-groups {session}", status=status)


def _told(name: str = "StatusText", unit: str = "mcp-broker.service") -> str:
    """A property of one of that user's units."""
    return _as_them(f"systemctl --user show --property {name} --value {unit}").strip()


def _log_in() -> Path:
    """What a login does: the folder for what runs, and the manager; gives the folder."""
    sh(f"useradd --create-home --shell /bin/sh {USER}")
    runtime = Path("/run/user", sh(f"id -u {USER}").strip())
    runtime.mkdir(parents=True)
    sh(f"chown {USER}: {runtime} && chmod 700 {runtime}")
    systemd = next(
        path for path in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(path).exists()
    )
    settings = f"--property=Delegate=yes --setenv=XDG_RUNTIME_DIR={runtime} --setenv=HOME=/home/{USER}"
    sh(f"systemd-run --quiet --unit={MANAGER} --uid={USER} {settings} {systemd} --user")
    until((runtime / "systemd/private").exists, lambda: sh(f"systemctl status {MANAGER}", status=None))
    return runtime


def a_user_runs_one_too() -> None:
    """The same files as templates for a user service: enabled, started, reloaded, stopped by a user."""
    runtime = _log_in()
    folder = Path(f"/home/{USER}/.config/mcp-broker")
    sh(f"install -d -o {USER} -g {USER} {folder.parent} {folder}")
    config = folder / "broker.toml"
    config.write_text(toml({"servers.mine": ROGUE}), encoding="utf-8")
    _as_them("systemctl --user enable --now mcp-broker.socket mcp-broker.service")
    until(lambda: _told() == "1 of 1 servers ready", _told)
    socket = runtime / "mcp-broker/broker.sock"
    assert socket.stat().st_mode & 0o777 == 0o600
    assert "mine" in _as_them(f"mcp-broker status --endpoint ipc://{socket}")
    config.write_text(toml({"servers.mine": ROGUE, "servers.more": ROGUE}), encoding="utf-8")
    _as_them("systemctl --user reload mcp-broker")
    until(lambda: _told() == "2 of 2 servers ready", _told)
    config.write_text('[servers.mine]\ncomand = "typo"\n', encoding="utf-8")
    _as_them("systemctl --user restart mcp-broker", status=1)
    until(lambda: _told("ActiveState", "mcp-broker.socket") == "inactive", _told)
    assert "servers.mine.comand" in _told()
    sh(f"systemctl stop {MANAGER}")
    assert processes_of(USER) == []


CHECKS = (a_user_runs_one_too,)
