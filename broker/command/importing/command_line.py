"""Splits a whole command line that a host's entry has in `command`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.ASCII | re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:\\")


class NotSplittable(Exception):
    """The line needs a shell, or has an open quotation mark. `word` is a key of `texts`."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Words(NamedTuple):
    """The words of a command line: variables, program and arguments."""

    env: dict[str, str]
    program: str
    args: list[str]


def split(line: str, exists: Callable[[str], bool]) -> Words | None:
    """Return the words of a line; `None` if it is only a program, whose path may have spaces.

    Args:
        exists: tells whether a file exists here.

    Raises:
        NotSplittable: the line is more than a program with arguments.
    """
    if len(line.split()) < 2 or exists(line) or _DRIVE.match(line):
        return None
    env, words = {}, _words(line)
    while len(words) > 1 and (pair := _ASSIGNMENT.fullmatch(words[0])):
        env[pair[1]] = pair[2]
        del words[0]
    if not env and "/" in words[0] and not exists(words[0]):
        return None  # most likely a path with a space to a program that does not exist here
    return Words(env, words[0], words[1:])


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:
        raise NotSplittable("import_open_quotation") from None
    if any(not word.strip("();<>|&") for word in words) or "`" in line or "$(" in line:
        raise NotSplittable("import_needs_shell")
    return words
