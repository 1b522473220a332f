"""The command `mcp-broker keys`: the keys of clients that connect over TCP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.command.common import BAD, USAGE, endpoint_option, fail, fail_by, json_option
from broker.command.output import echo, echo_json
from broker.command.programs import COMMAND_NAME
from broker.command.serve import config_option, config_path, read_config
from broker.command.texts.chinese import told
from broker.command.texts.help_text import HelpGroup
from broker.command.texts.key_texts import say_of_keys
from broker.config.names import normal
from client_shim.blocking import BlockingClient
from client_shim.errors import BrokerError, NoBroker
from client_shim.wire import MANAGEMENT

if TYPE_CHECKING:
    from broker.config.schema import BrokerConfig
    from broker.service.keys import KeyPlaces
    from client_shim.key_file import KeyFile


@click.group(cls=HelpGroup)
def keys() -> None:
    """Make, list and revoke the keys of clients that connect over TCP."""


@keys.command()
@click.argument("name")
@config_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The new file for the client. Default: NAME.key_secret in this folder.",
)
@endpoint_option
def new(name: str, path: Path | None, out: Path | None, endpoint: str | None) -> None:
    """Make a key pair for the client NAME, and the broker's own pair if it has none.

    A running broker lets the client in at once.
    """
    from broker.config.keys import is_client_name
    from broker.config.names import MEND
    from client_shim.key_file import PUBLIC, SECRET, KeyFile
    from client_shim.transport.curve import new_pair

    name = normal(name)
    if not is_client_name(name):
        fail(say_of_keys("bad_name", name=name, mend=MEND), USAGE)
    config, places = _places(path)
    authorized, out = places.clients / f"{name}{PUBLIC}", Path(os.path.abspath(out or f"{name}{SECRET}"))
    if os.path.lexists(authorized):
        fail(say_of_keys("taken", name=name, path=authorized), BAD)
    if os.path.lexists(out):
        fail(say_of_keys("there", path=out), BAD)
    public, secret = new_pair()
    server = _server(places, config)
    with _new_file(out, KeyFile(name, public, secret, server.public)):
        _authorize(authorized, config, KeyFile(name, public))
    echo(say_of_keys("made", name=name, path=out))
    lines = _missing_keys(config, places)
    for line in lines:
        echo(line)
    if not lines:
        _reload(config, endpoint, name, "admitted")


def _server(places: KeyPlaces, config: Path) -> KeyFile:
    """Return the broker's own pair, which is made if it is missing."""
    from broker.service.keys import read_server, write
    from client_shim.key_file import KeyFile
    from client_shim.transport.curve import new_pair
    from client_shim.trusted import open_folder

    with _writing(places.server):
        if os.path.lexists(places.server):
            return read_server(places.server)
        public, secret = new_pair()
        made = KeyFile("mcp-broker", public, secret)
        with open_folder(places.server.parent, make=1) as folder:
            write(folder, places.server.name, made, like=config.stat())
    echo(say_of_keys("server_made", path=places.server))
    return made


def _authorize(file: Path, config: Path, keys: KeyFile) -> None:
    """Write the public key of a client into the folder of those that may connect."""
    from broker.service.keys import give, write
    from client_shim.trusted import open_folder

    is_new = not file.parent.exists()
    with _writing(file), open_folder(file.parent, make=1) as folder:
        if is_new and os.geteuid() == 0:
            give(str(file.parent), config.stat(), 0o700)
        write(folder, file.name, keys, like=config.stat())


@contextmanager
def _new_file(path: Path, keys: KeyFile) -> Iterator[None]:
    """Write the file for a client, which must not exist; remove it if the block fails."""
    from client_shim.key_file import text_of

    with _writing(path, "out_not_written"):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with _writing(path, "out_not_written"), os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text_of(keys))
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _writing(path: Path, word: str = "not_written") -> Iterator[None]:
    """End the command if this file cannot be read or written, with its path and what to do."""
    from broker.config.loading import ConfigError
    from client_shim.trusted import Untrusted

    try:
        yield
    except (ConfigError, Untrusted) as error:
        fail(told(error), BAD)
    except OSError as error:
        fail(say_of_keys(word, path=path, problem=error.strerror), BAD)


