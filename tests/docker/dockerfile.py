"""A Dockerfile as a list of instructions: enough of its grammar to check ours, and to do what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

KNOWN = frozenset(
    (
        *("ARG", "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "VOLUME", "STOPSIGNAL", "HEALTHCHECK"),
        *("ENTRYPOINT", "CMD", "EXPOSE", "LABEL", "SHELL"),
    )
)


class Instruction(NamedTuple):
    """One instruction: its word in capitals, and what follows, as one line."""

    word: str
    rest: str

    @property
    def command(self) -> list[str]:
        """What follows, in the exec form: a JSON list, so that no shell stands before the program."""
        words: list[str] = json.loads(self.rest[self.rest.index("[") :])
        return words


def read(path: Path) -> list[list[Instruction]]:
    """The stages of a Dockerfile; what stands before the first FROM is a stage of its own."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: list[list[Instruction]] = [[]]
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word.upper() == "FROM":
                stages.append([])
            stages[-1].append(Instruction(word.upper(), rest.strip()))
    return stages


def only(stage: list[Instruction], word: str) -> Instruction:
    """The one instruction with this word."""
    (found,) = [one for one in stage if one.word == word]
    return found


def arguments(stage: list[Instruction]) -> dict[str, str]:
    """The build arguments with their defaults."""
    pairs = (one.rest.partition("=") for one in stage if one.word == "ARG")
    return {name: default for name, _, default in pairs}


def filled(text: str, given: dict[str, str]) -> str:
    """A text with each `${NAME}` replaced."""
    return re.sub(r"\$\{(\w+)\}", lambda match: given[match[1]], text)


def variables(stage: list[Instruction]) -> dict[str, str]:
    """What ENV sets, with the build arguments at their defaults."""
    given = arguments(stage)
    pairs = (pair.split("=", 1) for one in stage if one.word == "ENV" for pair in one.rest.split())
    return {name: filled(value, given) for name, value in pairs}
