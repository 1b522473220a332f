"""The credentials that systemd gives a service, as variables of its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MAX_CREDENTIAL_BYTES = 65_536
"""The largest credential that can be the value of a variable; the kernel takes 128 KiB."""


def with_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, and under their names the credentials that systemd has put into a folder for it.

    `LoadCredential=API_KEY:/etc/…` makes the file API_KEY there (systemd.exec(5), "Credentials"). A variable
    that is set already stays as it is. One line end at the end of a file is not part of the value.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    found: dict[str, str] = {}
    with suppress(OSError):  # it is not there any more, say
        for path in sorted(Path(folder).iterdir()) if folder else ():
            value = _credential(path)
            if path.name.isidentifier() and value is not None:
                found[path.name] = value
    return {**found, **environ}


def _credential(path: Path) -> str | None:
    """The value in a file, or `None` where it cannot be one of a variable."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CREDENTIAL_BYTES + 1)
    except OSError:
        return None
    if len(content) > MAX_CREDENTIAL_BYTES or b"\0" in content:
        return None
    return os.fsdecode(content).removesuffix("\n")