def _missing_keys(config: Path, places: KeyPlaces) -> list[str]:
    """Return the lines that `[broker]` lacks, and what to do about them; nothing if it has both."""
    broker = _broker_table(config)
    lines = []
    if broker.server_key is None:
        lines.append(f'server_key = "{places.server.relative_to(config.resolve().parent)}"')
    if broker.authorized_keys is None:
        lines.append(f'authorized_keys = "{places.clients.relative_to(config.resolve().parent)}"')
    return (
        [say_of_keys("config", path=config.absolute()), *(f"    {line}" for line in lines)] if lines else []
    )


@keys.command("list")
@config_option
@json_option
def list_(path: Path | None, as_json: bool) -> None:
    """List the clients that have a key. Exit status 1 if a file with a mistake is left out."""
    from broker.config.loading import ConfigError
    from broker.service.keys import read_authorized

    _, places = _places(path)
    try:
        found = read_authorized(places.clients)
    except ConfigError as error:
        fail(told(error), BAD)
    if as_json:
        rows = [{"name": name, "public_key": public} for public, name in found.names.items()]
        echo_json({"keys": rows, "faults": list(found.faults)})
    else:
        for public, name in found.names.items():
            echo(f"{name}  {public}")
    for fault in found.faults:
        echo(told(fault), err=True)
    if found.faults:
        raise SystemExit(BAD)


@keys.command()
@click.argument("name")
@config_option
@endpoint_option
def revoke(name: str, path: Path | None, endpoint: str | None) -> None:
    """Take the key of the client NAME away. A running broker cuts its connections at once."""
    from client_shim.key_file import PUBLIC
    from client_shim.trusted import open_folder

    name = normal(name)
    config, places = _places(path)
    file = f"{name}{PUBLIC}"
    unknown = say_of_keys("unknown", name=name, path=places.clients)
    if "/" in name or not places.clients.exists():
        fail(unknown, BAD)
    with _writing(places.clients / file), open_folder(places.clients) as folder:
        if folder.stat(file) is None:
            fail(unknown, BAD)
        folder.remove(file)
    _reload(config, endpoint, name, "revoked")


def _reload(config: Path, endpoint: str | None, name: str, word: str) -> None:
    """Have the broker that runs with this config read the keys again, and tell what that did."""
    named = _broker_table(config).endpoints
    path = endpoint or next((one for one in named if one.startswith("ipc://")), None)
    client = BlockingClient(path, reconnect_s=0, name=COMMAND_NAME)
    try:
        with client as broker:
            running = Path(broker.request(MANAGEMENT, "status")["broker"]["config"])
            if running.resolve() != config.resolve():
                echo(say_of_keys(f"{word}_elsewhere", name=name, path=config.absolute(), running=running))
                return
            done = broker.request(MANAGEMENT, "reload")
    except NoBroker:
        if named and not path and word == "revoked":  # its broker listens at tcp:// only: not asked
            facts = {"path": config.absolute(), "address": client.endpoint}
            fail(say_of_keys("revoked_unasked", name=name, **facts), BAD)
        echo(say_of_keys(f"{word}_later", name=name, address=client.endpoint))
        return
    except BrokerError as error:
        echo(say_of_keys("not_told", name=name), err=True)
        fail_by(error)
    if done["problems"]:
        lines = [say_of_keys("not_reloaded", path=config.absolute()), *map(told, done["problems"])]
        fail("\n  ".join(lines), BAD)
    echo(say_of_keys(word, name=name, count=done["revoked"]))


def _places(path: Path | None) -> tuple[Path, KeyPlaces]:
    """Return the config file, and where the keys are."""
    from broker.service.keys import places_of

    config = config_path(path)
    return config, places_of(_broker_table(config), config)


def _broker_table(config: Path) -> BrokerConfig:
    """Return `[broker]` of the config. The keys that it names may be missing: these commands make them."""
    if config.exists() and not os.access(config, os.R_OK):
        fail(say_of_keys("unreadable", path=config.absolute()), USAGE)
    return read_config(config, authorized_keys=False).broker
