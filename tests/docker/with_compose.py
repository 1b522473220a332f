"""The checks of compose.yaml, in this order: each goes on where the one before has ended."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from tests.docker.backends import (
    ONE_CALL,
    logged,
    moment,
    restarted,
    under_calls,
    with_server,
)
from tests.docker.engine import IMAGE, PORT, PROJECT, Figure, Place, Stack, docker, inspect, until


def in_container(stack: Stack, *command: str) -> str:
    """What a command prints in the broker's container."""
    return stack("exec", "-T", "mcp-broker", *command).stdout


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
    """`docker compose restart` twice under a backend that calls all the time: no call fails.

    The old broker answers the call that it has begun, and the next one those that wait for it.
    """
    with with_server(stack, "slow"), under_calls(stack, "slow") as calls:
        restarts = [restarted(stack), restarted(stack)]
        stack.until_ready()
    first = restarts[0]
    assert [one for one in calls if one.began < first.told < one.ended < first.ended], (first, calls)
    waited = [[call for call in calls if call.began < one.began < call.ended] for one in restarts]
    assert all(waited), (restarts, calls)
    yield "calls", len(calls), None
    yield "across", sum(map(len, waited)), None
    yield "longest_call", max(one.ended - one.began for one in calls), None


def stubborn(stack: Stack, place: Place) -> Iterator[Figure]:
    """A server that ignores its stdin's end and SIGTERM delays a restart; no call fails."""
    flags = ("--ignore-eof", "--ignore-sigterm")
    with (
        with_server(stack, "stubborn", *flags, timeout_stop_sec=1.0),
        under_calls(stack, "stubborn") as calls,
    ):
        once = restarted(stack)
        stack.until_ready()
    waited = [one for one in calls if one.began < once.began < one.ended]
    assert waited, (once, calls)
    yield "restart", once.began - once.told, 10.0
    yield "across", len(waited), None
    yield "longest_call", max(one.ended - one.began for one in calls), None


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
    docker("rm", "--force", stack.container("backend"))
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
    token = stack(
        "--profile", "gateway", "exec", "-T", "gateway", "cat", "/var/lib/mcp-broker-gateway/token"
    ).stdout.strip()
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
    assert answers == {"token": 200, "stranger": 401}, (
        answers,
        stack("--profile", "gateway", "logs", "gateway").said,
    )
    stack("--profile", "gateway", "stop", "gateway")
    assert inspect(stack.container("gateway"))["State"]["ExitCode"] == 0


def stop(stack: Stack, place: Place) -> Iterator[Figure]:
    """`docker compose stop`: exit status 0, no process is left, and no socket in the volume."""
    stack("stop", "mcp-broker")
    state = inspect(stack.container())["State"]
    told, ended = logged(stack, "broker.ending")[-1], logged(stack, "broker.ended")[-1]
    draining = min(when for when in logged(stack, "server.draining") if when >= told)
    servers = max(logged(stack, "server.stopped")) - draining
    yield "own_end", ended - told - servers, 1.0
    yield "servers_end", servers, None
    yield "container_end", moment(state["FinishedAt"]) - told, None
    assert (state["ExitCode"], state["OOMKilled"], state["Pid"]) == (0, False, 0), state
    volume = f"{PROJECT}_mcp-socket:/run/mcp-broker"
    listed = docker("run", "--rm", "--entrypoint", "ls", "-v", volume, IMAGE, "/run/mcp-broker").stdout
    assert "broker.sock\n" not in listed.replace("broker.sock.", ""), listed
    stack("--profile", "gateway", "down", "--volumes")
    yield "left", len(docker("ps", "--all", "--quiet", "--filter", f"name={IMAGE}").stdout.split()), 0
