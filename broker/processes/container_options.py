"""Command lines that run a container, `docker run …` and `podman run …`, and how the container is removed.

A container is no descendant of the command that runs it: it goes on when that command is killed, and carries
none of the marks of a process tree. So the command is told to write the container's id into a file
(`--cidfile`), and the engine removes that container when the process tree ends.

A label and `docker ps --filter` would find it too. But where the engine does not answer, only the file tells
whether there is a container at all: without it, a daemon that is down would look like a container that is
left.

Source: the references of `docker container run` and of podman-run(1), and what docker 28 does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Struct

ENGINES = ("docker", "podman")
_OF_ENGINES = ("DOCKER_", "CONTAINER_", "CONTAINERS_")
"""Prefixes of the variables that select the engine."""

_GLOBAL_SWITCHES = frozenset(
    (
        *("-D", "--debug", "--tls", "--tlsverify", "-v", "--version", "--help", "-h"),  # docker
        *("-r", "--remote", "--syslog", "--noout", "--trace", "--transient-store"),  # podman
    )
)
"""Options before `run` that take no value; all others do."""

_ID = re.compile(r"[0-9a-f]{12,64}")
_GONE = re.compile(
    r"no such container|no container with|removal of container \S+ is already in progress", re.IGNORECASE
)


class Container(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the container of one process tree is found and removed.

    `engine` is the command that runs it, with the options that select the engine. `cidfile` is the absolute
    path of the file that its id is written to. `volumes`: its anonymous volumes are removed with it, as
    `--rm` does.
    """

    engine: tuple[str, ...]
    cidfile: str
    volumes: bool = False

    def removal(self, id: str) -> list[str]:
        """Return the command that kills and removes this container, running or not."""
        volumes = ["--volumes"] if self.volumes else []
        return [*self.engine, "rm", "--force", *volumes, id]

    def noted(self, environ: Mapping[str, str]) -> ContainerNote:
        """Return what the record says of it; `environ` is the environment of the command."""
        program, *options = self.engine
        return ContainerNote(
            engine=program.rpartition("/")[2],
            where=where_of(options, environ),
            cidfile=self.cidfile,
            volumes=self.volumes,
        )


class ContainerNote(Struct, frozen=True, kw_only=True):
    """The part of a record that is about a container: too little to run a program by.

    `engine` is the name of a program; `where` is equal for commands that talk to the same engine
    (`where_of`). The config and the broker's own environment say which program that is.
    """

    engine: str
    where: str
    cidfile: str
    volumes: bool = False


def where_of(options: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return a digest of the options before `run` and of the variables that select the engine."""
    named = sorted(f"{name}={value}" for name, value in environ.items() if name.startswith(_OF_ENGINES))
    words = "\0".join([*options, "", *named]).encode(errors="surrogateescape")
    return blake2b(words, digest_size=8).hexdigest()


class RunCommand(NamedTuple):
    """A command line that runs a container.

    `options` stand before `run` and select the engine; `at` is the index of the first option of `run`;
    `cidfile` is the file that the command line itself names.
    """

    options: tuple[str, ...]
    at: int
    cidfile: str | None
    removes_itself: bool

    def with_cidfile(self, args: Sequence[str], cidfile: str) -> tuple[str, ...]:
        """Return the arguments with a file for the id of the container, unless they name one."""
        if self.cidfile is not None:
            return tuple(args)
        return (*args[: self.at], "--cidfile", cidfile, *args[self.at :])


def run_of(command: str, args: Sequence[str]) -> RunCommand | None:
    """Return what a command line says about the container that it runs; `None` if it runs none.

    `--cidfile` and `--rm` are taken for options of `run` wherever they stand. Where the image begins, only a
    table of all options could tell, which would be out of date with the next release of an engine.
    """
    if command.rpartition("/")[2] not in ENGINES:
        return None
    at = _after_switches(args)
    options = tuple(args[:at])
    if list(args[at : at + 1]) == ["container"]:  # `docker container run` is the same
        at += 1
    if list(args[at : at + 1]) != ["run"]:
        return None
    given = args[at + 1 :]
    removes_itself = "--rm" in given or "--rm=true" in given
    return RunCommand(options, at + 1, _cidfile(given), removes_itself)


def _after_switches(args: Sequence[str]) -> int:
    """Return the index behind the options that stand before the subcommand."""
    at = 0
    while at < len(args) and args[at].startswith("-"):
        at += 1 if args[at] in _GLOBAL_SWITCHES or "=" in args[at] else 2
    return at


def _cidfile(given: Sequence[str]) -> str | None:
    for word, value in zip(given, (*given[1:], ""), strict=True):
        if word == "--cidfile":
            return value
        if word.startswith("--cidfile="):
            return word.removeprefix("--cidfile=")
    return None


def id_in(text: str) -> str | None:
    """Return the container id that a cidfile holds; `None` if the text is no whole id."""
    found = text.strip()
    return found if _ID.fullmatch(found) else None


def is_gone(said: str) -> bool:
    """Return whether an engine that failed to remove a container says that the container does not exist."""
    return _GONE.search(said) is not None
