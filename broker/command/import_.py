"""`mcp-broker import`: a `broker.toml` out of the files that other hosts keep their MCP servers in."""

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

if TYPE_CHECKING:
    from broker.command.importing.entry import Remark
    from broker.command.importing.plan import Imported, Plan, Prefer, Source
    from broker.command.importing.shapes import Table
    from broker.config.schema import ServerConfig

UNIT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH of a systemd unit that sets none: systemd.exec(5), $PATH."""

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
@click.option("--force", is_flag=True, help="Write over the file that is there; it is kept as .bak.")
@click.option("--merge", is_flag=True, help="Add to the file that is there; a copy of it is kept as .bak.")
@click.option(
    "--prefer", type=click.Choice(["first", "last"]), help="Which file counts where two define one server."
)
@click.option(
    "--path",
    "search_path",
    metavar="PATH",
    help="Look the commands up in the PATH that the broker's service has, instead of the current one.",
)
@click.option(
    "--secrets-as-variables",
    is_flag=True,
    help="Write ${NAME} for each secret in env, and tell which variables have to be set.",
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
    Codex, OpenCode, Zed, Continue, Gemini, Goose, LibreChat and others: JSON, which may have comments, TOML
    or YAML. It may also be a piece of one, or lines such as `claude mcp add ...`. Without FILE, or for -,
    standard input is read.
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
        plan = _plan(sources, Here(search_path), there, prefer, secrets_as_variables)
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
    """A text of an import, which no other command pays for."""
    from broker.command.importing import texts

    return texts.say(word, **facts)


class Here:
    """This machine, as a broker would see it that has `path` for its PATH."""

    def __init__(self, path: str | None) -> None:
        self.path = path or os.environ.get("PATH", os.defpath)
        self.service_path = path or UNIT_PATH
        self.home = os.path.expanduser("~")

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return os.path.exists(path)

    def program(self, server: ServerConfig, folder: str) -> str:
        """What the broker would run, found by the broker's own code.

        Raises:
            NotFoundHere: it would not run it.
        """
        from broker.command.importing.entry import NotFoundHere
        from broker.processes.program import SpawnError, program_of

        try:
            return program_of(server, folder=Path(folder), environ={"PATH": self.path})
        except SpawnError as error:
            raise NotFoundHere(str(error)) from None
        except OSError as error:
            raise NotFoundHere(f"{error.filename}: {error.strerror}") from None


def _refuse(output: Path, *, overwrites: bool) -> None:
    """End the command where it would lose a file."""
    if not os.path.exists(output):
        return
    if not os.path.isfile(output):
        fail(say("import_no_file", path=output), USAGE)
    if not overwrites:
        fail(say("import_exists", path=output), USAGE)


def _piped() -> tuple[Path, ...]:
    """Standard input, where something is written to it."""
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
    here: Here,
    there: Sequence[Imported],
    prefer: Prefer | None,
    secrets_as_variables: bool,
) -> Plan:
    from broker.command.importing.plan import Clash, plan

    try:
        return plan(sources, here, existing=there, prefer=prefer, secrets_as_variables=secrets_as_variables)
    except Clash as clash:
        _tell(clash.remarks)
        fail(say("import_refused"), USAGE)


def _finish(output: Path, text: str, servers: Mapping[str, Table], *, dry_run: bool) -> None:
    """Write the text or print it, and tell what its reader has to do now."""
    from broker.command.importing.files import write
    from broker.command.importing.secrets import has_secret_args, secrets_in

    plain = [f"{name} {key}" for name, table in servers.items() for key in secrets_in(table)]
    private = bool(plain) or any(has_secret_args(table.get("args")) for table in servers.values())
    if dry_run:
        echo(text, end=False)
    else:
        kept = write(output, text, private=private)
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
