"""The command `mcp-broker`, and the subcommands that read from the running broker or call its servers."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

import click

from broker import __version__
from broker.base.secrets import redact
from broker.command.attach.command import attach
from broker.command.attach.detach import detach
from broker.command.attach.edit_config import add, remove
from broker.command.common import (
    BAD,
    POLL_S,
    RECONNECT_S,
    USAGE,
    client,
    endpoint_option,
    fail,
    json_option,
    tools_of,
    tools_of_all,
)
from broker.command.doctor.command import doctor
from broker.command.gateway import gateway
from broker.command.import_ import import_
from broker.command.keys import keys
from broker.command.layout import Line
from broker.command.output import echo, echo_json, live, show
from broker.command.programs import STATUS_NAME
from broker.command.serve import check, serve
from broker.command.socket_mode import closed_socket
from broker.command.start_stop import release, reload, restart, start, stop
from broker.command.status import broker_line, status_parts, tools_parts
from broker.command.texts.chinese import in_chinese
from broker.command.texts.help_text import HelpContext, HelpGroup
from broker.command.texts.language import LANGUAGES, choose_language, language
from broker.command.texts.words import say
from broker.config.names import normal
from client_shim.blocking import BlockingClient
from client_shim.errors import CallError, MethodRefused, Unavailable
from client_shim.text import truth
from client_shim.wire import MANAGEMENT

WATCH_S = 1.0
"""The interval at which `status --watch` asks the broker."""


@click.group(cls=HelpGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcp-broker")
def cli() -> None:
    """One process per MCP server, shared by every client."""


@cli.command()
@click.argument("server", required=False)
@endpoint_option
@json_option
@click.option(
    "--watch", is_flag=True, help="Refresh every second until Ctrl-C; with --json, one object per line."
)
@click.option(
    "--broker",
    "only_broker",
    is_flag=True,
    help="Show the broker alone: exit status 0 if it answers and clients may reach it. For health checks.",
)
def status(server: str | None, endpoint: str | None, as_json: bool, watch: bool, only_broker: bool) -> None:
    """Show the broker and its servers, or one SERVER. Exit status 1 if an enabled server is not ready."""
    if only_broker:
        if server is not None or watch:
            raise click.UsageError("--broker goes with neither SERVER nor --watch; leave one out.")
        _status_of_broker(endpoint, as_json=as_json)
        return
    if watch:
        _watch(endpoint, server, as_json=as_json)
        return
    with client(endpoint, name=STATUS_NAME) as broker:
        snapshot = _snapshot(broker, server)
    if as_json:
        echo_json(snapshot)
    else:
        show(status_parts(snapshot))
    if any(one["state"] not in ("ready", "idle", "disabled") for one in snapshot["servers"]):
        sys.exit(BAD)


def _status_of_broker(endpoint: str | None, *, as_json: bool) -> None:
    """Show the broker, whatever its servers do: one that is down or stopped is no fault of the broker."""
    with client(endpoint, name=STATUS_NAME) as broker:
        snapshot = {**_snapshot(broker, None), "servers": [], "clients": []}
    if as_json:
        echo_json(snapshot)
    else:
        echo(broker_line(snapshot["broker"]))
    if closed := closed_socket(snapshot["broker"]["endpoint"], os.environ):
        fail(closed, BAD)


def _snapshot(broker: BlockingClient, server: str | None) -> dict[str, Any]:
    """Return the status; with `server` only that one of the servers is in it."""
    snapshot: dict[str, Any] = broker.request(MANAGEMENT, "status")
    if server is not None:
        known = [one["name"] for one in snapshot["servers"]]
        snapshot["servers"] = [one for one in snapshot["servers"] if one["name"] == normal(server)]
        if not snapshot["servers"]:
            fail(say("no_server", server=server, known=known), BAD)
    return snapshot


@cli.command()
@click.argument("server", required=False)
@endpoint_option
@json_option
def tools(server: str | None, endpoint: str | None, as_json: bool) -> None:
    """List the tools of one SERVER, or of all that are ready. Exit status 1 if a list fails."""
    failed: dict[str, CallError] = {}
    with client(endpoint, RECONNECT_S) as broker:
        if server is not None:
            found = {server: tools_of(broker, server)}
        known = broker.request(MANAGEMENT, "servers")["servers"]
        if server is None:
            names = [one["name"] for one in known if one["protocol"] is not None]
            found = tools_of_all(broker, names, failed)
    hidden = {one["name"]: one.get("hidden", {}).get("tools", 0) for one in known}
    if as_json:
        echo_json(found)
    else:
        if not found and not failed:
            echo(say("no_lists"), err=True)
        for name, listed in found.items():
            show(tools_parts(name, listed, hidden.get(name, 0)))
    for name, error in failed.items():
        echo(redact(say("last_error", server=name, error=error)), err=True)
    if not all(isinstance(error, MethodRefused) for error in failed.values()):  # refused: it offers no tools
        sys.exit(BAD)


def _finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not in the range x>0.")
    return value


@cli.command()
@click.argument("server")
@endpoint_option
def connect(server: str, endpoint: str | None) -> None:
    """Speak MCP for SERVER on stdin and stdout: what an MCP host starts in place of the server."""
    from broker.gateway.stdio.connect import connect as serve_host

    sys.exit(serve_host(server, endpoint))


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
    help="The time limit of the call.",
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
    """Return a tool's result as lines: texts as they are, other content as JSON."""
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
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines until Ctrl-C.")
def logs(server: str, endpoint: str | None, as_json: bool, follow: bool) -> None:
    """Print the last lines that a SERVER wrote to its stderr."""
    with client(endpoint) as broker, suppress(KeyboardInterrupt):
        reply = broker.request(MANAGEMENT, "logs", {"server": server})
        if as_json:
            echo_json(reply)
            return
        if not reply["written"]:
            echo(say("nothing_written", server=server), err=True)
        while True:
            if missing := reply.get("missing"):
                echo(say("lines_missing", server=server, count=missing), err=True)
            for line in reply["lines"]:
                echo(line)
            if not follow:
                return
            time.sleep(POLL_S)
            reply = broker.request(MANAGEMENT, "logs", {"server": server, "after": reply["written"]})


