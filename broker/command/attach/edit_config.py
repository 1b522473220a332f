"""The commands `mcp-broker add` and `mcp-broker remove`: one server into or out of `broker.toml`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shutil import which

import click

from broker.command.attach.command import dry_run_option, usage_errors
from broker.command.common import BAD, USAGE, endpoint_option, fail
from broker.command.output import echo

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The broker.toml. Default: that of the running broker.",
)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]...")
@click.option("--env", "-e", "pairs", multiple=True, metavar="NAME=VALUE", help="A variable of the server.")
@click.option("--cwd", metavar="FOLDER", help="The working directory of the server.")
@config_option
@endpoint_option
@dry_run_option
def add(
    name: str,
    command: tuple[str, ...],
    pairs: tuple[str, ...],
    cwd: str | None,
    path: Path | None,
    endpoint: str | None,
    dry_run: bool,
) -> None:
    """Add a server to broker.toml and reload the running broker.

    NAME is the server's name. COMMAND and its arguments follow --.
    """
    from broker.command.attach.broker_config import find, reloaded, save, with_servers
    from broker.command.attach.show import show_config
    from broker.command.attach.texts import AttachError, say
    from broker.config.names import MEND, normal, why_not

    name = normal(name)
    if problem := why_not(name):
        fail(say("add_bad_name", name=name, problem=problem, mend=MEND), USAGE)
    env = dict(_pair(pair) for pair in pairs)
    program, *args = command
    table: dict[str, object] = {"command": program}
    table |= {key: value for key, value in (("args", args), ("env", env), ("cwd", cwd)) if value}
    with usage_errors():
        file = find(path, endpoint)
        if name in file.servers:
            raise AttachError("add_exists", path=file.path, name=name)
        text = with_servers(file, {name: table}, "add")
        show_config(file.path, file.text, text, {name: table})
        if dry_run:
            echo(say("attach_dry"), err=True)
            return
        save(file, text, {name: table})
        echo(say("add_done", name=name, path=file.path))
        if "/" not in program and which(program) is None:  # the broker's own PATH may be another
            echo(say("add_not_found", name=name, command=program), err=True, colour="yellow")
        if not reloaded(file, endpoint, {name: table}):
            sys.exit(BAD)


def _pair(pair: str) -> tuple[str, str]:
    from broker.command.attach.texts import say

    name, equals, value = pair.partition("=")
    if not (name and equals):
        fail(say("add_bad_env", pair=name), USAGE)
    return name, value


@click.command()
@click.argument("name")
@config_option
@endpoint_option
@dry_run_option
@click.option("--force", is_flag=True, help="Remove a server that attached hosts use, too.")
def remove(name: str, path: Path | None, endpoint: str | None, dry_run: bool, force: bool) -> None:
    """Remove a server from broker.toml and reload the running broker.

    The other servers, and the comments outside of its table, stay as they are.
    """
    from broker.command.attach.broker_config import find, reloaded, save
    from broker.command.attach.show import show_config
    from broker.command.attach.texts import AttachError, say
    from broker.config.names import normal

    name = normal(name)
    with usage_errors():
        file = find(path, endpoint)
        if name not in file.servers:
            raise AttachError("remove_unknown", path=file.path, name=name)
        if not force and (hosts := _users(name)):
            raise AttachError("remove_attached", name=name, hosts=", ".join(hosts))
        text = _without(file.text, name, file.path)
        show_config(file.path, file.text, text, {name: file.servers[name] or {}})
        if dry_run:
            echo(say("attach_dry"), err=True)
            return
        save(file, text, {})
        echo(say("remove_done", name=name, path=file.path))
        if not reloaded(file, endpoint, {}):
            sys.exit(BAD)


def _users(name: str) -> list[str]:
    """Return the attached hosts that use this server."""
    from broker.command.attach.ledger import ledger

    with ledger(os.environ, make=False) as kept:
        files = kept.files.values()
        return [file.host for file in files if any(one.server == name for one in file.entries.values())]


def _without(text: str, name: str, path: Path) -> str:
    """Return the text without the tables of this server.

    Raises:
        AttachError: it is not written in tables of its own.
    """
    import tomli

    from broker.command.attach.texts import AttachError
    from broker.command.attach.toml_edit import tables

    cut = text
    for table in reversed([one for one in tables(text) if one.path[:2] == ("servers", name)]):
        begin = cut.rfind("\n", 0, table.start) + 1
        rest = cut[table.end :].lstrip(" \t")
        rest = rest.removeprefix("\r").removeprefix("\n")
        blank = rest.lstrip("\r\n") if cut[:begin].endswith(("\n\n", "\n\r\n")) or not begin else rest
        cut = cut[:begin] + blank
    expected = tomli.loads(text)
    del expected["servers"][name]
    found = tomli.loads(cut)
    found.setdefault("servers", {})
    if found != expected:
        raise AttachError("remove_not_cut", name=name, path=path)
    return cut
