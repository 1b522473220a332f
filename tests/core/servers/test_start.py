"""How long a start may take: `timeout_start_sec` as it was, and more while something is being downloaded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.servers.backoff import Backoff
from broker.core.servers.lifecycle import Action, Cause, Event, Lifecycle, State
from broker.core.servers.start import MORE_TIME, STILL_S, Activity
from broker.processes.runners import runner_of

START_S = 90.0


def backoff() -> Backoff:
    """One that does not matter here."""
    return Backoff(first_delay_s=1.0, burst=3, interval_s=60.0, rng=lambda: 0.5)


def starting(runner: str | None = None, start_s: float = START_S) -> Lifecycle:
    """A server whose process came at 0."""
    server = Lifecycle(restart="always", start_s=start_s, backoff=backoff(), runner=runner)
    server.on(Event.START, 0.0)
    server.on(Event.SPAWNED, 0.0)
    return server


def timed_out(server: Lifecycle) -> float:
    """When it is ended, if nothing more happens."""
    while server.state is State.HANDSHAKE:
        assert server.wake_at is not None
        now = server.wake_at
        server.on(Event.TIMEOUT, now)
    return now


# --- timeout_start_sec as it was --------------------------------------------------------------------------


def test_the_value_that_applied_is_named() -> None:
    """Seen: the reloaded value was named, the old one applied."""
    server = starting(start_s=5.0)
    server.retune(restart="always", start_s=300.0, backoff=backoff())
    assert timed_out(server) == 5.0
    assert server.reason == "it was not ready within 5 s (timeout_start_sec = 5; its next start has 300 s)"
    server.on(Event.GONE, 6.0)
    assert server.last_cause == Cause("not-ready", {"within_s": 5.0})


def test_the_next_start_has_the_new_value() -> None:
    """A reload holds from the next start on."""
    server = starting(start_s=5.0)
    server.retune(restart="always", start_s=300.0, backoff=backoff())
    timed_out(server)
    server.on(Event.GONE, 6.0)
    server.on(Event.START, 10.0)
    server.on(Event.SPAWNED, 10.0)
    assert timed_out(server) == 310.0
    assert server.reason.startswith("it was not ready within 300 s (timeout_start_sec = 300; raise it")


def test_signs_of_life_give_an_ordinary_command_no_more_time() -> None:
    """A server that logs and never answers is found in time."""
    server = starting()
    for second in range(90):
        server.alive(second)
    assert timed_out(server) == START_S


# --- more, while something is being downloaded --------------------------------------------------------------


def test_a_download_that_goes_on_is_given_more_time() -> None:
    """To end it would lose what was downloaded."""
    server = starting("npx")
    for second in range(0, 400, 20):
        server.alive(second)
        if server.wake_at is not None and server.wake_at <= second:
            assert server.on(Event.TIMEOUT, second) is Action.NONE
    assert server.state is State.HANDSHAKE
    assert timed_out(server) == 380 + STILL_S
    assert (
        "within 440 s (timeout_start_sec = 90, more for downloads of `npx`, it had stood still"
        in server.reason
    )


def test_a_download_without_an_end_has_one() -> None:
    """So many times `timeout_start_sec`, and no more."""
    server = starting("uvx")
    now = 0.0
    while server.state is State.HANDSHAKE:
        now += 10
        server.alive(now)
        if server.wake_at is not None and server.wake_at <= now:
            server.on(Event.TIMEOUT, now)
    assert now == MORE_TIME * START_S
    assert (
        f"timeout_start_sec = 90, more for downloads of `uvx`, {MORE_TIME} times that is the most"
        in server.reason
    )


def test_a_runner_that_stands_still_has_its_ordinary_time() -> None:
    """A runner that hangs is no download."""
    assert timed_out(starting("npx")) == START_S


def test_a_server_that_has_spoken_is_downloading_nothing_any_more() -> None:
    """It has its own `timeout_start_sec` from then on, and its chatter gives it no more."""
    server = starting("npx")
    server.alive(200.0)
    server.alive(220.0, spoke=True)
    for second in range(220, 300):
        server.alive(second)
    assert timed_out(server) == 220.0 + START_S


@given(
    st.sampled_from([None, "npx"]),
    st.floats(0.1, 600),
    st.lists(st.tuples(st.floats(0, 9000), st.booleans())),
)
def test_every_start_ends_in_time(
    runner: str | None, start_s: float, signs: list[tuple[float, bool]]
) -> None:
    """Law 2: whatever it shows, not before `timeout_start_sec` and not after so many times that."""
    server = starting(runner, start_s)
    for now, spoke in sorted(signs):
        while server.state is State.HANDSHAKE and server.wake_at is not None and server.wake_at <= now:
            server.on(Event.TIMEOUT, server.wake_at)
        if server.state is State.HANDSHAKE:
            server.alive(now, spoke=spoke)
    ended = server.since_s if server.state is not State.HANDSHAKE else timed_out(server)
    assert start_s <= ended <= start_s * (MORE_TIME if runner else 1)


BEFORE = Activity(frozenset({1, 2}), 1.0, 10_000)


@pytest.mark.parametrize(
    ("after", "does_something"),
    [
        (BEFORE, False),
        (Activity(frozenset({1, 2}), 1.05, 10_200), False),  # it waits, and looks at its clock
        (Activity(frozenset({1, 2}), 1.0, 90_000), True),
        (Activity(frozenset({1, 2}), 1.5, 10_000), True),
        (Activity(frozenset({1, 3}), 1.0, 10_000), True),
    ],
)
def test_a_tree_that_does_something_lives(after: Activity, does_something: bool) -> None:
    """By its processes, the CPU and what it reads and writes, in five seconds."""
    assert after.since(BEFORE, 5.0) is does_something


# --- which commands may download ----------------------------------------------------------------------------

RUNNERS = {
    "npx -y @example/server": "npx",
    "/usr/local/bin/npx @example/server": "npx",
    "npx.cmd -y x": "npx",
    "uvx mcp-server-time": "uvx",
    "uv run --with mcp server.py": "uv run",
    "uv --directory /srv run server.py": "uv run",
    "uv tool run mcp-server-time": "uv tool run",
    "pipx run mcp-server-time": "pipx",
    "npm exec -- @example/server": "npm exec",
    "npm --prefix /srv exec x": "npm exec",
    "pnpm dlx x": "pnpm dlx",
    "yarn dlx x": "yarn dlx",
    "bunx x": "bunx",
    "bun x y": "bun x",
    "docker run -i --rm mcp/fetch": "docker run",
    "docker --context far run -i mcp/fetch": "docker run",
    "podman run -i mcp/fetch": "podman run",
    "deno run -A npm:x": "deno run",
    "go run example.com/x@latest": "go run",
    "env KEY=1 npx x": "npx",
    "nice -n 5 uvx x": "uvx",
    "sh -c 'cd /srv && exec npx -y x'": "npx",
    "bash -lc 'KEY=1 uvx x'": "uvx",
}
PLAIN = (
    "python3 server.py",
    "node index.js",
    "uv pip list",
    "npm start",
    "npm run exec",
    "docker exec -i one server",
    "docker compose run x",
    "./npx-like.sh",
    "sh -c 'node x; sleep 1'",
    "sh -c 'a && \"b'",
    "sh",
    "env",
    "sh -c ''",
    "python3 -m npx",
)


@pytest.mark.parametrize(("line", "runner"), [*RUNNERS.items(), *((line, None) for line in PLAIN)])
def test_a_runner_is_known_by_its_command(line: str, runner: str | None) -> None:
    """Only what fetches a package or an image before the server runs."""
    import shlex

    command, *args = shlex.split(line)
    assert runner_of(command, args) == runner


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=8))
def test_any_command_is_taken(command: str, args: list[str]) -> None:
    """Whatever a config names."""
    runner_of(command, args)
    runner_of("sh", ["-c", " ".join(args)])
