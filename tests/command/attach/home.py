"""A home folder with the files of hosts, as the tests of `attach` use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tomli
from click.testing import Result

COMMAND = "mcp-broker"


def programs(folder: Path, *names: str) -> Path:
    """Return a folder with these programs, which do nothing."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


class Home(NamedTuple):
    """A home folder, the folder of its programs, and the command."""

    folder: Path
    bin: Path
    run: Callable[..., Result]

    def write(self, name: str, content: object) -> Path:
        """Write a file, given as text or as what its JSON says."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        path.write_bytes(text.encode())
        return path

    def attach(self, *args: str) -> Result:
        """Attach, and make sure that it succeeds."""
        done = self.run("attach", *args)
        assert done.exit_code == 0, done.output
        return done

    def detach(self, *args: str) -> Result:
        """Detach, and make sure that it succeeds."""
        done = self.run("detach", *args)
        assert done.exit_code == 0, done.output
        return done

    def servers(self) -> dict[str, Any]:
        """Return the servers of `broker.toml`."""
        found: dict[str, Any] = tomli.loads((self.folder / "broker.toml").read_text())["servers"]
        return found

    def connecting(self, name: str) -> list[str]:
        """Return the command of an attached entry."""
        return [str(self.bin / COMMAND), "connect", name]
