"""Reads exceptions and panics with their stacks: of Python, JavaScript, the JVM, .NET, Rust, Go and C++.

Sources: the traceback module of CPython and PEP 654, rich.traceback, `util.inspect` of Node.js, `panic` of
Rust and Go, `Throwable.printStackTrace` of Java.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from broker.upstream.stdio.stderr_lines import BOX, SIBLING, ErrorReport, Rank, joined, rest

_HEADER = "Traceback (most recent call last)"


def is_traceback(line: str) -> bool:
    """Return whether a Python traceback begins here, perhaps behind the prefix of a logger."""
    return _HEADER in line


_PYTHON = re.compile(
    r"(?!(?:INFO|DEBUG|WARNING|WARN|ERROR|CRITICAL)\b)"
    r"(?P<name>[A-Za-z_][\w.<>]*(?: \[[\w.]+\])?)(?::(?: (?P<text>.*))?|)$"
)
_CHAIN = {
    "The above exception was the direct cause": "caused by",
    "During handling of the above exception": "while handling",
}
_GROUP_NAME = re.compile(r"(?:[\w.]*\.)?\w*ExceptionGroup$")
_IGNORED = re.compile(r"Exception ignored in|Task exception was never retrieved|Task was destroyed")


def python(plain: Sequence[str], at: int) -> ErrorReport | None:
    """Read a traceback with its chain, or the first exception in a group.

    A sub-exception stands in the group, with its own chain before it.
    """
    if not is_traceback(plain[at]):
        return None
    found: list[tuple[str, str, str]] = []  # its link to the one before, name, text
    how, end = "", at
    while end < len(plain):
        raised = _raised(plain, end)
        if raised is None:
            break
        name, text, end = raised
        found.append((how, name, text))
        end, how = _next_traceback(plain, end, grouped=bool(_GROUP_NAME.match(name)))
        if not how:
            break
    if not found:
        return None
    if any(how == "within" for how, *_ in found):
        end = _behind_siblings(plain, end)
    ignored = any(map(_IGNORED.match, plain[max(0, at - 2) : at]))
    return ErrorReport(_chained(found), Rank.WRAPPER if ignored else Rank.EXCEPTION, end)


def _behind_siblings(plain: Sequence[str], end: int) -> int:
    """Return the end of a group: only its first exception is reported."""
    for number, line in rest(plain, end):
        if line == SIBLING:
            end = number + 1
        elif end and plain[end - 1] == SIBLING and (other := python(plain, number)):
            return _behind_siblings(plain, other.end)
        elif end and plain[end - 1] == SIBLING and _PYTHON.match(line):  # an exception that was never raised
            end = number + 1
        elif line:
            break
    return end


def _raised(plain: Sequence[str], at: int) -> tuple[str, str, int] | None:
    """Return the exception below a traceback's frames: its name, its line, and the index behind it."""
    boxed = bool(is_traceback(plain[at]) and plain[at].startswith(BOX))
    for number, line in rest(plain, at + 1):
        if is_traceback(line):
            boxed = boxed or line.startswith(BOX)
            continue
        if line.startswith(" ") or (boxed and _CODE.match(line)):
            continue
        if raised := _PYTHON.match(line):
            return raised["name"], *_message(plain, number, raised["text"])
    return None


_CODE = re.compile(r"[\u2771>]? *\d+ |[^:]+:\d+ in |(?:\.\.\. )?\d+ frames|[\u2502\u2570]")


def _message(plain: Sequence[str], number: int, text: str | None) -> tuple[str, int]:
    """Return the line of an exception, with the lines below it if it only announces them."""
    line, end = plain[number].strip(), number + 1
    more = 2 if _VALIDATION.search(line) else 1 if line.endswith(":") and text is not None else 0
    while more and end < len(plain):
        if plain[end]:
            line, more = f"{line} {plain[end].strip()}", more - 1
        end += 1
    return line, end


_VALIDATION = re.compile(r"\d+ validation errors? for ")


def _next_traceback(plain: Sequence[str], at: int, *, grouped: bool) -> tuple[int, str]:
    """Return the index of the next traceback of the chain and its link; the link is "" at the end."""
    how = "within" if grouped else ""
    for number, line in rest(plain, at):
        word = next((word for begins, word in _CHAIN.items() if line.startswith(begins)), None)
        if word is not None:
            how = word
        elif is_traceback(line):
            return (number, how) if how else (at, "")
        elif grouped and plain[number - 1] == SIBLING and _PYTHON.match(line):  # never raised
            return number - 1, how
        elif line and not line.startswith((" ", BOX)) and not grouped:
            return at, ""
    return at, ""


