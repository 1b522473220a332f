"""The command `mcp-broker attach`. It imports its modules when it runs, because every command imports it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.command.common import BAD, USAGE, endpoint_option, fail
from broker.command.output import echo

if TYPE_CHECKING:
    from broker.command.attach.files import HostFile
    from broker.command.attach.hosts import Host
    from broker.command.attach.ledger import Ledger, Record
    from broker.command.attach.show import Attachment
    from broker.command.importing.shapes import Table

HTTP_ADDRESS = "http://127.0.0.1:8420"
"""Where the gateway listens without settings."""

config_option = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The host's file. Default: where the host keeps it.",
)
server_option = click.option(
    "--server", "named", metavar="NAME", multiple=True, help="Only this server. May be given several times."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@config_option
@server_option
@click.option(
    "--http",
    metavar="URL",
    is_flag=False,
    flag_value=HTTP_ADDRESS,
    help=f"Write the address of the gateway instead of a command. Default: {HTTP_ADDRESS}.",
)
@click.option(
    "--broker-config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The broker.toml to add the servers to. Default: that of the running broker.",
)
@endpoint_option
@dry_run_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def attach(
    hosts: tuple[str, ...],
    config: Path | None,
    named: tuple[str, ...],
    http: str | None,
    broker_config: Path | None,
    endpoint: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Put the servers of MCP hosts behind the broker.

    HOST is claude-code, claude-desktop, cursor, vscode, windsurf, gemini, codex, opencode or zed; without it,
    the hosts found here. Their stdio servers are added to broker.toml, and each entry is replaced with
    `mcp-broker connect NAME`. Servers of one project or one session stay as they are, unless --server names
    them. `mcp-broker detach` restores every entry.
    """
    from broker.command.attach.broker_config import find, reloaded, save, with_servers
    from broker.command.attach.ledger import ledger
    from broker.command.attach.show import show_config, show_plan
    from broker.command.attach.texts import AttachError, say

    with usage_errors():
        if http and not http.startswith(("http://", "https://")):
            raise AttachError("attach_not_a_url", url=http)
        chosen = _chosen(hosts, config, yes=yes or dry_run)
        broker = find(broker_config, endpoint)
        existing = dict(broker.servers)
        tables: dict[str, Table] = {}
        attachments: list[Attachment] = []
        for host, path in chosen:
            if http and host.http is None and not hosts:
                echo(say("attach_no_http", host=host.title), err=True)
                continue
            attachments.append(_planned(host, path, existing, named, http, endpoint))
            new = attachments[-1].plan.tables
            existing.update(new)
            tables.update(new)
        text = with_servers(broker, tables, "attach") if tables else broker.text
        show_config(broker.path, broker.text, text, tables)
        for one in attachments:
            show_plan(one)
        if dry_run:
            echo(say("attach_dry"), err=True)
            return
        if tables:
            if not broker.is_writable:
                fail(say("attach_not_yours", path=broker.path, host=chosen[0][1]), USAGE)
            save(broker, text, tables)
            if not reloaded(broker, endpoint, tables):
                fail(say("attach_left_out"), BAD)
        with ledger(os.environ) as kept:
            for one in attachments:
                if one.plan.records:
                    _attach(one, kept, is_own_file=config is None)
        if http:
            from broker.command.attach.hosts import HTTP_TOKEN

            echo(say("attach_token", variable=HTTP_TOKEN), err=True)


def _planned(
    host: Host,
    path: Path,
    existing: Mapping[str, Table | None],
    named: tuple[str, ...],
    http: str | None,
    endpoint: str | None,
) -> Attachment:
    from broker.command.attach.files import read
    from broker.command.attach.hosts import ENDPOINT, connecting, with_address
    from broker.command.attach.plan import CONNECT, attached, parsed
    from broker.command.attach.show import Attachment
    from broker.command.attach.texts import AttachError
    from broker.command.import_ import LocalMachine

    if http and host.http is None:
        raise AttachError("attach_no_http", host=host.title)

    address = endpoint or os.environ.get(ENDPOINT)  # the host is started elsewhere, without this variable
    options = ["--endpoint", address] if address else []

    def entry_for(entry: Table, server: str) -> Table:
        if http:
            from urllib.parse import quote

            return with_address(host, entry, f"{http.rstrip('/')}/mcp/{quote(server)}")
        return connecting(host, entry, [own_command(), CONNECT, server, *options])

    file = read(path)
    document = parsed(host, file.text, path)
    plan = attached(
        host,
        document,
        path.absolute(),
        LocalMachine(None),
        existing=existing,
        entry_for=entry_for,
        named=named,
    )
    return Attachment(host, file, document, plan)


