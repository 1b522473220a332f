"""The backends that the checks run: scripts for their container, and what is known of their calls.

The standard library only: inside of `with-docker` there is nothing else.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from tests.docker.engine import Stack, docker, inspect, until

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
async def call(broker, server, tool, arguments):
    began, error = time.time(), ""
    try:
        await broker.call_tool(server, tool, arguments, timeout=60)
    except Exception as failure:
        error = repr(failure)
    return began, time.time(), error
async def main():
    calls = []
    async def go_on(*what):
        while not told.done():
            calls.append(await call(broker, *what))
            await asyncio.sleep(0.02)
    async with BrokerClient("backend") as broker:
        wanted = json.loads(sys.argv[1])
        print(json.dumps([await call(broker, *what) for what in wanted]), flush=True)
        told = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        await asyncio.gather(*(go_on(*what) for what in wanted))
    print(json.dumps(calls))
asyncio.run(main())
"""

EARLY = """
import asyncio, json, time
from client_shim import BrokerClient, Unavailable
async def main():
    try:
        await BrokerClient("eager").connect()
    except Unavailable as error:
        print(error.code, flush=True)
    broker, began = BrokerClient("patient", reconnect_s=100), time.time()
    result = await broker.call_tool("one", "echo", {"text": "hello"})
    print(json.dumps([began, time.time(), result.content[0].text]))
    await broker.aclose()
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


class Call(NamedTuple):
    """A call of a backend: when it began and ended, and its error if it failed."""

    began: float
    ended: float
    error: str


@contextlib.contextmanager
def with_server(stack: Stack, name: str, *flags: str, **keys: object) -> Iterator[None]:
    """Add a server of the tests to the broker's config meanwhile."""
    config = stack.config / "broker.toml"
    before = config.read_text(encoding="utf-8")
    config.write_text(before + rogue(name, *flags, **keys), encoding="utf-8")
    stack.broker("reload")
    until(lambda: {one["name"]: one["state"] for one in stack.status()["servers"]}.get(name) == "ready")
    try:
        yield
    finally:
        config.write_text(before, encoding="utf-8")
        stack.broker("reload", status=None)


@contextlib.contextmanager
def under_calls(stack: Stack, server: str) -> Iterator[list[Call]]:
    """Let a backend call two servers without a pause, from its first answers on; the list has its calls then.

    The calls of `time` take milliseconds, those of the other server half a second, so that one of them is
    under way at any moment.
    """
    wanted = [["time", "get_current_time", {"timezone": "UTC"}], [server, "sleep", {"seconds": 0.5}]]
    made: list[Call] = []
    with stack.in_background(CALLS, json.dumps(wanted)) as backend:
        assert backend.stdout is not None
        first = backend.stdout.readline()
        try:
            assert [error for _, _, error in json.loads(first or "[]")] == ["", ""], first or "no answer"
            yield made
        finally:
            out, errors = backend.communicate(timeout=90)
    assert out, errors
    made += [Call(*one) for one in json.loads(out)]
    failed = [one.error for one in made if one.error]
    assert not failed, (failed[:3], errors)


class Restart(NamedTuple):
    """When the broker was told to end, when its container ended, and when the next one began."""

    told: float
    ended: float
    began: float


def restarted(stack: Stack) -> Restart:
    """`docker compose restart mcp-broker`."""
    stack("restart", "mcp-broker")
    state = inspect(stack.container())["State"]
    return Restart(
        logged(stack, "broker.ending")[-1], moment(state["FinishedAt"]), moment(state["StartedAt"])
    )


def logged(stack: Stack, event: str) -> list[float]:
    """When the broker wrote the lines of this event."""
    lines = map(str.split, docker("logs", "-t", stack.container()).said.splitlines())
    return [moment(words[0]) for words in lines if event in words]


def moment(written: str) -> float:
    """A time as Docker writes it, in seconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})?\d*Z", r"\1+00:00", written)).timestamp()
