"""Reads `broker.toml`."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import tomli

from broker.config.loading import ConfigError, Problem, load
from broker.config.schema import Config, ServerConfig
from broker.service.credentials import with_credentials
from broker.service.keys import authorized_by

METRICS_PACKAGES = ("h11", "prometheus_client")
"""The packages of the extra `metrics` in pyproject.toml; a test compares the two."""

MAX_BYTES = 1024 * 1024
"""The largest config file. A larger file is most likely no config, and reading it would delay clients."""


def read(path: Path, environ: Mapping[str, str], *, authorized_keys: bool = True) -> Config:
    """Read a config file. A server with a mistake in its own values has `faults`.

    Args:
        authorized_keys: whether to read the keys of the clients as well.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has other mistakes. It has all of them.
    """
    config = load(tables(path), with_credentials(environ), leave_out=True)
    _check_installed(config)
    folder = path.resolve().parent
    servers = {name: _with_roots(server, folder) for name, server in config.servers.items()}
    authorized = authorized_by(config, path) if authorized_keys else config.authorized
    return msgspec.structs.replace(config, servers=servers, authorized=authorized)


def tables(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    try:
        return tomli.loads(text_of(path))
    except (tomli.TOMLDecodeError, RecursionError) as error:  # RecursionError: tables nest too deep
        raise ConfigError([Problem(str(path), f"not TOML: {error}", "correct this line first")]) from None


def text_of(path: Path) -> str:
    """Return the text of a `broker.toml` without a byte-order mark.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    try:
        return _content(path).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(str(path), error.strerror or str(error), _mend(error))]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), f"not UTF-8: {error.reason}", "save it as UTF-8")]) from None


def _content(path: Path) -> bytes:
    """Return the content of a regular file. It does not wait for a FIFO, which may never have a writer."""
    mend = "name the file itself with --config"
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigError([Problem(str(path), "this is a pipe or a device, not a file", mend)])
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        problem = f"this has more than {MAX_BYTES} bytes, and is most likely no config"
        raise ConfigError([Problem(str(path), problem, mend)])
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _mend(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"let this user (uid {os.geteuid()}) read it: chgrp it to a group of the user, and chmod 0640"
    example = Path(sys.prefix, "share", "broker.toml")  # of an installed service
    begin = (
        f"begin with a copy of {example}"
        if example.exists()
        else "create it; the broker.toml of the repository is an example"
    )
    return f"name another file with --config, or {begin}"


def _with_roots(server: ServerConfig, folder: Path) -> ServerConfig:
    """Return the server with its roots as URIs, as MCP requires."""
    uris = (root if root.startswith("file://") else _uri(folder / root) for root in server.roots)
    return msgspec.structs.replace(server, roots=tuple(uris))


def _uri(path: Path) -> str:
    return Path(os.path.normpath(path)).as_uri()


def _check_installed(config: Config) -> None:
    """Raise if the config needs packages that are not installed."""
    missing = [name for name in METRICS_PACKAGES if find_spec(name) is None]
    if config.broker.metrics is not None and missing:
        mend = "run pip install 'mcp-shared-broker[metrics]', or remove the key"
        raise ConfigError([Problem("broker.metrics", f"this Python has no {', '.join(missing)}", mend)])
