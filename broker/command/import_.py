"""The command `mcp-broker import`: turns the config files of MCP hosts into a `broker.toml`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.base.secrets import redact
from broker.command.common import BAD, USAGE, fail
from broker.command.output import echo
from broker.command.unit import DEFAULT_PATH

if TYPE_CHECKING:
    from broker.command.importing.conversion import Remark
    from broker.command.importing.plan import Imported, ImportPlan, Prefer, Source
    from broker.command.importing.shapes import Table
    from broker.config.schema import ServerConfig

_COLOURS = {"note": None, "warning": "yellow", "fault": "red"}


@click.command("import")
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default="broker.toml",
    show_default=True,
    help="The file to write.",
)
@click.option("--dry-run", is_flag=True, help="Print the file instead of writing it.")
@click.option("--force", is_flag=True, help="Overwrite an existing file; keep it as .bak.")
@click.option("--merge", is_flag=True, help="Add to an existing file; keep a copy of it as .bak.")
@click.option(
    "--prefer", type=click.Choice(["first", "last"]), help="The file to take if two define the same server."
)
@click.option(
    "--path",
    "search_path",
    metavar="PATH",
    help="Look commands up in this PATH, that of the broker's service, instead of the current one.",
)
@click.option(
    "--secrets-as-variables",
    is_flag=True,
    help="Write ${NAME} for each secret in env, and list the variables to set.",
)
def import_(
    files: tuple[Path, ...],
    output: Path,
    dry_run: bool,
    force: bool,
    merge: bool,
    prefer: Prefer | None,
    search_path: str | None,
    secrets_as_variables: bool,
) -> None:
    """Turn the servers of other hosts' files into a broker.toml.

    FILE is mcp_servers.json of Open-LLM-VTuber, or the file of Claude, Cursor, VS Code, Windsurf, Cline,
    Codex, OpenCode, Zed, Continue, Gemini, Goose, LibreChat and others: JSON (comments are allowed), TOML or
    YAML. It may also be a fragment, or lines such as `claude mcp add ...`. Without FILE, or for -, standard
    input is read.
    """
    from broker.command.importing.files import new_text, read_old, servers_there
    from broker.command.importing.reading import FileProblem

    if force and merge:
        fail(say("import_force_or_merge"), USAGE)
    try:
        sources = _sources(files or _piped())
        _refuse(output, overwrites=dry_run or force or merge)
        old = read_old(output) if merge and os.path.exists(output) else ""
        there = servers_there(old, output)
        plan = _plan(sources, LocalMachine(search_path), there, prefer, secrets_as_variables)
        _tell(plan.remarks)
        if plan.servers:
            header = say("import_header", files=", ".join(map(str, files or ["<stdin>"])))
            _finish(output, new_text(old, plan.servers, header), plan.servers, dry_run=dry_run)
        else:
            echo(say("import_nothing", path=output), err=True)
    except FileProblem as problem:
        fail(str(problem), USAGE)
    nothing = not plan.servers and not there
    if nothing or any(remark.level == "fault" for remark in plan.remarks):
        sys.exit(BAD)


def say(word: str, **facts: object) -> str:
    """Return a text of `importing.texts`, which other commands do not import."""
    from broker.command.importing import texts

    return texts.say(word, **facts)


class LocalMachine:
    """This machine, as seen by a broker with this PATH."""

    def __init__(self, path: str | None) -> None:
        self.path = path or os.environ.get("PATH", os.defpath)
        self.service_path = path or DEFAULT_PATH
        self.home = os.path.expanduser("~")

    def exists(self, path: str) -> bool:
        """Return whether this file or folder exists."""
        return os.path.exists(path)

    def program(self, server: ServerConfig, folder: str) -> str:
        """Return the program that the broker would run, found by the broker's own code.

        Raises:
            NotFoundHere: the broker could not start it.
        """
        from broker.command.importing.conversion import NotFoundHere
        from broker.processes.program import SpawnError, program_of

        try:
            return program_of(server, folder=Path(folder), environ={"PATH": self.path})
        except SpawnError as error:
            raise NotFoundHere(str(error)) from None
        except OSError as error:
            raise NotFoundHere(f"{error.filename}: {error.strerror}") from None


def _refuse(output: Path, *, overwrites: bool) -> None:
    """End the command if it would overwrite a file without being told to."""
    if not os.path.exists(output):
        return
    if not os.path.isfile(output):
        fail(say("import_no_file", path=output), USAGE)
    if not overwrites:
        fail(say("import_exists", path=output), USAGE)


def _piped() -> tuple[Path, ...]:
    """Return standard input as the file, unless it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        fail(say("import_no_input"), USAGE)
    return (Path("-"),)


def _sources(files: Iterable[Path]) -> list[Source]:
    from broker.command.importing.files import read_source

    sources = []
    for file in files:
        source, twice = read_source(file)
        sources.append(source)
        if twice:
            _echo("warning", say("import_twice", path=file, keys=", ".join(twice)))
    return sources


def _plan(
    sources: Sequence[Source],
    here: LocalMachine,
    there: Sequence[Imported],
    prefer: Prefer | None,
    secrets_as_variables: bool,
) -> ImportPlan:
    from broker.command.importing.plan import Clash, plan

    try:
        return plan(sources, here, existing=there, prefer=prefer, secrets_as_variables=secrets_as_variables)
    except Clash as clash:
        _tell(clash.remarks)
        fail(say("import_refused"), USAGE)


def _finish(output: Path, text: str, servers: Mapping[str, Table], *, dry_run: bool) -> None:
    """Write or print the text, then say what to do next."""
    from broker.command.importing.files import write
    from broker.command.importing.secrets import has_secret_args, secrets_in

    plain = [f"{name} {key}" for name, table in servers.items() for key in secrets_in(table)]
    private = bool(plain) or any(has_secret_args(table.get("args")) for table in servers.values())
    if dry_run:
        echo(text, end=False)
    else:
        kept = write(output, text, access=0o600 if private else 0o777)
        if kept:
            _echo("note", say("import_kept", path=kept))
        _echo("note", say("import_written", path=output, count=len(servers)))
        if private:
            _echo("warning", say("import_private_file", path=output))
    if plain:
        _echo("warning", say("import_secrets", names=", ".join(plain)))
    _tell_variables(servers)


def _tell_variables(servers: Mapping[str, Table]) -> None:
    from broker.command.importing.secrets import variables_of

    users: dict[str, list[str]] = {}
    for name, table in servers.items():
        for variable in dict.fromkeys(variables_of(table)):
            users.setdefault(variable, []).append(name)
    if users:
        names = ", ".join(f"{variable} ({', '.join(names)})" for variable, names in sorted(users.items()))
        _echo("warning", say("import_variables", names=names))


def _tell(remarks: Iterable[Remark]) -> None:
    for remark in remarks:
        _echo(remark.level, say(remark.word, **remark.facts))


def _echo(level: str, text: str) -> None:
    echo(redact(text), err=True, colour=_COLOURS[level])
