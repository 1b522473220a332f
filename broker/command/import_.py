"""The command `mcp-broker import`: turns the config files of MCP hosts into a `broker.toml`."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.base.secrets import redact
from broker.command.common import BAD, USAGE, fail
from broker.command.output import echo
from broker.command.serve import SYSTEM_CONFIG
from broker.command.unit import SERVICE_PATH, installed

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
    help="The file to write. Default: broker.toml.",
)
@click.option(
    "--service",
    "for_service",
    is_flag=True,
    help=f"Write {SYSTEM_CONFIG}, and the secrets into the file environment beside it. As root. "
    "Implied by its path as --output.",
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
    output: Path | None,
    for_service: bool,
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
    from broker.command.importing import service_files
    from broker.command.importing.files import new_text, read_old, servers_there
    from broker.command.importing.reading import FileProblem

    if force and merge:
        fail(say("import_force_or_merge"), USAGE)
    for_service = for_service or output == SYSTEM_CONFIG
    output = output or (SYSTEM_CONFIG if for_service else Path("broker.toml"))
    if for_service:
        search_path = search_path or service_files.search_path()
    try:
        known = service_files.variables_there(output) if for_service else {}
        sources = _sources(files or _piped())
        replaces = dry_run or force or merge or (for_service and service_files.is_default(output))
        _refuse(output, overwrites=replaces)
        old = read_old(output) if merge and os.path.exists(output) else ""
        there = servers_there(old, output)
        plan = _plan(
            sources, LocalMachine(search_path), there, prefer, for_service or secrets_as_variables, known
        )
        _tell(plan.remarks)
        names = ", ".join(map(str, files or ["<stdin>"]))
        text = new_text(old, plan.servers, say("import_header", files=names)) if plan.servers else None
        if dry_run:
            echo(text or "", end=False)
        elif for_service:
            _write_service(output, text, plan, names)
        elif text is not None:
            _write(output, text, plan)
        if text is None:
            echo(say("import_nothing", path=output), err=True)
        elif dry_run or not for_service:
            _tell_secrets(plan)
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
        self.service_path = path or SERVICE_PATH
        self.home = _home()

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


def _home() -> str:
    """Return the home folder of the user who runs the command, also of the one who runs it with sudo."""
    home = os.path.expanduser("~")
    with suppress(KeyError):  # the user is unknown here
        if home == pwd.getpwuid(0).pw_dir:
            home = pwd.getpwnam(os.environ.get("SUDO_USER", "root")).pw_dir
    return home


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
            _echo("warning", say("import_twice", path=file, keys=twice))
    return sources


def _plan(
    sources: Sequence[Source],
    here: LocalMachine,
    there: Sequence[Imported],
    prefer: Prefer | None,
    secrets_as_variables: bool,
    known: Mapping[str, str],
) -> ImportPlan:
    from broker.command.importing.plan import Clash, plan

    try:
        return plan(
            sources,
            here,
            existing=there,
            prefer=prefer,
            secrets_as_variables=secrets_as_variables,
            known=known,
        )
    except Clash as clash:
        _tell(clash.remarks)
        fail(say("import_refused"), USAGE)


def _write(output: Path, text: str, plan: ImportPlan) -> None:
    """Write the file, and say what to do next."""
    from broker.command.importing.files import NewFile, write

    private = _has_secrets(plan.servers.values())
    _tell_written(
        output, write(NewFile(output, text, access=0o600 if private else 0o777)), plan, "import_written"
    )
    if private:
        _echo("warning", say("import_private_file", path=output))


def _write_service(output: Path, text: str | None, plan: ImportPlan, files: str) -> None:
    """Write the files of the service, and say what to do next."""
    from broker.command.importing import service_files

    variables = plan.variables
    if text is None and not variables.new and not variables.changed:
        return
    kept = service_files.write(output, text, variables.new)
    facts = {"path": service_files.variables_file(output), "files": files}
    if variables.new:
        _echo("note", say("import_service_secrets", names=[*variables.new], **facts))
    if variables.changed:
        _echo("warning", say("import_service_differ", names=variables.changed, **facts))
    if variables.missing:
        _echo("warning", say("import_service_variables", names=_with_users(plan, variables.missing), **facts))
    if text is not None:
        _tell_written(
            output, kept, plan, "import_service_written" if installed() else "import_service_absent"
        )


def _tell_written(output: Path, kept: Iterable[Path], plan: ImportPlan, word: str) -> None:
    for path in kept:
        _echo("note", say("import_kept", path=path))
    _echo("note", say(word, path=output, count=len(plan.servers)))


def _has_secrets(tables: Iterable[Table]) -> bool:
    from broker.command.importing.secrets import has_secret_args, secrets_in

    return any(secrets_in(table) or has_secret_args(table.get("args")) for table in tables)


def _tell_secrets(plan: ImportPlan) -> None:
    """Tell which secrets are in the file, and which variables it needs."""
    from broker.command.importing.secrets import secrets_in

    plain = [f"{name} {key}" for name, table in plan.servers.items() for key in secrets_in(table)]
    if plain:
        _echo("warning", say("import_secrets", names=plain))
    if names := _with_users(plan, sorted(plan.variables.users)):
        _echo("warning", say("import_variables", names=names))


def _with_users(plan: ImportPlan, names: Iterable[str]) -> list[str]:
    """Return these variables, each with the names of its servers behind it."""
    return [say("import_variable", name=name, servers=plan.variables.users[name]) for name in names]


def _tell(remarks: Iterable[Remark]) -> None:
    for remark in remarks:
        _echo(remark.level, say(remark.word, **remark.facts))


def _echo(level: str, text: str) -> None:
    echo(redact(text), err=True, colour=_COLOURS[level])
