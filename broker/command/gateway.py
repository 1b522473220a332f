"""The command `mcp-broker gateway`: serves other MCP clients."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import click

from broker.command.common import BAD, USAGE, endpoint_option, fail, log_format_option, log_level_option
from broker.command.texts.chinese import in_a_line, told
from broker.command.texts.words import say

GATEWAY_PACKAGES = ("httptools", "uvicorn", "uvloop")
"""The packages of the extra `gateway` of pyproject.toml beside `daemon`, by import name. A test compares
both lists."""


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, readable=False),
    help="The settings. Default: the user's gateway.toml, else /etc/mcp-broker/gateway.toml, if any.",
)
@endpoint_option
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    help="Speak HTTP here instead: 127.0.0.1:PORT or unix:/PATH. May be repeated.",
)
@log_level_option
@log_format_option
def gateway(
    path: Path | None,
    endpoint: str | None,
    listen: tuple[str, ...],
    log_level: str,
    log_format: Literal["text", "json"],
) -> None:
    """Let other MCP clients in: Streamable HTTP, and the sockets of `connect`."""
    missing = [name for name in GATEWAY_PACKAGES if find_spec(name) is None]
    if missing:
        fail(say("gateway_missing", prefix=sys.prefix, missing=", ".join(missing)), USAGE)
    from broker.config.loading import ConfigError
    from broker.gateway import program, settings
    from broker.service.claims import ClaimError
    from broker.service.logging import set_up, under_journal
    from broker.service.systemd import ServiceManager

    set_up(log_level, log_format, journal=under_journal(os.environ))
    manager = ServiceManager.of(os.environ, in_a_line=in_a_line())
    try:
        found = settings.find(path, os.environ)
        program.run(settings.with_options(found, endpoint, listen), os.environ, manager, say)
    except ConfigError as error:
        lines = [say("gateway_config_bad", count=len(error.problems)), *map(str, error.problems)]
        manager.status(*lines)
        fail("\n  ".join([lines[0], *map(told, error.problems)]), USAGE)
    except ClaimError as error:
        manager.status(str(error))
        fail(told(error), BAD)
