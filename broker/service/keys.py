"""Reads and writes the keys of CURVE: the broker's own pair, and the public keys of its clients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from broker.config.keys import AuthorizedKeys, KeyConfig, is_client_name
from broker.config.loading import ADD_KEYS, MAX_PROBLEMS, ConfigError, Problem
from broker.config.names import normal, toml_key
from broker.config.schema import BrokerConfig, Config
from client_shim import key_file
from client_shim.key_file import MAX_BYTES, PUBLIC, KeyFile, KeyFileError
from client_shim.trusted import Folder, Untrusted, open_folder

SERVER_KEY, AUTHORIZED_KEYS = "server.key_secret", "authorized_keys"
"""The file and the folder that `mcp-broker keys` uses where the config names no others."""

MAX_KEYS = 10_000
"""The number of clients with a key."""


class KeyPlaces(NamedTuple):
    """Where the keys are: the file of the broker's pair, and the folder of the clients' public keys."""

    server: Path
    clients: Path


def places_of(config: BrokerConfig, config_file: Path) -> KeyPlaces:
    """Return where the keys are by the config, or where they are made without it."""
    base = config_file.resolve().parent
    return KeyPlaces(
        base / (config.server_key or SERVER_KEY), base / (config.authorized_keys or AUTHORIZED_KEYS)
    )


def read_server(path: Path) -> KeyFile:
    """Return the broker's own pair.

    Raises:
        ConfigError: it cannot be read, other users can read it, or it is not a pair.
    """
    try:
        with open_folder(path.parent) as folder:
            keys = _read(folder, path.name)
            about = folder.stat(path.name)
    except Untrusted as error:
        raise ConfigError([Problem("broker.server_key", error.problem, error.mend)]) from None
    except FileNotFoundError:
        message = f"there is no file {path}"
        raise ConfigError([Problem("broker.server_key", message, _MAKE)]) from None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ConfigError([Problem("broker.server_key", message, "let this user read it")]) from None
    except KeyFileError as error:
        message = f"{path} is not a key file: {error}"
        raise ConfigError([Problem("broker.server_key", message, _MAKE)]) from None
    if keys.secret is None:
        message = f"{path} has no secret key"
        raise ConfigError([Problem("broker.server_key", message, _MAKE)])
    if about is not None and about.st_mode & 0o007:
        message = f"everybody may read {path} (mode {about.st_mode & 0o777:04o})"
        mend = f"chmod o= {path}, and make a new pair if others have read this one"
        raise ConfigError([Problem("broker.server_key", message, mend)])
    return keys


_MAKE = "make it with `mcp-broker keys new NAME`"


def read_authorized(path: Path, grants: dict[str, KeyConfig] | None = None) -> AuthorizedKeys:
    """Return the clients that may connect. A file with a mistake is left out.

    Args:
        grants: what clients may do, by their names.

    Raises:
        ConfigError: the folder cannot be read, or another user could change it.
    """
    try:
        with open_folder(path) as folder:
            return _authorized(folder, grants or {})
    except Untrusted as error:
        raise ConfigError([Problem("broker.authorized_keys", error.problem, error.mend)]) from None
    except FileNotFoundError:
        message = f"there is no folder {path}"
        raise ConfigError([Problem("broker.authorized_keys", message, _MAKE)]) from None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ConfigError([Problem("broker.authorized_keys", message, "let this user read it")]) from None


def _authorized(folder: Folder, grants: dict[str, KeyConfig]) -> AuthorizedKeys:
    found: dict[str, str] = {}
    faults: list[str] = []
    files = sorted(name for name in folder.names() if not name.startswith("."))
    for file in files[:MAX_KEYS]:
        try:
            _add(folder, file, found)
        except (KeyFileError, Untrusted) as error:
            faults.append(f"{folder.where(file)} is left out: {error}")
        except OSError as error:
            faults.append(f"{folder.where(file)} is left out: {error.strerror}")
    if len(files) > MAX_KEYS:
        faults.append(f"{folder.path} has {len(files)} files, of which the first {MAX_KEYS} count")
    return AuthorizedKeys(found, tuple(faults), grants)


def authorized_by(config: Config, file: Path) -> AuthorizedKeys:
    """Return the clients that may connect by a config, with a fault for each table that limits nobody.

    Its name may be mistyped; then the client that it is for may use every server.

    Raises:
        ConfigError: the folder of their keys cannot be read, or another user could change it.
    """
    authorized = config.authorized
    if config.broker.has_keys:
        authorized = read_authorized(places_of(config.broker, file).clients, authorized.grants)
        message = "no client has a key of this name, so this table limits nobody"
        mend = "correct the name (`mcp-broker keys list` shows the clients), or remove the table"
    else:
        message = "[broker] lacks server_key or authorized_keys, so this table limits nobody"
        mend = f"{ADD_KEYS}, or remove the table"
    idle = sorted(authorized.grants.keys() - set(authorized.names.values()))[:MAX_PROBLEMS]
    faults = (str(Problem(f"keys.{toml_key(name)}", message, mend)) for name in idle)
    return msgspec.structs.replace(authorized, faults=(*authorized.faults, *faults))


def _add(folder: Folder, file: str, found: dict[str, str]) -> None:
    name = normal(file.removesuffix(PUBLIC))
    if not file.endswith(PUBLIC) or not is_client_name(name):
        raise KeyFileError("its name is not NAME.key")
    public = _read(folder, file).public
    if public in found:
        raise KeyFileError(f"{found[public]} has the same key")
    found[public] = name


def _read(folder: Folder, name: str) -> KeyFile:
    try:
        return key_file.parse(folder.read(name, MAX_BYTES).decode())
    except UnicodeDecodeError:
        raise KeyFileError("it is not text") from None


def write(folder: Folder, name: str, keys: KeyFile, like: os.stat_result | None = None) -> None:
    """Write a file of keys, of mode 0600, atomically.

    Args:
        like: the config file. Root gives the file its group, and lets the group read it if it reads that.

    Raises:
        OSError: it cannot be written.
    """
    folder.write(name, key_file.text_of(keys).encode())
    if like is None or os.geteuid() != 0:
        return
    try:
        with folder.entry(name) as (fd, _):
            give(f"/proc/self/fd/{fd}", like)
    except OSError:
        folder.remove(name)
        raise


def give(path: str, like: os.stat_result, mode: int = 0o600) -> None:
    """Give what root has made to the owner and group of the config file, as whom the broker reads that."""
    for_group = like.st_gid != 0 and like.st_mode & 0o040
    os.chown(path, like.st_uid, like.st_gid)
    os.chmod(path, mode | (mode >> 3 & 0o050 if for_group else 0))
