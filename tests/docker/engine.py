"""A container engine by its command line, and what the checks make with it.

The standard library only: inside of `with-docker` there is nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "mcp-broker-check"
"""The name of the compose project, and what all names begin with, so that nothing of the user is touched."""

IMAGE, BACKEND = PROJECT, f"{PROJECT}-backend"
PORT = "18420"
PATIENCE_S = 120.0
"""How long anything may take; a server's first start downloads it."""

ENGLISH = {"MCP_BROKER_LANG": "en"}
"""The language of the containers, which compose.yaml takes from here: the checks read what they print."""

Figure = tuple[str, float, float | None]
"""What was measured, how much, and the most that it may be, if there is a bound."""

USER, GROUP = "1000:1000", "10001"
ENDPOINT = "ipc:///run/mcp-broker/broker.sock"


class Done(subprocess.CompletedProcess[str]):
    """A command that has ended, with how long it took."""

    took_s: float

    @property
    def said(self) -> str:
        """What it printed, on either stream."""
        return self.stdout + self.stderr


def run(*command: str, status: int | None = 0, timeout_s: float = PATIENCE_S, **environ: str) -> Done:
    """Run a command; raise if it ends with another exit status than this one. `None` takes any."""
    began = time.monotonic()
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **ENGLISH, **environ},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    done = Done(ended.args, ended.returncode, ended.stdout, ended.stderr)
    done.took_s = time.monotonic() - began
    if status is not None and done.returncode != status:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.said[-3000:]}")
    return done


def docker(*arguments: str, status: int | None = 0, timeout_s: float = PATIENCE_S) -> Done:
    """Run `docker` with these arguments."""
    return run("docker", *arguments, status=status, timeout_s=timeout_s)


def in_background(*command: str) -> subprocess.Popen[str]:
    """Start a command with pipes; its stdin ends at `communicate`."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **ENGLISH, "MCP_GATEWAY_PORT": PORT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def inspect(container: str) -> dict[str, Any]:
    """Return what the engine knows of a container."""
    (found,) = json.loads(docker("container", "inspect", container).stdout)
    return dict(found)


def until(what: Callable[[], bool], otherwise: Callable[[], str] = lambda: "") -> float:
    """Ask until it is so; return how long that took, in seconds."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > PATIENCE_S:
            raise AssertionError(f"it never came to this; {otherwise()}")
        time.sleep(0.1)
    return time.monotonic() - began


