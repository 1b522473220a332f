"""Shared by the commands: options, exit statuses, error output, and the client of the running broker."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from broker.base.secrets import redact
from broker.command.output import echo
from broker.command.programs import COMMAND_NAME
from broker.command.texts.chinese import in_chinese
from broker.command.texts.language import language
from client_shim.blocking import BlockingClient
from client_shim.errors import (
    BrokerError,
    CallError,
    InvalidEndpoint,
    InvalidReply,
    InvalidRequest,
    Unavailable,
)

GiveUp = Callable[[str, int], NoReturn]
"""Ends the command with a message and an exit status."""

BAD, USAGE, NO_BROKER = 1, 2, 3
"""Exit statuses other than 0: the command ran with a bad result; usage or config error; no broker answers."""

RECONNECT_S = 5.0
"""How long a command that calls a server waits for the next broker when the current one exits."""

POLL_S = 0.2
"""The interval between two requests of a command that waits for a state."""

endpoint_option = click.option(
    "--endpoint",
    metavar="ADDRESS",
    help="Where the broker listens, such as ipc:///run/mcp-broker/broker.sock.",
)
log_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The lowest level to log.",
)
log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text for people, or a JSON object per line for programs.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def fail(message: str, status: int) -> NoReturn:
    """End the command with this message and exit status."""
    echo(f"mcp-broker: {redact(message)}", err=True)
    sys.exit(status)


def fail_by(error: BrokerError, speaks: int | None = None) -> NoReturn:
    """End the command with the error's text and exit status.

    The text comes in English, also from a broker of another release. Where the command knows its Chinese,
    Chinese readers get that; else the explanation of the error code follows the English.
    """
    chinese = language() if speaks is None else speaks
    text = str(error)
    if chinese:
        message, hint = in_chinese(error.message), in_chinese(error.hint)
        known = message != error.message and hint != error.hint
        text = f"{message}；{hint}" if known else "\n".join([text, *explanation(error.code)])
    fail(text, status_of(error))


def status_of(error: BrokerError) -> int:
    """Return the exit status for this error."""
    if isinstance(error, (InvalidEndpoint, InvalidRequest)):
        return USAGE
    return NO_BROKER if isinstance(error, Unavailable) else BAD


def explanation(code: str) -> list[str]:
    """Return what an error code means and what to do, as in docs/messages.zh-CN.md; empty if unknown."""
    import tomli

    codes = Path(__file__).parent / "texts" / "codes.toml"
    sections = tomli.loads(codes.read_text(encoding="utf-8")).values()
    texts = [section[code] for section in sections if code in section]
    return [_LINK.sub(r"\1", text["zh"] + text["zh_do"]) for text in texts]


_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@contextmanager
def client(
    endpoint: str | None, reconnect_s: float = 0.0, *, name: str = COMMAND_NAME
) -> Iterator[BlockingClient]:
    """Connect a client. A `BrokerError` within the block ends the command with the right exit status.

    With `reconnect_s` the client waits that long for the next broker when this one shuts down.
    """
    try:
        with BlockingClient(endpoint, reconnect_s=reconnect_s, name=name) as broker:
            yield broker
    except BrokerError as error:
        fail_by(error)


def tools_of(broker: BlockingClient, server: str) -> list[Any]:
    """Return the tools of one server, unvalidated.

    Raises:
        CallError: the request failed, or the result has no list.
    """
    result = broker.request(server, "tools/list")
    listed = result.get("tools") if isinstance(result, dict) else None
    if not isinstance(listed, list):
        raise InvalidReply(f"`tools/list` of server {server!r}: it has no list `tools`")
    return listed


def tools_of_all(
    broker: BlockingClient, names: list[str], failed: dict[str, CallError]
) -> dict[str, list[Any]]:
    """Return the tools of these servers; put the error of each failed request into `failed`."""
    found = {}
    for name in names:
        try:
            found[name] = tools_of(broker, name)
        except CallError as error:
            failed[name] = error
    return found
