"""What the commands have in common: options, exit statuses, and a client of the running broker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from client_shim.blocking import BlockingClient
from client_shim.errors import BrokerError, InvalidRequest, Unavailable

GiveUp = Callable[[str, int], NoReturn]
"""Ends the command with a message and a status."""

BAD, USAGE, NO_BROKER = 1, 2, 3
"""Exit statuses beside 0: it ran and the answer is bad; usage or config; no broker answers."""

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
    click.echo(f"mcp-broker: {message}", err=True)
    sys.exit(status)


@contextmanager
def client(endpoint: str | None) -> Iterator[BlockingClient]:
    """A connected client; what goes wrong with it ends the command with the right status."""
    try:
        with BlockingClient(endpoint) as broker:
            yield broker
    except Unavailable as error:
        fail(str(error), NO_BROKER)
    except InvalidRequest as error:
        fail(str(error), USAGE)
    except BrokerError as error:
        fail(str(error), BAD)
