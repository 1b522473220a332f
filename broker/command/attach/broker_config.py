"""Finds the `broker.toml` of the running broker, changes its servers, and asks the broker to reload."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from broker.command.attach.texts import AttachError, say
from broker.command.importing.files import NewFile, new_text, read_old, servers_there, write
from broker.command.importing.secrets import has_secret_args, secrets_in
from broker.command.importing.shapes import Table
from broker.command.output import echo
from broker.command.serve import SYSTEM_CONFIG, default_config
from broker.command.start_stop import problems_of
from broker.command.texts.chinese import told
from client_shim.blocking import BlockingClient
from client_shim.errors import BrokerError
from client_shim.wire import MANAGEMENT


class BrokerFile(NamedTuple):
    """A `broker.toml`.

    Attributes:
        path: its path.
        text: its text; empty if it does not exist or cannot be read.
        servers: its servers by name, `None` for a definition that cannot be read.
        is_running: whether a broker runs on it.
    """

    path: Path
    text: str
    servers: dict[str, Table | None]
    is_running: bool

    @property
    def is_writable(self) -> bool:
        """Whether this user can replace it."""
        return os.access(self.path.resolve().parent, os.W_OK) and (
            not self.path.exists() or os.access(self.path, os.R_OK)
        )


def find(path: Path | None, endpoint: str | None) -> BrokerFile:
    """Return the named file, else that of the running broker, else the one that `serve` would read.

    Raises:
        AttachError, FileProblem: it is not a `broker.toml`.
    """
    status = _status(endpoint)
    running = None if status is None else Path(status["broker"]["config"])
    path = path or running or default_config() or Path("broker.toml")
    is_running = running is not None and running.resolve() == path.resolve()
    if os.path.exists(path) and os.access(path, os.R_OK):
        text = read_old(path)
        servers: dict[str, Table | None] = {one.name: one.table for one in servers_there(text, path)}
        return BrokerFile(path, text, servers, is_running)
    if status is not None and is_running:
        return BrokerFile(path, "", {one["name"]: None for one in status["servers"]}, is_running)
    if os.path.exists(path) or (path == SYSTEM_CONFIG and path.parent.exists()):
        raise AttachError("attach_unreadable", path=path, problem=os.strerror(13))
    return BrokerFile(path, "", {}, is_running)


def _status(endpoint: str | None) -> dict[str, Any] | None:
    try:
        with BlockingClient(endpoint, reconnect_s=0) as broker:
            status: dict[str, Any] = broker.request(MANAGEMENT, "status")
            return status
    except BrokerError:
        return None


def with_servers(file: BrokerFile, servers: Mapping[str, Table], command: str) -> str:
    """Return the text with these new servers.

    Raises:
        FileProblem: they cannot be added.
    """
    return new_text(file.text, servers, say("attach_header", command=command))


def save(file: BrokerFile, text: str, servers: Mapping[str, Table]) -> None:
    """Write the file, keep the old one as .bak, and name the secrets that it now contains.

    Raises:
        AttachError, FileProblem: the file changed after it was read, or cannot be written.
    """
    if (read_old(file.path) if file.path.exists() else "") != file.text:
        raise AttachError("attach_changed_meanwhile", path=file.path)
    secrets = [f"{name} {key}" for name, table in servers.items() for key in secrets_in(table)]
    secrets += [f"{name} args" for name, table in servers.items() if has_secret_args(table.get("args"))]
    for kept in write(NewFile(file.path, text, access=0o640 if secrets else 0o777)):
        echo(say("attach_backup", path=kept), err=True)
    if secrets:
        echo(say("attach_plain_secrets", path=file.path, names=", ".join(secrets)), err=True, colour="yellow")


def reloaded(file: BrokerFile, endpoint: str | None, names: Mapping[str, object]) -> bool:
    """Reload the broker that runs on this file; return whether it took these servers.

    Without a running broker, say how to start one and return true.
    """
    if not file.is_running:
        echo(say("attach_no_broker", path=file.path), err=True)
        return True
    try:
        with BlockingClient(endpoint, reconnect_s=0) as broker:
            done = broker.request(MANAGEMENT, "reload")
    except BrokerError as error:
        echo(say("reload_failed", problem=error), err=True, colour="red")
        return False
    problems = problems_of(done, names)
    for problem in problems:
        echo(f"  {told(problem)}", err=True, colour="red")
    return not problems
