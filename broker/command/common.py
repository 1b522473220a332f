"""What the commands have in common: options, exit statuses, and a client of the running broker."""

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
from broker.command.words import language
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
"""Ends the command with a message and a status."""

BAD, USAGE, NO_BROKER = 1, 2, 3
"""Exit statuses beside 0: it ran and the answer is bad; usage or config; no broker answers."""

RECONNECT_S = 5.0
"""How long a command that calls a server waits for the next broker, where the one that is there ends."""

ASK_S = 0.2
"""How long a command that waits for something lets pass before it asks again."""

endpoint_option = click.option(
    "--endpoint",
    metavar="ADDRESS",
    help="Where the broker listens, such as ipc:///run/mcp-broker/broker.sock.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def fail(message: str, status: int) -> NoReturn:
    """End the command with this message and exit status."""
    echo(f"mcp-broker: {redact(message)}", err=True)
    sys.exit(status)


def fail_by(error: BrokerError, speaks: int | None = None) -> NoReturn:
    """End the command with what the broker or its client says, in English: a broker of another release may
    say what this one does not know. Below it, to who reads Chinese, what such an error means.
    """
    chinese = language() if speaks is None else speaks
    fail("\n".join([str(error), *(in_chinese(error.code) if chinese else ())]), status_of(error))


def status_of(error: BrokerError) -> int:
    """The exit status that this error ends a command with."""
    if isinstance(error, (InvalidEndpoint, InvalidRequest)):
        return USAGE
    return NO_BROKER if isinstance(error, Unavailable) else BAD


def in_chinese(code: str) -> list[str]:
    """What an error means and what to do, as docs/messages.zh-CN.md has it; nothing of a newer broker's."""
    import tomli

    sections = tomli.loads(Path(__file__).with_name("codes.toml").read_text(encoding="utf-8")).values()
    texts = [section[code] for section in sections if code in section]
    return [_LINK.sub(r"\1", text["zh"] + text["zh_do"]) for text in texts]


_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@contextmanager
def client(endpoint: str | None, reconnect_s: float = 0.0) -> Iterator[BlockingClient]:
    """A connected client; what goes wrong with it ends the command with the right status.

    With `reconnect_s` a broker that ends in order is waited out, and the next one is asked.
    """
    try:
        with BlockingClient(endpoint, reconnect_s=reconnect_s) as broker:
            yield broker
    except BrokerError as error:
        fail_by(error)


def tools_of(broker: BlockingClient, server: str) -> list[Any]:
    """The list of one server; what its items are is not looked at.

    Raises:
        CallError: it cannot be had, or is not a list.
    """
    result = broker.request(server, "tools/list")
    listed = result.get("tools") if isinstance(result, dict) else None
    if not isinstance(listed, list):
        raise InvalidReply(f"`tools/list` of server {server!r}: it has no list `tools`")
    return listed


def tools_of_all(
    broker: BlockingClient, names: list[str], failed: dict[str, CallError]
) -> dict[str, list[Any]]:
    """The lists of these servers. One that cannot be had goes to `failed`, and costs the others nothing."""
    found = {}
    for name in names:
        try:
            found[name] = tools_of(broker, name)
        except CallError as error:
            failed[name] = error
    return found
