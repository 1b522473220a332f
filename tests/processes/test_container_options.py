"""Servers that are containers: how a command line is told to name the one that it runs, and how that ends."""

from __future__ import annotations

import pytest

from broker.processes.container_options import Container, id_in, is_gone, run_of, where_of

FILE = "/state/s.cid"

TOLD = {
    ("docker", "run -i --rm mcp/time"): "run --cidfile /state/s.cid -i --rm mcp/time",
    ("podman", "run -i --rm mcp/time"): "run --cidfile /state/s.cid -i --rm mcp/time",
    ("/usr/bin/docker", "run -i mcp/time"): "run --cidfile /state/s.cid -i mcp/time",
    ("docker", "container run -i mcp/time"): "container run --cidfile /state/s.cid -i mcp/time",
    ("docker", "--context far -D run mcp/time"): "--context far -D run --cidfile /state/s.cid mcp/time",
    (
        "docker",
        "-H=ssh://far -l debug run mcp/time",
    ): "-H=ssh://far -l debug run --cidfile /state/s.cid mcp/time",
}
"""A command and its arguments → what it is run with."""


@pytest.mark.parametrize(("command", "args"), TOLD)
def test_a_file_for_the_id_is_put_in(command: str, args: str) -> None:
    """A `docker run` server gets a `--cidfile`, wherever `run` stands."""
    run = run_of(command, args.split())
    assert run is not None
    assert run.cidfile is None
    assert " ".join(run.with_cidfile(args.split(), FILE)) == TOLD[command, args]


@pytest.mark.parametrize(
    ("args", "cidfile"),
    [
        ("run -i --cidfile mine mcp/time", "mine"),
        ("run -it --cidfile=mine mcp/time", "mine"),
        ("run -ip 80:80 --rm -v /a:/b --cidfile mine mcp/time", "mine"),
        ("run -eA=1 -itd -e B=2 --label x --cidfile mine mcp/time", "mine"),
        ("run --rm=false --init --cidfile= mcp/time", ""),
        ("run --a-switch-of-tomorrow --cidfile mine mcp/time", "mine"),
        ("run mcp/time --cidfile", ""),
    ],
)
def test_a_file_that_the_user_named_stays(args: str, cidfile: str) -> None:
    """Not twice: the engine would write to one of them only."""
    run = run_of("docker", args.split())
    assert run is not None
    assert run.cidfile == cidfile
    assert run.with_cidfile(args.split(), FILE) == tuple(args.split())


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("docker", "compose run mcp"),
        ("docker", "compose -f run up"),
        ("docker", "exec -i there mcp"),
        ("docker", "start -ai there"),
        ("docker", "--context run ps"),
        ("docker", "image run"),
        ("docker", ""),
        ("docker", "--debug"),
        ("docker-mcp", "run mcp/time"),
        ("sh", "-c run"),
        ("uvx", "run docker"),
    ],
)
def test_what_runs_no_container_is_left_as_it_is(command: str, args: str) -> None:
    """Law 8: what `docker` does besides is not guessed at."""
    assert run_of(command, args.split()) is None


@pytest.mark.parametrize(
    ("args", "removal"),
    [
        ("run --rm mcp/time", "/bin/docker rm --force --volumes abc"),
        ("run mcp/time", "/bin/docker rm --force abc"),
        ("run --rm=false mcp/time", "/bin/docker rm --force abc"),
        ("run --rm=true mcp/time", "/bin/docker rm --force --volumes abc"),
        ("--context far container run mcp/time", "/bin/docker --context far rm --force abc"),
    ],
)
def test_it_is_removed_at_the_same_engine(args: str, removal: str) -> None:
    """Also without `--rm`, or a restart policy would have it run beside the next one. Anonymous
    volumes go where the user said so."""
    run = run_of("docker", args.split())
    assert run is not None
    container = Container(engine=("/bin/docker", *run.options), cidfile=FILE, volumes=run.removes_itself)
    assert " ".join(container.removal("abc")) == removal


def test_what_is_written_down_has_no_secret_and_nothing_to_run() -> None:
    """Secrets are never in the state file; and whoever could change that could run nothing by it."""
    container = Container(engine=("/opt/docker", "-H", "tcp://me:hunter2@far"), cidfile=FILE, volumes=True)
    note = container.noted({"DOCKER_HOST": "tcp://me:hunter2@far"})
    assert (note.engine, note.cidfile, note.volumes) == ("docker", FILE, True)
    assert not any(word in note.where for word in ("hunter2", "/", "far"))


def test_another_engine_is_told_from_the_same_one() -> None:
    """Law 8: an engine that never had the container says that it does not exist, and would be believed."""
    places = [
        where_of(["--context", "a"], {}),
        where_of(["--context", "b"], {}),
        where_of([], {"DOCKER_HOST": "ssh://a"}),
        where_of(["DOCKER_HOST=ssh://a"], {}),
        where_of([], {"CONTAINER_HOST": "ssh://a"}),
        where_of([], {}),
    ]
    assert len(set(places)) == len(places)
    assert where_of([], {"PATH": "/bin", "TERM": "dumb"}) == where_of([], {})


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("0123456789ab" * 5 + "0123", "0123456789ab" * 5 + "0123"),
        ("0123456789ab\n", "0123456789ab"),
        ("", None),
        ("0123", None),
        ("--all", None),
        ("0123456789ab 0123456789ab", None),
        ("0" * 65, None),
    ],
)
def test_an_id_is_whole_or_none(text: str, id: str | None) -> None:
    """Law 8: half an id may be another container's; a word may be an option."""
    assert id_in(text) == id


@pytest.mark.parametrize(
    ("said", "gone"),
    [
        ("Error response from daemon: No such container: abc", True),
        ("Error: no such container abc", True),
        ('Error: no container with ID or name "abc" found: no such container', True),
        ("Error response from daemon: removal of container abc is already in progress", True),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", False),
        ("permission denied while trying to connect to the Docker daemon socket", False),
        ("", False),
    ],
)
def test_gone_is_only_what_the_engine_says_is_gone(said: str, gone: bool) -> None:
    """Law 1: with `--rm` it removes it itself; an engine that does not answer says nothing of it."""
    assert is_gone(said) is gone
