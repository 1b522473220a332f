"""Acts the image out, in the view that `as-image` makes: what the Dockerfile and compose.yaml say is done.

Not done is what needs a network or an engine: the base image and its packages. /opt/mcp-broker is the
environment of the tests, `uv` and `uvx` are stand-ins that run what it has, and `tini` is left out where the
machine has none. It prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.docker import dockerfile

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0
STAGE = dockerfile.read(ROOT / "Dockerfile")[-1]
ARGUMENTS = dockerfile.arguments(STAGE)
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]

OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

STAND_INS = {
    "uvx": 'module=$(echo "$1" | tr - _); shift; exec {python} -m "$module" "$@"',
    "uv": "for word; do file=$word; done; exec {python} $file",
}

ASKS_FOR_STATUS = """
import asyncio, json
from client_shim import BrokerClient
async def main():
    async with BrokerClient("backend") as broker:
        print(json.dumps(await broker.status()))
asyncio.run(main())
"""

IS_REFUSED = """
import asyncio, json, time
from client_shim import BrokerClient, Unavailable
async def main():
    began = time.monotonic()
    try:
        await BrokerClient("outsider").list_tools("time")
    except Unavailable as error:
        print(json.dumps([error.code, str(error), time.monotonic() - began]))
asyncio.run(main())
"""


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


def mount() -> None:
    """What compose.yaml mounts."""
    for volume in COMPOSE["mcp-broker"]["volumes"]:
        source, target, *_ = volume.split(":")
        Path(target).touch() if Path(source).suffix else Path(target).mkdir(exist_ok=True)
        given = str(ROOT / source) if source.startswith(".") else target
        subprocess.run(["mount", "--bind", given, target], check=True)
    if COMPOSE["mcp-broker"]["read_only"]:
        subprocess.run(["mount", "-o", "remount,bind,ro", "/"], check=True)


def as_user(user: str, groups: list[str], *command: str) -> list[str]:
    """The command under another user, with no way to more rights."""
    uid, gid = user.split(":")
    supplementary = f"--groups={','.join(groups)}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", supplementary, "--no-new-privs", *command]


def in_another_container(user: str, groups: list[str], *command: str) -> subprocess.CompletedProcess[str]:
    """A command in a pid namespace of its own, where the broker's pids mean nothing."""
    environ = {**COMPOSE["backend"]["environment"], "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    full = [*OWN_PIDS, *as_user(user, groups, sys.executable, *command)]
    return subprocess.run(full, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def main() -> None:
    """Build, start, look, stop."""
    build()
    mount()
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", **dockerfile.variables(STAGE)}
    user = f"{ARGUMENTS['UID']}:{ARGUMENTS['GID']}"
    entry = [*dockerfile.only(STAGE, "ENTRYPOINT").command, *dockerfile.only(STAGE, "CMD").command]
    seen: dict[str, object] = {"tini": shutil.which("tini") is not None}
    if not seen["tini"]:
        entry = entry[2:]
    folder = dockerfile.only(STAGE, "WORKDIR").rest
    check = as_user(user, [], *dockerfile.only(STAGE, "HEALTHCHECK").command)
    with Path("/tmp/log").open("wb") as log:
        command = [*OWN_PIDS, *as_user(user, [], *entry)]
        broker = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
    try:
        seen["health"] = wait_until_healthy(check, environ, broker)
        backend, groups = COMPOSE["backend"]["user"], COMPOSE["backend"]["group_add"]
        done = in_another_container(backend, groups, str(ROOT / "examples/docker/backend.py"))
        seen["backend"] = [done.returncode, done.stdout, done.stderr]
        seen["status"] = json.loads(in_another_container(backend, groups, "-c", ASKS_FOR_STATUS).stdout)
        seen["outsider"] = json.loads(in_another_container(backend, [], "-c", IS_REFUSED).stdout)
        socket = os.stat("/run/mcp-broker/broker.sock")
        seen["socket"] = [socket.st_mode & 0o777, socket.st_uid, socket.st_gid]
        (pid,) = map(int, Path(f"/proc/{broker.pid}/task/{broker.pid}/children").read_text().split())
        os.kill(pid, signal.SIGTERM)  # as Docker does, from the outside to the first of the container
        seen["end"] = broker.wait(PATIENCE_S)
        owners = {path.name: path.stat().st_uid for path in Path("/proc").glob("[0-9]*")}
        seen["left"] = [pid for pid, uid in owners.items() if str(uid) == ARGUMENTS["UID"]]
    finally:
        broker.kill()
        broker.wait()
        seen["log"] = Path("/tmp/log").read_text()
        print(json.dumps(seen))


def wait_until_healthy(
    check: list[str], environ: dict[str, str], broker: subprocess.Popen[bytes]
) -> list[int]:
    """Run the health check until it is content; the exit statuses that it had."""
    give_up, statuses = time.monotonic() + PATIENCE_S, list[int]()
    while time.monotonic() < give_up and broker.poll() is None:
        statuses.append(
            subprocess.run(check, env=environ, stdout=sys.stderr, cwd="/", check=False).returncode
        )
        if statuses[-1] == 0:
            break
        time.sleep(0.1)
    return statuses


if __name__ == "__main__":
    main()
