"""The files of the installed service that `mcp-broker import --service` writes: the config and the secrets.

systemd reads `environment` as root. The service's user reads `broker.toml` by its group. It writes neither.
"""

from __future__ import annotations

import grp
import sys
from collections.abc import Mapping
from pathlib import Path

from broker.command import environment_file
from broker.command.importing.files import FileOwner, write
from broker.command.importing.reading import FileProblem
from broker.command.unit import SERVICE_PATH, installed

GROUP = "mcp-broker"
DEFAULT_CONFIG = Path(sys.prefix) / "share" / "broker.toml"
_NEEDS_ROOT = "import_needs_root"


def search_path() -> str:
    """Return the PATH of the service, installed or not."""
    unit = installed()
    return SERVICE_PATH if unit is None else unit.environ["PATH"]


def variables_file(config: Path) -> Path:
    """Return the `EnvironmentFile=` of a service with this config."""
    return config.with_name("environment")


def variables_there(config: Path) -> dict[str, str]:
    """Return the variables that the service has already.

    Raises:
        FileProblem: this user may not read them, or they are not UTF-8.
    """
    return environment_file.values_of(_text_of(variables_file(config)))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise FileProblem("import_not_utf8", path=path, problem=error.reason) from None
    except OSError as error:
        raise FileProblem(_NEEDS_ROOT, path=path, problem=error.strerror) from None


def is_default(config: Path) -> bool:
    """Return whether a config is the installation's own, unchanged: no server in it is the operator's."""
    try:
        return config.read_bytes() == DEFAULT_CONFIG.read_bytes()
    except OSError:
        return False


def write_config(path: Path, text: str) -> Path | None:
    """Write the config, which the service's group may read; return the path of the backup of an old one.

    Raises:
        FileProblem: it cannot be written.
    """
    return write(path, text, owner=FileOwner(_group(), 0o640), problem=_NEEDS_ROOT)


def _group() -> int:
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:  # the installation makes the group, and gives the file to it
        return -1


def write_variables(config: Path, values: Mapping[str, str]) -> None:
    """Add variables to the file of the service, which root alone may read; those that it has stay.

    Raises:
        FileProblem: it cannot be written.
    """
    path = variables_file(config)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise FileProblem(_NEEDS_ROOT, path=path.parent, problem=error.strerror) from None
    old = _text_of(path)
    new = environment_file.extended(old, values)
    if new != old or not path.exists():
        write(path, new, access=0o600, backup=False, problem=_NEEDS_ROOT)
