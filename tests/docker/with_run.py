"""The checks of the image by itself, with `docker run`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.docker.backends import EARLY, ONE_CALL, REFUSED, moment, rogue
from tests.docker.engine import IMAGE, PATIENCE_S, ROOT, Figure, Place, Stack, docker, inspect, until

MIB = 1024 * 1024


def backend_first(stack: Stack, place: Place) -> Iterator[Figure]:
    """The backend starts before there is a broker: `connect` fails at once, and a call waits for the broker.

    The volume is new: what mounts it first must not decide whom the folder in it belongs to.
    """
    socket, config = place.volume(), place.config(rogue("one"))
    with place.client_in_background(socket, EARLY) as backend:
        assert backend.stdout is not None
        code = backend.stdout.readline().strip()
        broker = place.serve(config, socket)
        out, errors = backend.communicate(timeout=PATIENCE_S)
    assert code == "no-broker", (code, errors)
    assert backend.returncode == 0, errors
    began, ended, text = json.loads(out)
    started = moment(inspect(broker)["State"]["StartedAt"])
    assert began < started, "the broker was there before the call"
    assert "hello" in text, text
    yield "answered", ended - started, None


def other_users(stack: Stack, place: Place) -> Iterator[Figure]:
    """`docker run` as the page shows it: a user in the group is answered, one outside is refused at once."""
    socket = place.volume()
    broker = place.serve(place.config(rogue("one")), socket)
    place.until_healthy(broker)
    script = ONE_CALL.format(server="one", tool="echo", arguments={"text": "hello"})
    inside = place.client(socket, script)
    assert "hello" in inside.stdout, inside.said
    code, message, took_s = json.loads(place.client(socket, REFUSED, group=None).stdout)
    assert code == "not-allowed"
    assert "10001" in message
    yield "refused", took_s, 1.0
    elsewhere = place.client(place.volume(), REFUSED)
    code, message, took_s = json.loads(elsewhere.stdout)
    assert code == "no-broker"
    assert "docker compose up -d mcp-broker" in message
    assert "systemctl" not in message


def imported(stack: Stack, place: Place) -> Iterator[Figure]:
    """A config as `import` writes it lets the backend in; one that closes the socket is told so."""
    entry = {"command": "python", "args": ["/srv/rogue/tests/servers/rogue.py"]}
    folder = place.config(json.dumps({"mcp_servers": {"one": entry}}), "mcp_servers.json")
    folder.chmod(0o777)
    files = [f"/etc/mcp-broker/{name}" for name in ("mcp_servers.json", "broker.toml")]
    docker(
        *("run", "--rm", "-v", f"{folder}:/etc/mcp-broker", IMAGE),
        *("import", files[0], "--output", files[1]),
    )
    assert "[broker]" not in (folder / "broker.toml").read_text()
    folder.chmod(0o755)
    socket = place.volume()
    place.until_healthy(place.serve(folder, socket))
    script = ONE_CALL.format(server="one", tool="echo", arguments={"text": "hello"})
    done = place.client(socket, script)
    assert "hello" in done.stdout, done.said

    closed = place.config('[broker]\nsocket_mode = "0600"\n' + rogue("one"))
    broker = place.serve(closed, place.volume())
    until(lambda: docker("exec", broker, "mcp-broker", "status", status=None).returncode == 0)
    said = docker("exec", broker, "mcp-broker", "status", "--broker", status=1).stderr
    assert "remove socket_mode from [broker]" in said, said
    docker("exec", broker, "mcp-broker", "check", "--config", "/etc/mcp-broker/broker.toml", status=1)
    return iter(())


def memory(stack: Stack, place: Place) -> Iterator[Figure]:
    """At the memory limit the kernel kills a server, though the broker is larger; all others stay.

    Most of the memory is filled by a file in /tmp, which is no process's. What is left is so little that the
    server that takes it is smaller than the broker even then.
    """
    socket, limit = place.volume(), 200 * MIB
    config = place.config(rogue("large") + rogue("small"))
    broker = place.serve(config, socket, "--memory", str(limit), "--memory-swap", str(limit))
    place.until_healthy(broker)
    until(lambda: docker("exec", broker, "mcp-broker", "status", status=None).returncode == 0)

    def seen() -> dict[str, Any]:
        found = json.loads(docker("exec", broker, "mcp-broker", "status", "--json", status=None).stdout)
        return {"broker": found["broker"], **{one["name"]: one for one in found["servers"]}}

    before = seen()
    left = 12 * MIB
    own, most = before["broker"]["rss_bytes"], before["large"]["rss_bytes"] + left
    assert most < own, "the server would be the larger process"
    fill = limit - taken_bytes(broker) - left
    docker("exec", broker, "sh", "-c", f"head -c {fill} /dev/zero >/tmp/fill")
    script = ONE_CALL.format(server="large", tool="big", arguments={"bytes": 600_000_000, "kind": "text"})
    done = place.client(socket, script)
    docker("update", "--memory", str(4 * limit), "--memory-swap", str(4 * limit), broker)
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr, done.said
    until(lambda: docker("exec", broker, "mcp-broker", "status", status=None).returncode == 0)
    after = seen()
    assert after["broker"]["instance"] == before["broker"]["instance"]
    assert after["small"]["pid"] == before["small"]["pid"]
    assert after["large"]["pid"] != before["large"]["pid"]
    yield "broker_mb", own / 1e6, None
    yield "server_mb", most / 1e6, round(own / 1e6, 1)


def taken_bytes(container: str) -> int:
    """What of a container's memory the kernel cannot take back: all of it but the cache of files."""
    version_2, version_1 = (
        "cat memory.current memory.stat",
        "cat memory/memory.usage_in_bytes memory/memory.stat",
    )
    script = f"cd /sys/fs/cgroup && {{ {version_2} 2>/dev/null || {version_1}; }}"
    usage, *rows = docker("exec", container, "sh", "-c", script).stdout.splitlines()
    stat = {name: int(value) for name, value in map(str.split, rows)}
    return int(usage) - stat["active_file"] - stat["inactive_file"]


