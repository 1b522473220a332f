"""Credentials that systemd passes to the service, as environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MAX_CREDENTIAL_BYTES = 65_536
"""The largest credential that becomes a variable; the kernel's limit is 128 KiB."""


def with_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the credentials of systemd as variables.

    `LoadCredential=API_KEY:/etc/…` makes the file API_KEY in $CREDENTIALS_DIRECTORY (systemd.exec(5)). A
    variable that is set already keeps its value. One line end at the end of a file is removed.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    found: dict[str, str] = {}
    with suppress(OSError):  # the folder is gone, say
        for path in sorted(Path(folder).iterdir()) if folder else ():
            value = _credential(path)
            if path.name.isidentifier() and value is not None:
                found[path.name] = value
    return {**found, **environ}


def _credential(path: Path) -> str | None:
    """Return the value in a file; `None` if it cannot be the value of a variable."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CREDENTIAL_BYTES + 1)
    except OSError:
        return None
    if len(content) > MAX_CREDENTIAL_BYTES or b"\0" in content:
        return None
    return os.fsdecode(content).removesuffix("\n")
