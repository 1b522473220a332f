"""What the image and compose.yaml do under a real engine: one function a check, in this order.

    python -m tests.docker           choose an engine, run the checks there, and write docs/docker.toml
    python -m tests.docker.checks    run them under the engine of `docker`, and print JSON

The standard library only: inside of `with-docker` there is nothing else. A check raises where something does
not hold, and yields its figures: a word, a measured number, and the most that it may be, if there is a bound.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from tests.docker.engine import (
    BACKEND,
    IMAGE,
    PORT,
    PROJECT,
    ROOT,
    Place,
    Stack,
    docker,
    facts,
    inspect,
    until,
)
from tests.docker.texts import in_language

Figure = tuple[str, float, float | None]
Check = Callable[[Stack, Place], Iterator[Figure]]

ROGUE = 'command = "python"\nargs = ["-I", "-S", "-B", "/srv/rogue/tests/servers/rogue.py"{flags}]\n'

ONE_CALL = """
import asyncio
from client_shim import BrokerClient
async def main():
    async with BrokerClient("backend") as broker:
        print((await broker.call_tool("{server}", "{tool}", {arguments})).content[0].text)
asyncio.run(main())
"""

CALLS = """
import asyncio, json, sys, time
from client_shim import BrokerClient
async def main():
    calls, failed, worst = 0, [], 0.0
    end = time.monotonic() + float(sys.argv[1])
    async with BrokerClient("backend") as broker:
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                await broker.call_tool("time", "get_current_time", {"timezone": "UTC"}, timeout=60)
            except Exception as error:
                failed.append(repr(error))
            calls, worst = calls + 1, max(worst, time.monotonic() - began)
            await asyncio.sleep(0.02)
    print(json.dumps([calls, failed, worst]))
asyncio.run(main())
"""

REFUSED = """
import asyncio, json, time
from client_shim import BrokerClient, Unavailable
async def main():
    began = time.monotonic()
    try:
        await BrokerClient("outsider").connect()
    except Unavailable as error:
        print(json.dumps([error.code, str(error), time.monotonic() - began]))
asyncio.run(main())
"""


def rogue(name: str, *flags: str, **keys: object) -> str:
    """A table of the tests' own server, which needs no download."""
    written = "".join(f', "{flag}"' for flag in flags)
    table = f"[servers.{name}]\n" + ROGUE.format(flags=written)
    return table + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def in_container(stack: Stack, *command: str) -> str:
    """What a command prints in the broker's container."""
    return stack("exec", "-T", "mcp-broker", *command).stdout


# --- with compose ------------------------------------------------------------------------------------


def build(stack: Stack, place: Place) -> Iterator[Figure]:
    """`docker compose build`: no registry but that of the base image."""
    stack("build", timeout_s=580)
    (size,) = {int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE).stdout)}
    yield "image_mb", round(size / 1e6), None


def up(stack: Stack, place: Place) -> Iterator[Figure]:
    """`docker compose up -d`: the broker is healthy within seconds, and the backend's call is answered."""
    began = time.monotonic()
    stack("up", "-d", timeout_s=300)
    yield "healthy", time.monotonic() - began, 10.0  # the backend starts when the broker is healthy
    until(lambda: inspect(stack.container("backend"))["State"]["Status"] == "exited")
    said = docker("logs", stack.container("backend")).stdout
    assert inspect(stack.container("backend"))["State"]["ExitCode"] == 0, said
    assert said.startswith("tools: get_current_time, convert_time\n"), said
    yield "answered", time.monotonic() - began, None


def status(stack: Stack, place: Place) -> Iterator[Figure]:
    """`status`, `doctor` and `ps` in the container; a server's `python` is not the broker's."""
    stack.until_ready()
    assert json.loads(stack.broker("doctor", "--json").stdout)["verdict"] == "A"
    assert len(re.findall("mcp-server-time", in_container(stack, "ps", "aux"))) >= 1
    own = stack("exec", "-T", "mcp-broker", "python", "-c", "import broker", status=1)
    assert "No module named 'broker'" in own.stderr
    assert "就绪" in in_container(stack, "env", "MCP_BROKER_LANG=zh", "mcp-broker", "status")
    yield "servers", len(stack.status()["servers"]), None


