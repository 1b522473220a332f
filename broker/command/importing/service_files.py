"""The files of the installed service that `mcp-broker import --service` writes: the config and the secrets.

systemd reads `environment` as root. The broker reads `broker.toml` by its group. It writes neither.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from broker.command import environment_file
from broker.command.importing import files
from broker.command.importing.files import read_text
from broker.command.importing.reading import FileProblem
from broker.command.unit import CONFIG_GROUP, SERVICE_PATH, group_id, installed

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
        FileProblem: this user may not read them, they are not UTF-8, or it depends on the release of systemd
            which variables there are.
    """
    text = _variables_text(config)
    if line := environment_file.continued_comment(text):
        raise FileProblem("import_environment_comment", path=variables_file(config), line=line)
    return environment_file.values_of(text)


def _variables_text(config: Path) -> str:
    return read_text(variables_file(config), problem=_NEEDS_ROOT, default="")


def is_default(config: Path) -> bool:
    """Return whether a config is the installation's own, unchanged: no server in it is the operator's."""
    try:
        return config.read_bytes() == DEFAULT_CONFIG.read_bytes()
    except OSError:
        return False


def write(config: Path, text: str | None, values: Mapping[str, str]) -> list[Path]:
    """Write the config and add variables, both or neither; return the paths of the backups of old configs.

    The broker may read the config, by a group that no client is in. Root alone may read the variables; those
    that are there stay.

    Args:
        text: the text of the config; `None` leaves it as it is.

    Raises:
        FileProblem: a file cannot be written, or the variables cannot be added.
    """
    old, path = _variables_text(config), variables_file(config)
    try:
        new = environment_file.extended(old, values)
    except environment_file.UnclosedValue as value:
        raise FileProblem("import_environment_unclosed", path=path, line=value.line) from None
    problem = _NEEDS_ROOT if os.geteuid() else "import_service_unwritable"
    written = []
    if new != old or not path.exists():
        written.append(files.NewFile(path, new, access=0o600, backup=False, problem=problem))
    if text is not None:
        owner = files.FileOwner(_group(), 0o640)
        written.append(files.NewFile(config, text, owner=owner, problem=problem))
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return files.write(*written)
    except (OSError, FileProblem) as error:
        for folder in missing:
            with suppress(OSError):  # it was not made, or is no longer empty
                folder.rmdir()
        if isinstance(error, OSError):
            raise FileProblem(problem, path=path.parent, problem=error.strerror) from None
        raise


def _group() -> int:
    group = group_id(CONFIG_GROUP)
    return -1 if group is None else group  # the installation makes the group, and gives the file to it
