"""Acts a pod out, in the view that tests/docker/as-image makes: what a kubelet does with examples/kubernetes.

    python -m tests.kubernetes.pod FILE      in a network namespace of its own

Volumes have the owners and modes that a kubelet gives them. Each container has mounts, pids, a user and a
root of its own, as its manifest says. The image is that of tests/docker/inside.py. It prints what it saw
as JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.docker import dockerfile, inside

KUBELET = Path("/kubelet")
PATIENCE_S = 40.0
SECRETS = {"token": "token-of-the-secret", "session.key": "k" * 32}
PORTS = {"http": 8420}
TOOLS_LIST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/list",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    },
}
HEADERS = {
    "Content-Type": "application/json",
    "Mcp-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/list",
}


class Pod:
    """The pod of the Deployment in a file, with its volumes."""

    def __init__(self, file: Path) -> None:
        documents = {one["kind"]: one for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))}
        self._data: dict[str, str] = documents["ConfigMap"]["data"]
        self.spec: dict[str, Any] = documents["Deployment"]["spec"]["template"]["spec"]
        self._make_volumes()

    def container(self, name: str) -> dict[str, Any]:
        """Return a container of either list."""
        (found,) = [
            one for one in self.spec["initContainers"] + self.spec["containers"] if one["name"] == name
        ]
        return dict(found)

    def _make_volumes(self) -> None:
        """An emptyDir is root's, of mode 0777; the files of a ConfigMap or a Secret are links."""
        for volume in self.spec["volumes"]:
            folder = KUBELET / volume["name"]
            folder.mkdir(parents=True)
            folder.chmod(0o777)
            files = self._data if "configMap" in volume else SECRETS if "secret" in volume else {}
            if files:
                (folder / "..2026").mkdir(mode=0o755)
                (folder / "..data").symlink_to("..2026")
            for name, text in files.items():
                (folder / "..2026" / name).write_text(text, encoding="utf-8")
                (folder / name).symlink_to(Path("..data", name))

    def start(self, container: dict[str, Any]) -> subprocess.Popen[str]:
        """Start a container; its output goes to a file."""
        context = {**self.spec["securityContext"], **container["securityContext"]}
        steps = [step for mount in container["volumeMounts"] for step in _mount(mount)]
        if context["readOnlyRootFilesystem"]:
            steps.append("mount -o remount,bind,ro /")
        steps.append(f"exec {shlex.join([*self._as_user(context), *_command(container)])}")
        with self.log(container["name"]).open("w") as log:
            unshare = ("unshare", "--mount", "--propagation", "private", *inside.OWN_PIDS[1:])
            return subprocess.Popen(
                [*unshare, "sh", "-ec", "\n".join(steps)],
                env=_environ(container),
                stdout=log,
                stderr=log,
                text=True,
            )

    def log(self, name: str) -> Path:
        """Return the file with the output of a container."""
        return KUBELET / f"{name}.log"

    def _as_user(self, context: dict[str, Any]) -> list[str]:
        groups = [str(group) for group in context.get("supplementalGroups", [])]
        return inside.as_user(f"{context['runAsUser']}:{context['runAsGroup']}", groups)

    def succeeds(self, container: dict[str, Any], running: subprocess.Popen[str], kind: str) -> bool:
        """Return whether a probe of a container succeeds."""
        probe = container[kind]
        if "exec" in probe and not pid_of(running):
            return False
        if "exec" in probe:
            enter = ("nsenter", f"--target={pid_of(running)}", "--mount", "--pid", "--root")
            user = self._as_user({**self.spec["securityContext"], **container["securityContext"]})
            command = [*enter, *user, *probe["exec"]["command"]]
            done = subprocess.run(
                command, env=_environ(container), capture_output=True, timeout=20, check=False
            )
            return done.returncode == 0
        if "tcpSocket" in probe:
            return answers("/", {"Host": "localhost"})[0] != 0
        get = probe["httpGet"]
        assert get["port"] in PORTS
        return 200 <= answers(get["path"], {one["name"]: one["value"] for one in get["httpHeaders"]})[0] < 400


def _mount(mount: dict[str, Any]) -> list[str]:
    source, target = KUBELET / mount["name"] / mount.get("subPath", ""), Path(mount["mountPath"])
    target.mkdir(parents=True, exist_ok=True)
    steps = [f"mount --bind {source} {target}"]
    return [*steps, f"mount -o remount,bind,ro {target}"] if mount.get("readOnly") else steps