_COMMANDS = (
    *(serve, check, stop, start, restart, release, reload, doctor, import_),
    *(attach, detach, add, remove, gateway, keys),
)
for _command in _COMMANDS:
    cli.add_command(_command)


for _command in (cli, *cli.commands.values(), *keys.commands.values()):
    _command.context_class = HelpContext
    if not any(option.name == "lang" for option in _command.params):
        _command.params.append(
            click.Option(
                ["--lang"],
                type=click.Choice(LANGUAGES),
                expose_value=False,
                help="English or Chinese. Default: the locale.",  # `main` reads it
            )
        )


def _progress(progress: float, total: float | None, message: str | None) -> None:
    share = f"{progress:g}" if total is None else f"{progress:g}/{total:g}"
    echo(f"{share} {message or ''}".rstrip(), err=True)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        fail(say("not_json", problem=error), USAGE)
    if not isinstance(value, dict):
        fail(say("not_json", problem="a list" if isinstance(value, list) else text), USAGE)
    return value


def _watch(endpoint: str | None, server: str | None, *, as_json: bool) -> None:
    """Refresh the status until Ctrl-C, also while no broker answers."""
    with suppress(KeyboardInterrupt), live() as draw:
        while True:
            with suppress(Unavailable), BlockingClient(endpoint, reconnect_s=0, name=STATUS_NAME) as broker:
                while True:
                    snapshot = _snapshot(broker, server)
                    _json_line(snapshot) if as_json else draw(status_parts(snapshot))
                    time.sleep(WATCH_S)
            _json_line(_NO_STATUS) if as_json else draw([Line(say("no_broker"))])
            time.sleep(WATCH_S)


_NO_STATUS: dict[str, Any] = {"broker": None, "servers": [], "clients": []}
"""The output of `status --watch --json` while no broker answers."""


def _json_line(value: dict[str, Any]) -> None:
    echo_json(value, indent=None)


def main() -> int:
    """Run the command line and return the exit status.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it.
        OSError: its output cannot be written.
    """
    choose_language(_named_language(sys.argv[1:]))
    try:
        status = cli.main(prog_name="mcp-broker", standalone_mode=False)
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0


def _named_language(arguments: list[str]) -> str | None:
    """Return the language that the command line names: also mistakes in it are told in this language."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    named = [value for option, value in pairwise(own) if option == "--lang"]
    named += [option.removeprefix("--lang=") for option in own if option.startswith("--lang=")]
    return next((name for name in named if name in LANGUAGES), None)


def _show(error: click.ClickException) -> None:
    """Print a mistake in the command line, in the reader's language."""
    if not language():
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        echo(context.get_usage().replace("Usage:", say("usage"), 1), err=True)
        echo(say("see_help", command=context.command_path), err=True)
    echo(say("usage_error", problem=in_chinese(error.format_message())), err=True)