def own_command() -> str:
    """Return the absolute path of this command, as it is installed."""
    called = os.path.abspath(sys.argv[0])
    beside = os.path.join(os.path.dirname(sys.executable), "mcp-broker")
    candidates = [called if os.path.basename(called) == "mcp-broker" else "", beside]
    found = next((path for path in candidates if path and os.access(path, os.X_OK)), None)
    return found or shutil.which("mcp-broker") or "mcp-broker"


def _attach(one: Attachment, kept: Ledger, *, is_own_file: bool) -> None:
    """Write one host's file, or let the host's own command do it."""
    from broker.command.attach import claude_code
    from broker.command.attach.files import check_unchanged, replace
    from broker.command.attach.texts import say

    host, file, _, plan = one
    check_unchanged(file)  # another `attach` may have been first, and its records are to stay
    kept.put(file.real, host.name, plan.records)
    program = claude_code.command() if is_own_file and host.name == "claude-code" else None
    if program is None:
        echo(say("attach_backup", path=replace(file, plan.text)), err=True)
    else:
        echo(say("attach_by_claude", path=file.path, program=program), err=True)
        new = {name: record.after for name, record in plan.records.items()}
        claude_code.replace(program, new, existing=new)
        _take_over(host, file, plan.records, kept)
    names = ", ".join(plan.records)
    echo(say("attach_done", host=host.title, count=len(plan.records), names=names))


def _take_over(host: Host, file: HostFile, records: Mapping[str, Record], kept: Ledger) -> None:
    """Record the entries as the host's command has written them: it may add keys."""
    from msgspec.structs import replace as changed

    from broker.command.attach.files import read
    from broker.command.attach.plan import entries_of, parsed
    from broker.command.attach.texts import AttachError

    entries = entries_of(parsed(host, read(file.path).text, file.path))
    for name, record in records.items():
        entry = entries.get(name)
        if not isinstance(entry, dict) or any(entry.get(key) != value for key, value in record.after.items()):
            raise AttachError("attach_claude", entry=name, problem="its entry is missing or different")
    kept.put(file.real, host.name, {name: changed(one, after=entries[name]) for name, one in records.items()})


# --- the hosts -------------------------------------------------------------------------------------------


def _chosen(hosts: tuple[str, ...], config: Path | None, *, yes: bool) -> list[tuple[Host, Path]]:
    """Return the hosts to attach with their files: the named ones, else those found, after a question."""
    from broker.command.attach.hosts import BY_NAME, HOSTS, paths_of
    from broker.command.attach.texts import AttachError, say

    check_known(hosts)
    if config is not None:
        if len(hosts) != 1:
            raise AttachError("attach_one_host")
        return [(BY_NAME[hosts[0]], config)]
    chosen = []
    for host in map(BY_NAME.__getitem__, hosts) if hosts else HOSTS:
        paths = list(paths_of(host, os.environ))
        found = next((path for path in paths if os.path.exists(path)), None)
        if found is not None:
            chosen.append((host, found))
        elif hosts:
            raise AttachError("attach_no_file", host=host.title, path=paths[-1])
    if not chosen:
        raise AttachError("attach_none_found")
    if not hosts:
        echo(say("attach_found", hosts=", ".join(f"{host.name} ({path})" for host, path in chosen)), err=True)
        if not yes:
            if not is_interactive():
                raise AttachError("attach_name_them")
            click.confirm(say("attach_question"), abort=True, err=True)
    return chosen


def is_interactive() -> bool:
    """Return whether a question can be answered."""
    return sys.stdin is not None and sys.stdin.isatty()


def check_known(hosts: tuple[str, ...]) -> None:
    from broker.command.attach.hosts import BY_NAME
    from broker.command.attach.texts import AttachError

    for host in hosts:
        if host not in BY_NAME:
            raise AttachError("attach_unknown_host", host=host, hosts=", ".join(BY_NAME))


@contextmanager
def usage_errors() -> Iterator[None]:
    """End the command with the message of an error in a file."""
    from broker.command.attach.texts import AttachError
    from broker.command.importing.reading import FileProblem

    try:
        yield
    except (AttachError, FileProblem) as error:
        fail(str(error), USAGE)