class Stack:
    """The services of compose.yaml, with images, a port and a config folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config"
        shutil.copytree(ROOT / "examples/docker/config", self.config)
        images = {"mcp-broker": IMAGE, "gateway": IMAGE, "backend": BACKEND}
        services: dict[str, dict[str, object]] = {name: {"image": image} for name, image in images.items()}
        for name in ("mcp-broker", "gateway"):
            services[name]["volumes"] = [f"{self.config}:/etc/mcp-broker:ro"]
        services["mcp-broker"]["volumes"] = [
            f"{self.config}:/etc/mcp-broker:ro",
            f"{ROOT}/tests/servers:/srv/rogue/tests/servers:ro",
        ]
        self._override = folder / "override.json"
        self._override.write_text(json.dumps({"services": services}))

    def __call__(self, *arguments: str, status: int | None = 0, timeout_s: float = PATIENCE_S) -> Done:
        """Run `docker compose` with these arguments."""
        files = ("-f", "compose.yaml", "-f", str(self._override), "-p", PROJECT)
        command = ("docker", "compose", *files, *arguments)
        return run(*command, status=status, timeout_s=timeout_s, MCP_GATEWAY_PORT=PORT)

    def broker(self, *arguments: str, status: int | None = 0) -> Done:
        """Run `mcp-broker` inside of the broker's container."""
        return self("exec", "-T", "mcp-broker", "mcp-broker", *arguments, status=status)

    def status(self) -> dict[str, Any]:
        """Return the status of the broker."""
        return dict(json.loads(self.broker("status", "--json", status=None).stdout))

    def until_ready(self) -> float:
        """Wait until every server is ready."""
        return until(
            lambda: self.broker("status", status=None).returncode == 0,
            lambda: self.broker("status", status=None).said,
        )

    def container(self, service: str = "mcp-broker") -> str:
        """Return the id of a service's container."""
        labels = {"project": PROJECT, "service": service}
        filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()]
        return docker("ps", "--all", "--quiet", *filters).stdout.strip()

    def backend(self, script: str, *arguments: str, status: int | None = 0) -> Done:
        """Run a Python script as the backend: in its image, with its user, group, volume and variable."""
        return self(
            "run", "--rm", "-T", "--no-deps", "backend", "python", "-c", script, *arguments, status=status
        )

    def in_background(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a script as `backend` does."""
        files = ("-f", "compose.yaml", "-f", str(self._override), "-p", PROJECT)
        command = ["docker", "compose", *files, "run", "--rm", "-T", "--no-deps", "backend", "python", "-c"]
        return in_background(*command, script, *arguments)

    def end(self) -> None:
        """Remove the containers, networks and volumes of the project."""
        self("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "20", status=None)


class Place:
    """What one check makes without compose: containers, volumes and folders; `end` removes them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mcp-broker-check-"))
        self.folder.chmod(0o755)
        self._containers: list[str] = []
        self._volumes: list[str] = []

    def config(self, text: str, name: str = "broker.toml") -> Path:
        """Write a config into a folder of its own; return the folder, for a mount."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        folder.chmod(0o755)
        (folder / name).write_text(text, encoding="utf-8")
        return folder

    def volume(self) -> str:
        """Make a volume."""
        name = f"{PROJECT}-{len(self._volumes)}"
        docker("volume", "create", name)
        self._volumes.append(name)
        return name

    def serve(self, config: Path, socket: str, *options: str) -> str:
        """Start the broker's image as the page does by `docker run`; return the container's name."""
        name = f"{PROJECT}-broker-{len(self._containers)}"
        self._containers.append(name)
        mounts = ("-v", f"{socket}:/run/mcp-broker", "-v", f"{config}:/etc/mcp-broker:ro")
        servers = ("-v", f"{ROOT}/tests/servers:/srv/rogue/tests/servers:ro")
        plain = ("--read-only", "--tmpfs", "/tmp", "--stop-timeout", "30")
        docker("run", "-d", "--name", name, *plain, *mounts, *servers, *options, IMAGE)
        return name

    def until_healthy(self, container: str) -> None:
        """Wait until the broker answers its health check."""
        check = ("exec", container, "mcp-broker", "status", "--broker")
        until(lambda: docker(*check, status=None).returncode == 0, lambda: docker("logs", container).said)

    def client(self, socket: str, script: str, *options: str, group: str | None = GROUP) -> Done:
        """Run a Python script in the backend's image, as its user, in this group."""
        return docker(*self._client(socket, script, *options, group=group), status=None)

    def client_in_background(self, socket: str, script: str) -> subprocess.Popen[str]:
        """Start a script as `client` does."""
        return in_background("docker", *self._client(socket, script, group=GROUP))

    def _client(self, socket: str, script: str, *options: str, group: str | None) -> tuple[str, ...]:
        groups = ("--group-add", group) if group else ()
        mount = ("-v", f"{socket}:/run/mcp-broker:ro", "-e", f"MCP_BROKER_ENDPOINT={ENDPOINT}")
        user = ("--user", USER, *groups)
        return ("run", "--rm", *user, *mount, *options, BACKEND, "python", "-c", script)

    def end(self) -> None:
        """Remove everything."""
        for name in self._containers:
            docker("rm", "--force", "--volumes", name, status=None)
        for name in self._volumes:
            docker("volume", "rm", "--force", name, status=None)
        shutil.rmtree(self.folder, ignore_errors=True)


def facts() -> dict[str, str]:
    """Return what the checks ran under. `base` tells whether `with-docker` has made the base image."""
    version = docker("run", "--rm", "--entrypoint", "python", IMAGE, "--version").stdout.split()[-1]
    return {
        "engine": docker("version", "--format", "{{.Server.Version}}").stdout.strip(),
        "compose": run("docker", "compose", "version", "--short").stdout.strip(),
        "kernel": os.uname().release.partition("-")[0],
        "load": f"{os.getloadavg()[0]:.1f}",
        "processors": str(os.cpu_count()),
        "python": version,
        "base": "made" if os.environ.get("MCP_BROKER_WITH_DOCKER") else "pulled",
    }
