"""Finds the cause of a server's end in its stderr.

The last line is seldom the cause: an exception group ends with a border, Node.js with its version, npm with
the path of a log, a Rust panic with a note. So readers find *reports* of known shapes, each with a rank, and
the last report of the highest rank is the cause.

Sources of the shapes: see `tracebacks`; the logs of npm; miette and anyhow (uv and other Rust programs).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from logging import ERROR
from typing import Any

import msgspec

from broker.upstream.stdio.severity import severity
from broker.upstream.stdio.stderr_lines import (
    BOX,
    NOISE,
    ErrorReport,
    Rank,
    Reader,
    joined,
    rest,
    without_border,
)
from broker.upstream.stdio.tracebacks import is_traceback, javascript, jvm, panic, python

MAX_CHARS = 400
"""The longest cause: `status` shows it in one line."""

_LOOK_AT = 600
"""The number of characters of a line that are searched: a long line takes time."""

_NEWER_LINES = {Rank.BELOW: 0, Rank.LINE: 0, Rank.WRAPPER: 5, Rank.ERROR: 5, Rank.EXCEPTION: 20}
"""With more ordinary lines than this below its report, the server survived the error."""


def cause_in(lines: Sequence[str]) -> str | None:
    """Return the cause that a server reported; `None` if it reported none.

    Args:
        lines: its last lines, the newest at the end, without colours and with indentation.
    """
    plain = [without_border(line if line.startswith("{") else line[:_LOOK_AT]) for line in lines]
    best: ErrorReport | None = None
    for report in _reports(plain):
        if best is None or report.rank >= best.rank or _survived(plain, best, report.end):
            best = report
    return None if best is None else _clipped(best.text)


def last_line(lines: Sequence[str]) -> str | None:
    """Return the last line that is not noise."""
    plain = (without_border(line[:_LOOK_AT]).strip() for line in reversed(lines))
    return next((_clipped(line) for line in plain if line and not NOISE.match(line)), None)


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def _survived(plain: Sequence[str], report: ErrorReport, until: int) -> bool:
    """Return whether so many ordinary lines follow that the server went on. Frames and borders do not
    count."""
    newer = sum(
        bool(line) and line[0] not in " -}" and not NOISE.match(line) for line in plain[report.end : until]
    )
    return newer > _NEWER_LINES[report.rank]


# --- reports --------------------------------------------------------------------------------------------


def _reports(plain: Sequence[str]) -> Iterator[ErrorReport]:
    at = 0
    while at < len(plain):
        report = next((found for read in _READERS if (found := read(plain, at)) is not None), None)
        if report is not None:
            yield report
        at = max(at + 1, report.end if report else 0)


_NPM = re.compile(r"npm (?:error|ERR!) ?(?P<text>.*)$")
_NPM_CODE = re.compile(r"code (?P<code>\S+)$")
_NPM_FACT = re.compile(
    r"(?:code|errno|syscall|path|dest|command|signal|workspace|location|cwd|npm|node|System) |\w*$|"
    r"\w+ (?:This is a problem|Note that|In most cases)|A complete log|Log files|    at |\}|\{|"
    r"command failed|Lifecycle script"
)
_NPM_WRAPPED = ("command failed", "Lifecycle script")


def _npm(plain: Sequence[str], at: int) -> ErrorReport | None:
    """Read an error of npm: its code and first sentence; two sentences if a package is missing."""
    end = at
    while end < len(plain) and _NPM.match(plain[end]):
        end += 1
    if end == at:
        return None
    said = [found["text"] for line in plain[at:end] if (found := _NPM.match(line))]
    code = next((found["code"] for text in said if (found := _NPM_CODE.match(text))), "")
    told = [text.strip() for text in said if text.strip() and not _NPM_FACT.match(text)]
    if not told:
        text = next((text for text in said if text.startswith(_NPM_WRAPPED)), said[0])
        return ErrorReport(f"npm error {text}", Rank.WRAPPER, end)
    shown = "; ".join(re.sub(r"^\d{3}\s+", "", text) for text in told[: 2 if code == "E404" else 1])
    return ErrorReport(f"npm error {code}: {shown}" if code else f"npm error {shown}", Rank.EXCEPTION, end)


_MIETTE = re.compile(r"\s*(?:\u00d7|x|error:) (?P<text>.+)$")
_ARROW = re.compile(r"\s*[\u2570\u251c]\u2500*\u25b6 (?P<text>.+)$")


def _miette(plain: Sequence[str], at: int) -> ErrorReport | None:
    """Read an error of uv or another Rust program: its sentence, and the causes behind the arrows."""
    begins = _MIETTE.match(plain[at])
    if begins is None or at + 1 >= len(plain) or not _ARROW.match(plain[at + 1]):
        return None
    parts, end = [begins["text"].rstrip(":")], at + 1
    for number, line in rest(plain, at + 1):
        arrow, inner = _ARROW.match(line), line.strip()
        if arrow:
            parts.append(arrow["text"])
        elif line.startswith("    ") and not inner.startswith(("hint:", "help:", "[stderr]", "[stdout]")):
            parts[-1] += f" {inner}"
        else:
            break
        end = number + 1
    return ErrorReport(": ".join(parts), Rank.EXCEPTION, end)


_ERROR = re.compile(r"(?:[\w./-]+: )?(?i:error|fatal)(?:\[\w+\])?: (?P<text>.+)$")
_CAUSED_BY = re.compile(r"\s*Caused by:(?P<text>.*)$")


def _anyhow(plain: Sequence[str], at: int) -> ErrorReport | None:
    """Read `error: …` with `Caused by:` below it, as anyhow, cargo and uv write it."""
    if not _ERROR.match(plain[at]):
        return None
    below = [(number, line) for number, line in rest(plain, at + 1) if line][:1]
    if not below or not (first := _CAUSED_BY.match(below[0][1])):
        return None
    causes, end = [first["text"].strip()], below[0][0] + 1
    while end < len(plain) and plain[end].startswith(" "):
        causes.append(re.sub(r"^(?:Caused by:|\d+:)\s*", "", plain[end].strip()))
        end += 1
    deepest = next((cause for cause in reversed(causes) if cause), None)
    return ErrorReport(joined(plain[at].strip(), deepest), Rank.EXCEPTION, end)


def _titled(plain: Sequence[str], at: int) -> ErrorReport | None:
    """Read a box with an error in its title, as typer draws it."""
    if not plain[at].startswith(BOX) or "rror" not in plain[at] or is_traceback(plain[at]):
        return None
    inside = []
    for _, line in rest(plain, at + 1):
        if not line:
            break
        inside.append(line.strip())
    return ErrorReport(" ".join(inside), Rank.EXCEPTION, at + 1 + len(inside)) if inside else None


_SIGNS = re.compile(
    r"(?i:\berror\b|\bfatal\b|\bcritical\b|\bfailed\b|\bexception\b|\bcannot\b|\bcan't\b|\bcould not\b|"
    r"\bunable to\b|\bnot found\b|\bno such file\b|\bpermission denied\b|\bis required\b|\bare required\b|"
    r"\bmissing\b|\binvalid\b|\bis not provided\b|\bnot permitted\b|\brefused\b|\bin use\b|\bnot set\b)"
)
_HARMLESS = re.compile(
    r"(?i:^\W*(?:\d[\d:.,/TZ -]*)?\W*(?:info|debug|notice|trace|warn(?:ing)?)\b)|\b(?:no|0|without) errors?\b"
)


_NAMED = re.compile(r"\s*(?:ERR_PNPM_\w+ |ERROR: |E: |\*\* \()")
"""Beginnings of errors that are indented or have no other sign."""

_EPILOGUE = re.compile(
    r"(?i:\b(?:exiting|shutting down|start-?up failed|failed to start(?: server)?|giving up|aborting|aborted"
    r"|command failed|installation failed|prevented installation)\b[^:]*$"
    r"|^error installing |possibly relevant errors)"
)
"""Messages that only announce the end; the cause is in the lines before."""


def _line(plain: Sequence[str], at: int) -> ErrorReport | None:
    """Read any other line, and rank it by the signs in it."""
    line = plain[at].strip()
    if not line or line.startswith((BOX.strip(), "- ", "at ", "from ", "}")) or NOISE.match(line):
        return None
    if line.startswith("{") and (said := _of_json(line)):
        return ErrorReport(said, Rank.ERROR, at + 1)
    line = line[:_LOOK_AT]
    return ErrorReport(line, _rank(plain[at], line), at + 1)


def _rank(line: str, text: str) -> Rank:
    if _NAMED.match(line):
        return Rank.EXCEPTION if "ERR_PNPM" in line else Rank.ERROR
    if line.startswith(" "):
        return Rank.BELOW
    if not _SIGNS.search(text) or _HARMLESS.search(text):
        return Rank.LINE
    return Rank.WRAPPER if _EPILOGUE.search(text) else Rank.ERROR


def _of_json(line: str) -> str | None:
    """Return the message of a JSON log record with level error or higher."""
    try:
        record = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return None
    level, _ = severity(line)
    if level is None or level < ERROR:
        return None
    said = [_first(record, keys) for keys in (("msg", "message", "event"), ("err", "error", "exception"))]
    return ": ".join(part for part in said if part) or None


def _first(record: dict[str, Any], keys: Sequence[str]) -> str | None:
    return next((text for key in keys if (text := _text(record.get(key)))), None)


def _text(value: object) -> str | None:
    """Return the first line of a text, or of the message in an error object."""
    inner = value.get("message") if isinstance(value, dict) else value
    return inner.splitlines()[0] if isinstance(inner, str) and inner.strip() else None


_READERS: tuple[Reader, ...] = (
    python,
    _titled,
    _npm,
    _miette,
    _anyhow,
    panic,
    jvm,
    javascript,
    _line,
)
