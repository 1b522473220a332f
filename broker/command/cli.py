"""The command `mcp-broker`: each subcommand but `serve` and `check` is a client of the running broker."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from broker import __version__
from broker.base.secrets import redact
from broker.command import status as overview
from broker.command.common import (
    ASK_S,
    BAD,
    RECONNECT_S,
    USAGE,
    GiveUp,
    client,
    endpoint_option,
    fail,
    json_option,
    tools_of,
    tools_of_all,
)
from broker.command.control import reload, restart, start, stop
from broker.command.doctor.command import doctor
from broker.command.import_ import import_
from broker.command.output import Line, echo, echo_json
from broker.command.words import say
from client_shim.blocking import BlockingClient
from client_shim.errors import CallError, MethodRefused, Unavailable
from client_shim.text import truth
from client_shim.wire import MANAGEMENT

if TYPE_CHECKING:
    from broker.config.schema import Config

logger = logging.getLogger("mcp-broker")

SYSTEM_CONFIG = Path("/etc/mcp-broker/broker.toml")

WATCH_S = 1.0

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, readable=False),  # what is wrong with it, its reader says
    help=f"The config file; without it ./broker.toml, else {SYSTEM_CONFIG}.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcp-broker")
def cli() -> None:
    """One process per MCP server, shared by every client."""


@cli.command()
@config_option
@click.option("--endpoint", metavar="ADDRESS", help="Listen here instead of where the config says.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least level that is logged.",
)
@click.option(
    "--log-format",
    "log_form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people, or JSON objects for programs.",
)
def serve(path: Path | None, endpoint: str | None, log_level: str, log_form: Literal["text", "json"]) -> None:
    """Run the broker in the foreground until SIGTERM or Ctrl-C."""
    from broker import daemon
    from broker.config.loading import ConfigError
    from broker.service import logging as logs
    from broker.service.claims import ClaimError
    from broker.service.systemd import ServiceManager

    journal = logs.under_journal(os.environ)
    logs.set_up(log_level, log_form, journal=journal)
    manager = ServiceManager.of(os.environ)

    def give_up(message: str, status: int) -> NoReturn:
        manager.status(message)
        (_log_failure if journal or log_form == "json" else fail)(message, status)

    path = _config_path(path, give_up)
    config = _read_config(path, give_up)
    try:
        daemon.run(config, path, endpoint, manager)
    except ConfigError as error:
        give_up(str(error), USAGE)
    except ClaimError as error:
        give_up(str(error), BAD)
    except Exception:
        logger.exception("broker.crashed")
        sys.exit(BAD)


@cli.command()
@config_option
@click.option(
    "--service",
    "as_service",
    is_flag=True,
    help=f"As the installed service would: with its PATH, variables and user. So is {SYSTEM_CONFIG} anyway.",
)
def check(path: Path | None, as_service: bool) -> None:
    """Check the config, and that every server's command can be found and run."""
    from broker.command import check as checking
    from broker.command import unit
    from broker.processes.environment import mask_of

    path = SYSTEM_CONFIG if as_service and path is None else _config_path(path)
    service = unit.installed() if as_service or path == SYSTEM_CONFIG else None
    if service is not None:
        environ = service.environ
        echo(say("check_as", unit=service.path, user=service.user.name, path=environ.get("PATH")))
    elif as_service:
        fail(say("check_no_unit", unit=unit.NAME), USAGE)
    else:
        environ = dict(os.environ)
    config = _read_config(path, environ=environ)
    bad, mask = 0, mask_of(config.servers.values(), environ)
    for finding in checking.findings(path, config, environ, service):
        bad += finding.bad
        echo(mask(finding.text), colour="red" if finding.bad else None)
    word = "config_missing" if bad else "config_fine"
    echo(say(word, path=path, missing=bad, count=len(config.servers)))
    sys.exit(BAD if bad else 0)


@cli.command()
@endpoint_option
@json_option
@click.option(
    "--watch", is_flag=True, help="Draw it again every second, until Ctrl-C; with --json an object a line."
)
def status(endpoint: str | None, as_json: bool, watch: bool) -> None:
    """Show the broker and its servers. Exit status 1 if an enabled server is not ready."""
    if watch:
        _watch(endpoint, as_json=as_json)
        return
    with client(endpoint) as broker:
        seen = broker.request(MANAGEMENT, "status")
    if as_json:
        echo_json(seen)
    else:
        overview.show(overview.status(seen))
    if any(server["state"] not in ("ready", "disabled") for server in seen["servers"]):
        sys.exit(BAD)


@cli.command()
@click.argument("server", required=False)
@endpoint_option
@json_option
def tools(server: str | None, endpoint: str | None, as_json: bool) -> None:
    """List the tools of one SERVER, or of all that are ready. Exit status 1 if a list cannot be had."""
    failed: dict[str, CallError] = {}
    with client(endpoint, RECONNECT_S) as broker:
        if server is not None:
            found = {server: tools_of(broker, server)}
        else:
            known = broker.request(MANAGEMENT, "servers")["servers"]
            names = [one["name"] for one in known if one["protocol"] is not None]
            found = tools_of_all(broker, names, failed)
    if as_json:
        echo_json(found)
    else:
        if not found and not failed:
            echo(say("no_lists"), err=True)
        for name, listed in found.items():
            overview.show(overview.tools(name, listed))
    for name, error in failed.items():
        echo(redact(say("last_error", server=name, error=error)), err=True)
    if not all(isinstance(error, MethodRefused) for error in failed.values()):  # that one offers no tools
        sys.exit(BAD)


