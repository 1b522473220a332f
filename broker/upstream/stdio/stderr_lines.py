"""Lines of stderr without the borders that are drawn around them, and the reports in them.

Sources: the borders of exception groups (PEP 654), and the boxes of rich and typer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum

from msgspec import Struct


class Rank(IntEnum):
    """How much a report tells about the cause."""

    BELOW = 0  # a line that continues another one
    LINE = 1  # a line without a sign
    WRAPPER = 2  # a message that something failed, without the cause
    ERROR = 3  # a line that calls itself an error
    EXCEPTION = 4  # an exception, a panic, the refusal of a package manager


class ErrorReport(Struct, frozen=True):
    """The text of consecutive lines; `end` is the index behind the last one."""

    text: str
    rank: Rank
    end: int


Reader = Callable[[Sequence[str], int], ErrorReport | None]
"""Returns the report of its kind that begins at this line, if there is one."""


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
"""Lines that tell nothing about a cause."""


def without_border(line: str) -> str:
    """Return the line without its border, with its indentation; "" if it is only a border."""
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
        closed = stripped.endswith(("\u2502", "\u2503", "\u2551"))  # otherwise it continues the line above
        return "" if _BORDER.fullmatch(inner) else inner if closed else f"      {inner}"
    return line.rstrip()


SIBLING = "- "
"""Replaces the border before each exception of a group."""

BOX = "\u256d "
"""Replaces the border before the title of a box, as rich and typer draw them."""


def joined(text: str, cause: str | None) -> str:
    """Return the text with its cause, if that is known."""
    return f"{text} (caused by {cause})" if cause else text
