"""Servers that are containers: `docker run …` and `podman run …`.

A container is no descendant of the command that runs it. It goes on when that is killed, and nothing that a
process tree is known by is in it. So the command is told to write the container's id into a file
(`--cidfile`), and by that id the container is removed when the tree ends.

Source: the references of `docker container run` and of podman-run(1), and what docker 28 does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Struct

ENGINES = ("docker", "podman")
_OF_ENGINES = ("DOCKER_", "CONTAINER_", "CONTAINERS_")
"""What the variables begin with that say which engine a command talks to."""

_GLOBAL_SWITCHES = frozenset(
    (
        *("-D", "--debug", "--tls", "--tlsverify", "-v", "--version", "--help", "-h"),  # docker
        *("-r", "--remote", "--syslog", "--noout", "--trace", "--transient-store"),  # podman
    )
)
"""Options before `run` that take no value; all others do."""

_RUN_SWITCHES = frozenset(
    (
        *("--detach", "--disable-content-trust", "--help", "--init", "--interactive", "--no-healthcheck"),
        *("--oom-kill-disable", "--privileged", "--publish-all", "--quiet", "--read-only", "--rm"),
        *("--sig-proxy", "--tty", "--use-api-socket"),
        *("--env-host", "--http-proxy", "--no-hostname", "--no-hosts", "--passwd"),  # podman's own
        *("--read-only-tmpfs", "--replace", "--rmi", "--rootfs", "--tls-verify", "--unsetenv-all"),
    )
)
_RUN_LETTERS = "ditPqh"
"""Letters among the options of `run` that take no value, and may stand together, as in `-it`."""

_ID = re.compile(r"[0-9a-f]{12,64}")
_GONE = re.compile(
    r"no such container|no container with|removal of container \S+ is already in progress", re.IGNORECASE
)


class Container(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """By what the container of one process tree is found and removed.

    `engine` is the command that runs it, with the options that say which engine it talks to. `cidfile` is the
    absolute path of the file that the container's id is written to. `volumes`: its anonymous volumes go
    with it, as `--rm` has it.
    """

    engine: tuple[str, ...]
    cidfile: str
    volumes: bool = False

    def removal(self, id: str) -> list[str]:
        """The command that ends this container with SIGKILL and removes it, running or not."""
        volumes = ["--volumes"] if self.volumes else []
        return [*self.engine, "rm", "--force", *volumes, id]

    def noted(self, environ: Mapping[str, str]) -> ContainerNote:
        """As it is written down; `environ` is that of the command."""
        program, *options = self.engine
        return ContainerNote(
            engine=program.rpartition("/")[2],
            where=where_of(options, environ),
            cidfile=self.cidfile,
            volumes=self.volumes,
        )


class ContainerNote(Struct, frozen=True, kw_only=True):
    """What is written down of a container: too little to run anything by.

    `engine` is the name of a program, `where` tells whether another command would talk to the same engine
    (`where_of`). What they stand for is the config's and the broker's own to say.
    """

    engine: str
    where: str
    cidfile: str
    volumes: bool = False


def where_of(options: Sequence[str], environ: Mapping[str, str]) -> str:
    """A digest of what says which engine a command talks to: its options before `run`, and its variables."""
    named = sorted(f"{name}={value}" for name, value in environ.items() if name.startswith(_OF_ENGINES))
    words = "\0".join([*options, "", *named]).encode(errors="surrogateescape")
    return blake2b(words, digest_size=8).hexdigest()


class RunCommand(NamedTuple):
    """A command line that runs a container.

    `at` is where the options of `run` begin among its arguments; `cidfile` is what it names already.
    """

    options: tuple[str, ...]
    at: int
    cidfile: str | None
    removes_itself: bool

    def told(self, args: Sequence[str], cidfile: str) -> tuple[str, ...]:
        """The arguments, with a file for the id of the container where they name none."""
        if self.cidfile is not None:
            return tuple(args)
        return (*args[: self.at], "--cidfile", cidfile, *args[self.at :])


def run_of(command: str, args: Sequence[str]) -> RunCommand | None:
    """What a command line says about the container that it runs; `None` where it runs none."""
    if command.rpartition("/")[2] not in ENGINES:
        return None
    at = _after_switches(args, 0)
    options = tuple(args[:at])
    if list(args[at : at + 1]) == ["container"]:  # `docker container run` is the same
        at += 1
    if list(args[at : at + 1]) != ["run"]:
        return None
    given = dict(_run_options(args[at + 1 :]))
    return RunCommand(options, at + 1, given.get("--cidfile"), given.get("--rm", "false") != "false")


def _after_switches(args: Sequence[str], at: int) -> int:
    """Where the options end that stand before the name of the command."""
    while at < len(args) and args[at].startswith("-"):
        at += 1 if args[at] in _GLOBAL_SWITCHES or "=" in args[at] else 2
    return at


def _run_options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The long options of `run` and their values, up to the image: what stands behind it is the server's."""
    words = iter(args)
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            return
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            if not equals:
                value = "true" if name in _RUN_SWITCHES else next(words, "")
            yield name, value
        elif len(word[1:].lstrip(_RUN_LETTERS)) == 1:
            next(words, "")  # `-e NAME=value`, `-ip 80:80`; in `-eNAME=value` it is in the word itself


def id_in(text: str) -> str | None:
    """The id of a container, from the file that it was written to; `None` where it is none, or not whole."""
    found = text.strip()
    return found if _ID.fullmatch(found) else None


def is_gone(said: str) -> bool:
    """Whether an engine that would not remove a container says that there is none any more."""
    return _GONE.search(said) is not None
