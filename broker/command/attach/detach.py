"""The command `mcp-broker detach`. It imports its modules when it runs, because every command imports it."""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.command.attach.command import (
    check_known,
    config_option,
    dry_run_option,
    server_option,
    usage_errors,
)
from broker.command.common import BAD
from broker.command.output import echo

if TYPE_CHECKING:
    from broker.command.attach.files import HostFile
    from broker.command.attach.hosts import Host
    from broker.command.attach.ledger import Ledger, Record
    from broker.command.importing.shapes import Table


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@config_option
@server_option
@dry_run_option
@click.option(
    "--force", is_flag=True, help="Restore entries that run another command by now or were removed, too."
)
def detach(
    hosts: tuple[str, ...], config: Path | None, named: tuple[str, ...], dry_run: bool, force: bool
) -> None:
    """Restore the entries that `attach` replaced.

    Each entry becomes what it was. What you changed since stays: keys that you edited keep your values, and
    entries that you removed or changed to run something else are named and left alone. Without HOST, all
    attached hosts. The servers stay in broker.toml.
    """
    from broker.command.attach.hosts import BY_NAME
    from broker.command.attach.ledger import ledger
    from broker.command.attach.texts import say

    with usage_errors(), ledger(os.environ, make=not dry_run) as kept:
        check_known(hosts)
        real = None if config is None else os.path.realpath(config)
        files = {
            path: file
            for path, file in kept.files.items()
            if (not hosts or file.host in hosts) and real in (None, path)
        }
        if not files:
            echo(say("detach_nothing"), err=True)
        is_good = True
        for path, file in files.items():
            records = {name: one for name, one in file.entries.items() if not named or name in named}
            is_good &= _detach(BY_NAME[file.host], Path(path), records, kept, dry_run=dry_run, force=force)
        if dry_run:
            echo(say("attach_dry"), err=True)
        elif files:
            echo(say("detach_stay"), err=True)
    if not is_good:
        sys.exit(BAD)


def _detach(
    host: Host, path: Path, records: Mapping[str, Record], kept: Ledger, *, dry_run: bool, force: bool
) -> bool:
    """Restore the entries of one file; return whether all could be restored."""
    from broker.command.attach.files import read
    from broker.command.attach.plan import parsed
    from broker.command.attach.restore import restored
    from broker.command.attach.show import mask_of, show_entry
    from broker.command.attach.texts import say

    if not path.exists():
        echo(say("detach_no_file", path=path, ledger=kept.path), err=True, colour="yellow")
        return False
    file = read(path)
    document = parsed(host, file.text, path)
    result = restored(host, document, records, force=force)
    new = parsed(host, result.text, path)
    mask = mask_of(result.values.values())
    for name in result.values:
        before = document.text[document.places[name]] if name in document.places else ""
        show_entry(path, name, before, new.text[new.places[name]], mask)
    for name, keys in result.edited.items():
        echo(say("detach_edited", name=name, keys=keys), err=True)
    for name, keys in result.dropped.items():
        echo(say("detach_dropped", name=name, keys=keys), err=True, colour="yellow")
    for name in result.changed:
        echo(say("detach_changed", name=name), err=True, colour="yellow")
    for name in result.missing:
        echo(say("detach_missing", name=name, path=path, ledger=kept.path), err=True, colour="yellow")
    if not dry_run:
        if result.values:
            _restore(host, file, result.text, result.values, document.places)
            names = ", ".join(result.values)
            echo(say("detach_done", host=host.title, count=len(result.values), names=names))
        if result.finished:
            kept.remove(path, result.finished)
    return not (result.changed or result.missing)


def _restore(
    host: Host, file: HostFile, text: str, values: Mapping[str, Table], existing: Container[str]
) -> None:
    """Write one host's file; with the host's own command, if no secret would show in the process list."""
    from broker.command.attach import claude_code
    from broker.command.attach.files import replace
    from broker.command.attach.texts import say
    from broker.command.importing.secrets import has_secret_args, secrets_in

    is_own = host.name == "claude-code" and _is_default(host, file.real)
    program = claude_code.command() if is_own else None
    has_secrets = any(secrets_in(value) or has_secret_args(value.get("args")) for value in values.values())
    if program is not None and not has_secrets:
        claude_code.replace(program, values, existing)
        return
    echo(say("attach_backup", path=replace(file, text)), err=True)
    if program is not None:
        echo(say("detach_restart", path=file.path), err=True, colour="yellow")


def _is_default(host: Host, real: Path) -> bool:
    from broker.command.attach.hosts import paths_of

    return any(os.path.realpath(path) == str(real) for path in paths_of(host, os.environ))