def ten_pages(stack: Stack, place: Place) -> Iterator[Figure]:
    """Ten backends come and go: each calls a tool, and no process is more than before."""
    before = {one["name"]: (one["pid"], one["processes"]) for one in stack.status()["servers"]}
    count = len(in_container(stack, "ps", "-e").splitlines())
    slowest = 0.0
    for _ in range(10):
        done = stack("run", "--rm", "-T", "--no-deps", "backend")
        assert "Asia/Tokyo" in done.stdout, done.said
        slowest = max(slowest, done.took_s)
    assert {one["name"]: (one["pid"], one["processes"]) for one in stack.status()["servers"]} == before
    yield "more_processes", len(in_container(stack, "ps", "-e").splitlines()) - count, 0
    yield "page", slowest, None


def restart(stack: Stack, place: Place) -> Iterator[Figure]:
    """`docker compose restart` twice under a backend that calls all the time: no call fails."""
    calling = stack.in_background(CALLS, "14")
    time.sleep(3)
    for _ in range(2):
        stack("restart", "mcp-broker")
        time.sleep(1)
    out, errors = calling.communicate(timeout=90)
    calls, failed, worst = json.loads(out.splitlines()[-1])
    assert not failed, (failed[:3], errors)
    yield "calls", calls, None
    yield "failed", len(failed), 0
    yield "longest_call", worst, None


def stubborn(stack: Stack, place: Place) -> Iterator[Figure]:
    """A server that ignores its stdin's end and SIGTERM delays a restart; no call fails."""
    config = stack.config / "broker.toml"
    before = config.read_text(encoding="utf-8")
    flags = ("--ignore-eof", "--ignore-sigterm")
    config.write_text(before + rogue("stubborn", *flags, timeout_stop_sec=1.0), encoding="utf-8")
    stack.broker("reload")
    until(lambda: {one["name"]: one["state"] for one in stack.status()["servers"]}.get("stubborn") == "ready")
    calling = stack.in_background(CALLS, "10")
    time.sleep(3)
    yield "restart", stack("restart", "mcp-broker").took_s, 10.0
    out, errors = calling.communicate(timeout=90)
    _, failed, worst = json.loads(out.splitlines()[-1])
    assert not failed, (failed[:3], errors)
    yield "failed", len(failed), 0
    yield "longest_call", worst, None
    config.write_text(before, encoding="utf-8")
    stack.broker("reload")


def killed(stack: Stack, place: Place) -> Iterator[Figure]:
    """SIGKILL for the broker inside of its container: Docker starts it again, with one process a server."""
    stack.until_ready()
    before = stack.status()
    began = time.monotonic()
    in_container(stack, "sh", "-c", f"kill -KILL {before['broker']['pid']}")
    script = ONE_CALL.format(server="time", tool="get_current_time", arguments={"timezone": "UTC"})
    until(lambda: stack.backend(script, status=None).returncode == 0)
    yield "answered", time.monotonic() - began, None
    stack.until_ready()
    after = stack.status()
    assert after["broker"]["instance"] != before["broker"]["instance"]
    assert inspect(stack.container())["RestartCount"] == 1
    processes = {one["name"]: one["processes"] for one in before["servers"]}
    assert {one["name"]: one["processes"] for one in after["servers"]} == processes
    in_container(stack, "sh", "-c", f"kill -KILL {after['servers'][0]['pid']}")
    stack.until_ready()
    assert stack.status()["broker"]["instance"] == after["broker"]["instance"]


def stopped_server(stack: Stack, place: Place) -> Iterator[Figure]:
    """A server that the operator has stopped: `status` says so, and the container stays healthy."""
    stack.broker("stop", "laundry-assistant")
    stack.broker("status", status=1)
    stack.broker("status", "--broker")
    stack("rm", "--stop", "--force", "backend")
    stack("up", "-d", "backend")  # it waits for a healthy broker
    stack.broker("start", "laundry-assistant")
    stack.until_ready()
    assert inspect(stack.container())["State"]["Health"]["Status"] == "healthy"
    return iter(())


def gateway(stack: Stack, place: Place) -> Iterator[Figure]:
    """The profile `gateway`: healthy, at a port of this host, and only for who has the token."""
    began = time.monotonic()
    stack("--profile", "gateway", "up", "-d", "gateway")
    until(lambda: inspect(stack.container("gateway"))["State"]["Health"]["Status"] == "healthy")
    yield "healthy", time.monotonic() - began, None
    token = stack("exec", "-T", "gateway", "cat", "/var/lib/mcp-broker-gateway/token").stdout.strip()
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    answers = {}
    for who, headers in (("token", {"Authorization": f"Bearer {token}"}), ("stranger", {})):
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/mcp/time",
            data=json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json, text/event-stream",
                **headers,
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                answers[who] = response.status
        except urllib.error.HTTPError as error:
            answers[who] = error.code
    assert answers == {"token": 200, "stranger": 401}, (answers, stack("logs", "gateway").said)
    stack("stop", "gateway")
    assert inspect(stack.container("gateway"))["State"]["ExitCode"] == 0