def _command(container: dict[str, Any]) -> list[str]:
    entry = dockerfile.only(inside.STAGE, "ENTRYPOINT").command[
        2:
    ]  # without tini: the shell that mounts is the first
    usual = dockerfile.only(inside.STAGE, "CMD").command
    command: list[str] = container.get("command", entry) + container.get(
        "args", [] if "command" in container else usual
    )
    return command


def _environ(container: dict[str, Any]) -> dict[str, str]:
    image = dockerfile.variables(inside.STAGE) if container["image"] == "mcp-broker" else {}
    given = {one["name"]: one["value"] for one in container.get("env", [])}
    return {"PATH": "/backend/bin:/usr/local/bin:/usr/bin:/bin", **image, **given}


def pid_of(container: subprocess.Popen[str]) -> int:
    """Return the pid of the first process of a container; 0 where it has not started yet."""
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def answers(path: str, headers: dict[str, str], body: object = None) -> tuple[int, str]:
    """Return status and text of the gateway's answer; status 0 if it does not listen."""
    connection = http.client.HTTPConnection("127.0.0.1", PORTS["http"], timeout=20)
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request("GET" if content is None else "POST", path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def until(what: Callable[[], bool], *running: subprocess.Popen[str]) -> bool:
    """Ask until it is so; return False when it takes too long or a container has ended."""
    give_up = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > give_up or any(one.poll() is not None for one in running):
            return False
        time.sleep(0.1)
    return True


def stop(container: subprocess.Popen[str]) -> int:
    """End a container as a kubelet does; return its exit status."""
    os.kill(pid_of(container), signal.SIGTERM)
    return container.wait(PATIENCE_S)


def make_backend_image() -> None:
    """What backend.Dockerfile has at the paths that the manifest names."""
    for path, text in {
        "/app/backend.py": (inside.ROOT / "examples/docker/backend.py").read_text(encoding="utf-8"),
        "/backend/bin/python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }.items():
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(text, encoding="utf-8")
        Path(path).chmod(0o755)


def main() -> None:
    """Start the containers of a pod in their order, look, and end them in the reverse order."""
    inside.build()
    make_backend_image()
    pod = Pod(Path(sys.argv[1]))
    seen: dict[str, object] = {}
    broker, last = pod.container("mcp-broker"), pod.spec["containers"][0]
    running: list[subprocess.Popen[str]] = []
    try:
        bare = {**broker, "volumeMounts": [{**one, "subPath": ""} for one in broker["volumeMounts"]]}
        seen["without folders"] = [pod.start(bare).wait(PATIENCE_S), pod.log("mcp-broker").read_text()]
        seen["folders"] = [
            pod.start(pod.container("folders")).wait(PATIENCE_S),
            pod.log("folders").read_text(),
        ]
        running.append(sidecar := pod.start(broker))
        seen["startup"] = until(lambda: pod.succeeds(broker, sidecar, "startupProbe"), sidecar)
        running.append(program := pod.start(last))
        look = look_at_gateway if last["name"] == "gateway" else look_at_backend
        seen |= look(pod, last, program)
        seen["alive"] = pod.succeeds(broker, sidecar, "livenessProbe")
        seen["ends"] = (
            [stop(one) for one in reversed(running)] if last["name"] == "gateway" else [stop(sidecar)]
        )
    finally:
        for one in running:
            one.kill()
            one.wait()
        seen["logs"] = {path.name: path.read_text() for path in KUBELET.glob("*.log")}
        print(json.dumps(seen))


def look_at_backend(pod: Pod, _: dict[str, Any], program: subprocess.Popen[str]) -> dict[str, object]:
    """What the backend of the example prints."""
    told = until(lambda: "Asia/Tokyo" in pod.log("backend").read_text(), program)
    return {"backend": [told, pod.log("backend").read_text()]}


def look_at_gateway(pod: Pod, gateway: dict[str, Any], program: subprocess.Popen[str]) -> dict[str, object]:
    """What the probes see, and clients with the token, without it, and by another name."""
    started = until(lambda: pod.succeeds(gateway, program, "startupProbe"), program)
    ready = until(lambda: pod.succeeds(gateway, program, "readinessProbe"), program)
    client = {**HEADERS, "Host": "mcp-gateway:8420", "Authorization": f"Bearer {SECRETS['token']}"}
    return {
        "gateway": [started, ready, pod.succeeds(gateway, program, "livenessProbe")],
        "client": answers("/mcp/time", client, TOOLS_LIST),
        "without token": answers("/mcp/time", {**client, "Authorization": "Bearer other"}, TOOLS_LIST)[0],
        "other name": answers("/mcp/time", {**client, "Host": "rebound.example"}, TOOLS_LIST)[0],
    }


if __name__ == "__main__":
    main()
