"""The lines that a server wrote, without what is drawn around them; and what a reader of them finds.

Sources: the borders of exception groups (PEP 654), and the boxes of rich and typer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum

from msgspec import Struct


class Rank(IntEnum):
    """How much a report says about the end."""

    BELOW = 0  # a line that goes on with another one
    LINE = 1  # a line that carries no sign
    WRAPPER = 2  # what only says that something has failed, as the wrapper of a program does
    ERROR = 3  # a line that calls itself an error
    EXCEPTION = 4  # an exception, a panic, the refusal of a package manager


class ErrorReport(Struct, frozen=True):
    """What some lines say together; `end` is the index behind the last of them."""

    text: str
    rank: Rank
    end: int


Reader = Callable[[Sequence[str], int], ErrorReport | None]
"""Reads the report that begins with this line, if one of its kind does."""


def rest(plain: Sequence[str], at: int) -> Iterator[tuple[int, str]]:
    return ((number, plain[number]) for number in range(at, len(plain)))


# --- borders and noise ------------------------------------------------------------------------------------

_BORDER = re.compile(r"[\s\u2500-\u257f+|=*_~^#.-]*")
_GROUP_BORDER = re.compile(r"\s*\+[-+]+ (?:\d+|\.\.\.) -+\s*")
_GROUP = re.compile(r"\s*(?:\||\+(?= Exception Group))(?: |$)")
_SIDE = re.compile(r"(?:[\u2502\u2503\u2551] ?)+")
_TITLE = re.compile(
    r"\s*[\u256d\u250c\u250f\u2554][\u2500\u2501\u2550 ]+(?P<title>[^\u2500-\u257f]*?)[\s\u2500-\u257f]*"
)

NOISE = re.compile(
    r"Node\.js v\d|Bun v\d|exit status \d|note: |stack backtrace:|goroutine \d|\[signal |"
    r"npm (?:error|ERR!) A complete log|npm (?:notice|warn|WARN)\b|Log files were not written|"
    r"(?i:usage:)|Try '|Try \"|For more information|See '|Require stack:|hint: |help: |"
    r"The following executables are available|Stack trace:|\.\.\. \d+ more|\(Use `node |"
    r"BEGIN failed--|\*\*\*|"
    r"(?:[\w./-]*:)? ?(?:Terminated|Killed)$"
)
"""What says nothing about a cause."""


def without_border(line: str) -> str:
    """The line without what is drawn around it, with its indentation; "" for one that is only drawn."""
    if title := _TITLE.fullmatch(line):
        return BOX + title["title"] if title["title"] else ""
    if _GROUP_BORDER.fullmatch(line):
        return SIBLING
    if _BORDER.fullmatch(line):
        return ""
    if group := _GROUP.match(line):
        return line[group.end() :].rstrip()
    stripped = line.strip()
    if side := _SIDE.match(stripped):
        inner = stripped[side.end() :].rstrip("\u2502\u2503\u2551 ")
        closed = stripped.endswith(("\u2502", "\u2503", "\u2551"))  # or it goes on with the line above
        return "" if _BORDER.fullmatch(inner) else inner if closed else f"      {inner}"
    return line.rstrip()


SIBLING = "- "
"""Stands before each exception of a group."""

BOX = "\u256d "
"""Begins the title of a box, as rich and typer draw them."""


def joined(text: str, cause: str | None) -> str:
    """What happened, with why where that is known."""
    return f"{text} (caused by {cause})" if cause else text