def _chained(found: Sequence[tuple[str, str, str]]) -> str:
    """Return the exception that was raised last, and the first one of its chain."""
    start = max((number for number, (how, *_) in enumerate(found) if how == "within"), default=0)
    chain = found[start:]
    raised = chain[-1]
    if len(chain) == 1:
        return raised[2]
    return f"{raised[2]} ({raised[0]} {chain[0][2]})"


_JS = re.compile(
    r"(?:(?:error: )?Uncaught:? ?(?:\(in promise\) )?(?P<uncaught>\S.*)|"
    r"\[?(?P<error>(?:[A-Z]\w*)?(?:Error|Exception|Rejection)(?: \[[A-Z_0-9]+\])?: .*))$"
)
_FRAME = re.compile(r"\s+at |\s+\^|\s*throw |- /|\s+\[?cause\]?:|\s+\.\.\. ")
_JS_CAUSE = re.compile(r"\s+\[cause\]: (?P<error>.+?)(?: \{)?$")


def javascript(plain: Sequence[str], at: int) -> ErrorReport | None:
    """Read an error of Node.js, Deno or Bun with its stack, its properties and its cause."""
    shown = _JS.match(plain[at])
    if shown is None:
        return None
    text, end, cause = _opened(shown["uncaught"] or shown["error"]), at + 1, None
    if (frames := _first_frame(plain, at)) is not None:
        text, end = " ".join([text, *(line for line in plain[at + 1 : frames] if line)]), frames
    while end < len(plain) and (_is_below(plain[end]) or not plain[end]):
        found = _JS_CAUSE.match(plain[end])
        cause = found["error"] if found else cause
        end += 1
    stack = any(map(_FRAME.match, plain[at + 1 : end])) or end - at > 2
    return ErrorReport(
        f"{text} (caused by {cause})" if cause else text, Rank.EXCEPTION if stack else Rank.ERROR, end
    )


_MESSAGE_LINES = 8


def _first_frame(plain: Sequence[str], at: int) -> int | None:
    """Return the index of the stack, if a message of several lines stands before it."""
    for number, line in rest(plain, at + 1):
        if re.match(r"\s+at ", line):
            return number
        if number > at + _MESSAGE_LINES or _is_below(line):
            return None
    return None


def _opened(line: str) -> str:
    """Return the line without the bracket that opens an object."""
    return line.removesuffix("{").rstrip().removesuffix("]").rstrip() if line.endswith("{") else line


def _is_below(line: str) -> bool:
    return line.startswith((" ", "}", "- ", "Require stack:"))


_JVM = re.compile(
    r"(?:Exception in thread \"[^\"]*\" |Unhandled exception\. |Exception: )?"
    r"(?P<error>(?:[a-zA-Z_][\w$]*\.)+[A-Z][\w$]*(?:: .*)?)$"
)
_JVM_CAUSE = re.compile(r"(?:Caused by: |\s*---> )(?P<error>.*)$")


def jvm(plain: Sequence[str], at: int) -> ErrorReport | None:
    """Read an exception of Java or .NET with its deepest cause."""
    if not (_JVM.match(plain[at]) or _LAUNCHER.match(plain[at])):
        return None
    end, cause = at + 1, None
    while end < len(plain) and (plain[end].startswith(" ") or _JVM_CAUSE.match(plain[end])):
        found = _JVM_CAUSE.match(plain[end])
        cause = found["error"] if found else cause
        end += 1
    if not any(re.match(r"\s+at |Caused by", line) for line in plain[at + 1 : end]):
        return None
    return ErrorReport(joined(plain[at].strip(), cause), Rank.EXCEPTION, end)


_LAUNCHER = re.compile(r"Error: Could not find or load main class ")


_RUST = re.compile(r"thread '[^']*'(?: \(\d+\))? panicked at (?P<where>.*)$")


def panic(plain: Sequence[str], at: int) -> ErrorReport | None:
    """Read a panic of Rust or Go, or an uncaught exception of C++."""
    line = plain[at]
    if found := _RUST.match(line):
        below = plain[at + 1].strip() if at + 1 < len(plain) else ""
        return ErrorReport(
            f"{line} {below}" if found["where"].endswith(":") else line, Rank.EXCEPTION, at + 2
        )
    if line.startswith(("panic: ", "fatal error: ")):
        end = next((n for n, below in rest(plain, at + 1) if not below.startswith(" ")), len(plain))
        return ErrorReport(line.strip(), Rank.EXCEPTION, end)
    if line.startswith("terminate called ") and at + 1 < len(plain):
        return ErrorReport(f"{line} {plain[at + 1].strip()}", Rank.EXCEPTION, at + 2)
    return None
