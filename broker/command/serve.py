"""The commands that read the config file: `serve` and `check`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import click

from broker.command.common import BAD, USAGE, GiveUp, fail, log_format_option, log_level_option
from broker.command.output import echo
from broker.command.texts.chinese import in_a_line, told
from broker.command.texts.language import choose_language
from broker.command.texts.words import say

if TYPE_CHECKING:
    from broker.config.schema import Config

logger = logging.getLogger("mcp-broker")

SYSTEM_CONFIG = Path("/etc/mcp-broker/broker.toml")

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, readable=False),  # the reader of the file reports the fault
    help=f"The config file. Default: ./broker.toml, else {SYSTEM_CONFIG}.",
)


@click.command()
@config_option
@click.option("--endpoint", metavar="ADDRESS", help="Listen here instead of at the config's endpoint.")
@log_level_option
@log_format_option
def serve(
    path: Path | None, endpoint: str | None, log_level: str, log_format: Literal["text", "json"]
) -> None:
    """Run the broker in the foreground until SIGTERM or Ctrl-C."""
    from broker import daemon
    from broker.config.loading import ConfigError
    from broker.service.claims import ClaimError
    from broker.service.logging import set_up, under_journal
    from broker.service.systemd import ServiceManager

    journal = under_journal(os.environ)
    set_up(log_level, log_format, journal=journal)
    manager = ServiceManager.of(os.environ, in_a_line=in_a_line())
    if journal or log_format == "json":
        choose_language("en")  # a fault that ends the start is a line of the log

    def give_up(message: str, status: int) -> NoReturn:
        manager.status(message)
        (_log_failure if journal or log_format == "json" else fail)(message, status)

    path = config_path(path, give_up)
    config = read_config(path, give_up)
    try:
        daemon.run(config, path, endpoint, manager)
    except ConfigError as error:
        give_up(told(error), USAGE)
    except ClaimError as error:
        give_up(told(error), BAD)
    except Exception:
        logger.exception("broker.crashed")
        sys.exit(BAD)


@click.command()
@config_option
@click.option(
    "--service",
    "as_service",
    is_flag=True,
    help=f"Check as the installed service: its PATH, variables and user. Implied for {SYSTEM_CONFIG}.",
)
def check(path: Path | None, as_service: bool) -> None:
    """Check the config, and that every server's command can be found and run."""
    from broker.command.check import report
    from broker.command.socket_mode import closed_by
    from broker.command.texts.key_texts import say_of_keys
    from broker.command.unit import NAME, installed
    from broker.processes.environment import mask_of

    path = SYSTEM_CONFIG if as_service and path is None else config_path(path)
    service = installed() if as_service or path == SYSTEM_CONFIG else None
    if service is not None:
        environ = service.environ
        echo(say("check_as", unit=service.path, user=service.user.name, path=environ.get("PATH")))
    elif as_service:
        fail(say("check_no_unit", unit=NAME), USAGE)
    else:
        environ = dict(os.environ)
    config = read_config(path, environ=environ)
    bad, wrong, mask = 0, 0, mask_of(config.servers.values(), environ)
    for line in report(path, config, environ, service):
        bad += line.bad
        wrong += line.wrong
        echo(mask(line.text), colour="red" if line.bad or line.wrong else None)
    if wrong:
        echo(say_of_keys("wrong", path=path, count=wrong), colour="red")
    closed = closed_by(config.broker, environ)
    if closed:
        echo(closed, colour="red")
    if bad or not (wrong or closed):
        word = "config_missing" if bad else "config_fine"
        echo(say(word, path=path, missing=bad, count=len(config.servers)))
    sys.exit(BAD if bad or wrong or closed else 0)


def _log_failure(message: str, status: int) -> NoReturn:
    """Log each line of the message and exit, as `fail` does for an interactive command."""
    for line in message.splitlines():
        logger.error("broker.cannot_start", extra={"reason": line.strip()})
    sys.exit(status)


def config_path(path: Path | None, give_up: GiveUp = fail) -> Path:
    found = path or default_config(give_up)
    return found or give_up(say("no_config", system=SYSTEM_CONFIG), USAGE)


def default_config(give_up: GiveUp = fail) -> Path | None:
    """Return the config file that is read if none is named: ./broker.toml, else the system's."""
    from client_shim.trusted import is_safe_file

    here = Path("broker.toml")
    if here.exists():
        if not is_safe_file(os.path.abspath(here)):  # the file names programs to run
            give_up(say("config_of_others", path=here.absolute()), USAGE)
        return here
    return SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None


def read_config(
    path: Path,
    give_up: GiveUp = fail,
    environ: Mapping[str, str] = os.environ,
    *,
    authorized_keys: bool = True,
) -> Config:
    from broker.config.loading import ConfigError
    from broker.service.config_file import read

    try:
        return read(path, environ, authorized_keys=authorized_keys)
    except ConfigError as error:
        lines = [say("config_bad", path=path, count=len(error.problems)), *map(told, error.problems)]
        give_up("\n  ".join(lines), USAGE)
