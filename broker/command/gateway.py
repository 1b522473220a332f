"""`mcp-broker gateway`: lets other MCP clients in."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import click

from broker.command.common import BAD, USAGE, endpoint_option, fail
from broker.command.words import say

GATEWAY_PACKAGES = ("httptools", "uvicorn", "uvloop")
"""What the extra `gateway` of pyproject.toml brings beside `daemon`, as it is imported; a test holds the two
together."""


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, readable=False),
    help="The settings; without it the gateway.toml of the user, else /etc/mcp-broker/gateway.toml, if any.",
)
@endpoint_option
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    help="Speak HTTP here instead: 127.0.0.1:PORT or unix:/PATH. May be repeated.",
)
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
def gateway(
    path: Path | None,
    endpoint: str | None,
    listen: tuple[str, ...],
    log_level: str,
    log_form: Literal["text", "json"],
) -> None:
    """Let other MCP clients in: Streamable HTTP, and the sockets of `connect`."""
    missing = [name for name in GATEWAY_PACKAGES if find_spec(name) is None]
    if missing:
        fail(say("gateway_missing", prefix=sys.prefix, missing=", ".join(missing)), USAGE)
    from broker.config.loading import ConfigError
    from broker.gateway import program, settings
    from broker.service import logging as logs
    from broker.service.claims import ClaimError
    from broker.service.systemd import ServiceManager

    logs.set_up(log_level, log_form, journal=logs.under_journal(os.environ))
    manager = ServiceManager.of(os.environ)
    try:
        found = settings.find(path, os.environ)
        program.run(settings.with_options(found, endpoint, listen), os.environ, manager)
    except ConfigError as error:
        lines = [say("gateway_config_bad", count=len(error.problems)), *map(str, error.problems)]
        manager.status("; ".join(lines))
        fail("\n  ".join(lines), USAGE)
    except ClaimError as error:
        manager.status(str(error))
        fail(str(error), BAD)