def _finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not in the range x>0.")
    return value


@cli.command()
@click.argument("server")
@click.argument("tool")
@click.argument("arguments", default="{}")
@endpoint_option
@json_option
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    metavar="SECONDS",
    help="How long the call may take.",
)
def call(
    server: str, tool: str, arguments: str, endpoint: str | None, as_json: bool, timeout_s: float | None
) -> None:
    """Call a TOOL of a SERVER with ARGUMENTS, a JSON object, and print its result."""
    params = {"name": tool, "arguments": _json_object(arguments)}
    with client(endpoint, RECONNECT_S) as broker:
        result = broker.request(
            server, "tools/call", params, timeout_s=timeout_s, on_progress=None if as_json else _progress
        )
    if as_json:
        echo_json(result)
    else:
        for line in result_lines(result):
            echo(line)
    if isinstance(result, dict) and truth(result.get("isError")):
        sys.exit(BAD)


def result_lines(result: object) -> list[str]:
    """What a tool answered, as people read it: its texts, and as JSON all that is no text."""
    content = result.get("content", []) if isinstance(result, dict) else [result]
    items = content if isinstance(content, list) else [content]
    texts = [
        item.get("text") if isinstance(item, dict) and item.get("type") == "text" else None for item in items
    ]
    return [
        text if isinstance(text, str) else json.dumps(item, ensure_ascii=False)
        for item, text in zip(items, texts, strict=True)
    ]


@cli.command()
@click.argument("server")
@endpoint_option
@json_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
def logs(server: str, endpoint: str | None, as_json: bool, follow: bool) -> None:
    """Print the last lines that a SERVER wrote to its stderr."""
    with client(endpoint) as broker, suppress(KeyboardInterrupt):
        seen = broker.request(MANAGEMENT, "logs", {"server": server})
        if as_json:
            echo_json(seen)
            return
        if not seen["written"]:
            echo(say("nothing_written", server=server), err=True)
        while True:
            if missing := seen.get("missing"):
                echo(say("lines_missing", server=server, count=missing), err=True)
            for line in seen["lines"]:
                echo(line)
            if not follow:
                return
            time.sleep(ASK_S)
            seen = broker.request(MANAGEMENT, "logs", {"server": server, "after": seen["written"]})


for _command in (stop, start, restart, reload, doctor, import_):
    cli.add_command(_command)


def _log_failure(message: str, status: int) -> NoReturn:
    """The same where nobody sits in front: a line of the log for each line of the message."""
    for line in message.splitlines():
        logger.error("broker.cannot_start", extra={"reason": line.strip()})
    sys.exit(status)


def _progress(progress: float, total: float | None, message: str | None) -> None:
    share = f"{progress:g}" if total is None else f"{progress:g}/{total:g}"
    echo(f"{share} {message or ''}".rstrip(), err=True)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        fail(say("not_json", problem=error), USAGE)
    if not isinstance(value, dict):
        fail(say("not_json", problem=type(value).__name__), USAGE)
    return value


def _watch(endpoint: str | None, *, as_json: bool) -> None:
    """Draw the status again and again, also while there is no broker, until Ctrl-C."""
    with suppress(KeyboardInterrupt), overview.live() as draw:
        while True:
            with suppress(Unavailable), BlockingClient(endpoint, reconnect_s=0) as broker:
                while True:
                    seen = broker.request(MANAGEMENT, "status")
                    _json_line(seen) if as_json else draw(overview.status(seen))
                    time.sleep(WATCH_S)
            _json_line(_NO_STATUS) if as_json else draw([Line(say("no_broker"))])
            time.sleep(WATCH_S)


_NO_STATUS: dict[str, Any] = {"broker": None, "servers": [], "clients": []}
"""What `status --watch --json` prints while no broker answers."""


def _json_line(value: dict[str, Any]) -> None:
    echo_json(value, indent=None)


def _config_path(path: Path | None, give_up: GiveUp = fail) -> Path:
    from client_shim.trusted import is_safe_file

    if path is not None:
        return path
    here = Path("broker.toml")
    if here.exists():
        if not is_safe_file(os.path.abspath(here)):  # it says which programs are run
            give_up(say("config_of_others", path=here.absolute()), USAGE)
        return here
    if SYSTEM_CONFIG.exists():
        return SYSTEM_CONFIG
    give_up(say("no_config", system=SYSTEM_CONFIG), USAGE)


def _read_config(path: Path, give_up: GiveUp = fail, environ: Mapping[str, str] = os.environ) -> Config:
    from broker.config.loading import ConfigError
    from broker.service.config_file import read

    try:
        return read(path, environ)
    except ConfigError as error:
        lines = [say("config_bad", path=path, count=len(error.problems)), *map(str, error.problems)]
        give_up("\n  ".join(lines), USAGE)


def main() -> int:
    """Run the command line; the exit status.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it.
        OSError: its output cannot be written.
    """
    try:
        status = cli.main(prog_name="mcp-broker", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0