def derived(stack: Stack, place: Place) -> Iterator[Figure]:
    """The Dockerfile of the page, built on the image: it has its program, and runs as the same user."""
    page = (ROOT / "docs/docker.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```dockerfile\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    folder = place.config(text.replace("FROM mcp-broker", f"FROM {IMAGE}"), "Dockerfile")
    docker("build", "-t", f"{IMAGE}-derived", str(folder), timeout_s=300)
    said = docker(
        "run", "--rm", "--entrypoint", "sh", f"{IMAGE}-derived", "-c", "id -u; git --version"
    ).stdout
    docker("image", "rm", f"{IMAGE}-derived")
    assert re.fullmatch(r"10001\ngit version .*\n", said), said
    return iter(())


def foreign_folder(stack: Stack, place: Place) -> Iterator[Figure]:
    """A folder of root's in place of the volume: the broker says whose it is, who it is, and `chown`."""
    folder = place.folder / "of-root"
    folder.mkdir(mode=0o755)
    broker = place.serve(place.config(rogue("one")), str(folder))
    until(lambda: inspect(broker)["State"]["Status"] == "exited")
    said = docker("logs", broker).said
    assert "belongs to 0:0 with mode 0755, and this broker is 10001:10001" in said, said
    assert "`chown 10001:10001 /run/mcp-broker`" in said, said
    folder.chmod(0o700)
    run_as_root = ("run", "--rm", "--user", "0", "--entrypoint", "chown", "-v", f"{folder}:/run/mcp-broker")
    docker(*run_as_root, IMAGE, "10001:10001", "/run/mcp-broker")
    place.until_healthy(place.serve(place.config(rogue("one")), str(folder)))
    return iter(())
