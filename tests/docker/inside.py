"""Makes the image without an engine, in the view that `as-image` makes: what its Dockerfile says is done.

Not done is what needs a network: the base image and its packages. /opt/mcp-broker is the environment of the
tests, and `uv` and `uvx` are stand-ins that run what it has. tests/kubernetes acts a pod out with it;
`checks.py` runs the real image.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docker import dockerfile

ROOT = Path(__file__).resolve().parents[2]
STAGE = dockerfile.read(ROOT / "Dockerfile")[-1]
ARGUMENTS = dockerfile.arguments(STAGE)

OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

STAND_INS = {
    "uvx": 'module=$(echo "$1" | tr - _); shift; exec {python} -m "$module" "$@"',
    "uv": "for word; do file=$word; done; exec {python} $file",
}


def build() -> None:
    """What the last stage of the Dockerfile does, with stand-ins for what needs a network."""
    for path in (sys.executable, os.path.realpath(sys.executable), sys.base_prefix, ROOT / "broker"):
        for folder in Path(path).parents:
            folder.chmod(folder.stat().st_mode | 0o055)
    for one in STAGE:
        if one.word == "RUN" and "apt-get" not in one.rest:
            subprocess.run(["sh", "-c", one.rest], check=True, env={**os.environ, **ARGUMENTS})
    os.symlink(sys.prefix, "/opt/mcp-broker")
    for name, script in STAND_INS.items():
        path = Path("/usr/local/bin", name)
        beside = Path(sys.prefix, "bin", name)  # the tests have one, the environment of the image has not
        for old in (path, beside):
            old.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script.format(python=sys.executable)}\n")
        path.chmod(0o755)


def as_user(user: str, groups: list[str], *command: str) -> list[str]:
    """The command under another user, with no way to more rights."""
    uid, gid = user.split(":")
    supplementary = f"--groups={','.join(groups)}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", supplementary, "--no-new-privs", *command]