def stop(stack: Stack, place: Place) -> Iterator[Figure]:
    """`docker compose stop`: exit status 0, no process is left, and no socket in the volume."""
    stack("stop", "mcp-broker")
    state = inspect(stack.container())["State"]
    lines = docker("logs", "-t", stack.container()).said.splitlines()
    (*_, asked) = (line.split()[0] for line in lines if "broker.ending" in line)
    yield "stop", moment(state["FinishedAt"]) - moment(asked), 2.0
    assert (state["ExitCode"], state["OOMKilled"], state["Pid"]) == (0, False, 0), state
    volume = f"{PROJECT}_mcp-socket:/run/mcp-broker"
    listed = docker("run", "--rm", "--entrypoint", "ls", "-v", volume, IMAGE, "/run/mcp-broker").stdout
    assert "broker.sock\n" not in listed.replace("broker.sock.", ""), listed
    stack("--profile", "gateway", "down", "--volumes")
    yield "left", len(docker("ps", "--all", "--quiet", "--filter", f"name={IMAGE}").stdout.split()), 0


def moment(written: str) -> float:
    """A time as Docker writes it, in seconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})?\d*Z", r"\1+00:00", written)).timestamp()


# --- with docker run ---------------------------------------------------------------------------------


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
    """At the memory limit the kernel kills the server that takes it; the broker and the other server stay."""
    socket = place.volume()
    config = place.config(rogue("large") + rogue("small") + "[limits]\nmax_message_bytes = 1_000_000_000\n")
    broker = place.serve(config, socket, "--memory", "200m", "--memory-swap", "200m")
    place.until_healthy(broker)
    until(lambda: docker("exec", broker, "mcp-broker", "status", status=None).returncode == 0)

    def seen() -> dict[str, object]:
        found = json.loads(docker("exec", broker, "mcp-broker", "status", "--json", status=None).stdout)
        servers = {one["name"]: one["pid"] for one in found["servers"]}
        return {"broker": found["broker"]["instance"], **servers}

    before = seen()
    script = ONE_CALL.format(server="large", tool="big", arguments={"bytes": 600_000_000, "kind": "text"})
    done = place.client(socket, script)
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr, done.said
    until(lambda: docker("exec", broker, "mcp-broker", "status", status=None).returncode == 0)
    after = seen()
    assert after["large"] != before["large"]
    assert (after["broker"], after["small"]) == (before["broker"], before["small"])
    yield "restarts", inspect(broker)["RestartCount"], 0


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


CHECKS: tuple[Check, ...] = (
    *(build, up, status, ten_pages, restart, stubborn, killed, stopped_server, gateway, stop),
    *(other_users, imported, memory, derived, foreign_folder),
)


def checked(check: Check, stack: Stack) -> dict[str, object]:
    """Run one check: its figures, and the reason why it failed, if it did."""
    place, began = Place(), time.monotonic()
    figures: list[dict[str, object]] = []
    failed = ""
    try:
        for what, measured, bound in check(stack, place):
            figures.append({"what": what, "measured": round(measured, 1), "bound": bound})
            if bound is not None and measured > bound:
                failed += in_language(
                    f"{what}: {measured:.1f}, and at most {bound}; ",
                    f"{what}：{measured:.1f}，上限 {bound}；",
                )
    except Exception:
        failed = traceback.format_exc()
    finally:
        place.end()
    took_s = round(time.monotonic() - began, 1)
    ending = in_language("FAILED", "失败  ") if failed else in_language("ok    ", "通过  ")
    print(f"{ending} {check.__name__:15} {took_s:6.1f} s  {failed}", file=sys.stderr, flush=True)
    return {"name": check.__name__, "seconds": took_s, "figures": figures, "failed": failed}


def main(wanted: list[str]) -> int:
    """Run the checks, or those that are named, after the first two; print what was found as JSON."""
    found = []
    with tempfile.TemporaryDirectory(prefix="mcp-broker-check-") as folder:
        Path(folder).chmod(0o755)
        stack = Stack(Path(folder))
        stack.end()  # of a run that was cut off
        try:
            for check in CHECKS:
                if not wanted or check in (build, up) or check.__name__ in wanted:
                    found.append(checked(check, stack))
            about = facts()
        finally:
            stack.end()
            with contextlib.suppress(AssertionError):
                docker("image", "rm", "--force", IMAGE, BACKEND)
    print(json.dumps({"about": about, "checks": found}))
    return int(any(one["failed"] for one in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
