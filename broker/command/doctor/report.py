"""The report of an examination: for a terminal, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from broker.base.secrets import Secrets
from broker.command.doctor.comparison import Comparison
from broker.command.doctor.evidence import Evidence, Page, ServerSample
from broker.command.doctor.grades import Finding, Grade
from broker.command.doctor.texts import Say
from broker.command.doctor.verdict import LEAST_PAGES, Verdict
from broker.command.layout import Column, Grid, Line, Part

MIB = 1024**2

_BAR_WIDTH = 16
_EIGHTHS = " ▏▎▍▌▋▊▉"
_COLOURS = {Grade.A: "green", Grade.B: "yellow", Grade.C: "red"}


class DoctorReport(Struct, frozen=True, kw_only=True):
    """The observations and the verdict.

    Args:
        comparison: the pages opened without the broker, if any.
        no_comparison: why the requested comparison was not possible.
    """

    endpoint: str
    broker_version: str
    evidence: Evidence
    verdict: Verdict
    comparison: Comparison | None = None
    no_comparison: str | None = None


S = TypeVar("S", bound=Struct)


def masked(seen: S, mask: Secrets) -> S:
    """Return the observations without secrets: they repeat texts of servers and their errors."""
    return msgspec.convert(mask.throughout(msgspec.to_builtins(seen)), type(seen))


def title(report: DoctorReport, say: Say) -> str:
    """Return the title of the report."""
    return say("title", pages=len(report.evidence.pages), endpoint=report.endpoint)


def _grid(columns: list[Column], rows: list[list[str]]) -> Grid:
    return Grid(columns, [[Line(cell) for cell in row] for row in rows])


def record(report: DoctorReport, say: Say) -> Grid:
    """Return the record table of the test guide, a row for each page."""
    earlier: tuple[ServerSample, ...] = report.evidence.before.servers
    rows = []
    for page in report.evidence.pages:
        client = say("closed" if page.closed else "forgotten")
        remarks = say("between").join(_remarks(page, earlier, say))
        rows.append([str(page.number), _s(page.took_s), str(page.processes), client, remarks])
        earlier = page.servers
    numbers = [Column(say(word), right=True) for word in ("number", "answer", "processes")]
    return _grid([*numbers, Column(say("client")), Column(say("remark"), folds=True)], rows)


def _remarks(page: Page, earlier: tuple[ServerSample, ...], say: Say) -> Iterator[str]:
    """Yield the changes since the page before. Servers with the same change share a remark."""
    faults = {visit.server: visit.fault for visit in page.visits if visit.fault}
    were = {server.name: server for server in earlier}
    kinds: dict[tuple[str, tuple[tuple[str, object], ...]], list[str]] = {}
    for name, fault in faults.items():
        kinds.setdefault(("at_page.died" if fault.died else f"at_page.{fault.kind}", ()), []).append(name)
    for server in page.servers:
        changed = None if server.name in faults else _change(were.get(server.name, server), server, say)
        if changed is not None:
            kinds.setdefault((changed[0], tuple(changed[1].items())), []).append(server.name)
    for (word, facts), names in kinds.items():
        yield say(word, server=_together(names, say("between_names")), **dict(facts))


def _change(was: ServerSample, now: ServerSample, say: Say) -> tuple[str, dict[str, object]] | None:
    """Return the change of a server as a word of the texts with its facts; `None` without a change."""
    if now.state not in ("ready", "idle", "disabled"):
        return "at_page.state", {"state": say(f"state.{now.state}")}
    if now.pid != was.pid:
        return "at_page.new", {}
    if now.processes != was.processes:
        return "at_page.count", {"first": was.processes, "last": now.processes}
    return None


_NAMED = 3
"""The number of names in a table cell; the findings below name every server."""


def _together(names: Sequence[str], between: str) -> str:
    more = [f"… ({len(names)})"] if len(names) > _NAMED else []
    return between.join([*names[:_NAMED], *more])


def loads(report: DoctorReport, say: Say) -> Grid:
    """Return the table of processes, memory and CPU, before and after."""
    before, after = report.evidence.before.load, report.evidence.after.load
    rows = [
        [say("processes"), str(before.processes), str(after.processes)],
        [say("memory_row"), f"{before.rss_bytes / MIB:.1f}", f"{after.rss_bytes / MIB:.1f}"],
        [say("cpu_row"), _percent(before.cpu_percent), _percent(after.cpu_percent)],
    ]
    return _grid([Column(""), Column(say("before"), right=True), Column(say("after"), right=True)], rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


class Pair(NamedTuple):
    """One page with the broker and without."""

    number: int
    old_processes: int
    processes: int
    old_open_s: float
    open_s: float


def pairs(report: DoctorReport) -> list[Pair]:
    """Return the pages that were opened both ways."""
    old = report.comparison.pages if report.comparison else ()
    return [
        Pair(was.number, was.processes, page.processes, was.open_s, page.open_s)
        for was, page in zip(old, report.evidence.pages, strict=False)
    ]


def compared(report: DoctorReport, say: Say) -> Grid:
    """Return the table of the pages that were opened both ways."""
    ways = (say("old_way"), say("broker"))
    head = [f"{say(word)}: {way}" for word in ("processes", "open_time") for way in ways]
    rows = [
        [str(one.number), str(one.old_processes), str(one.processes), _s(one.old_open_s), _s(one.open_s)]
        for one in pairs(report)
    ]
    return _grid([Column(word, right=True) for word in (say("number"), *head)], rows)


def chart(report: DoctorReport, say: Say) -> Grid:
    """Return the same as bars: processes, and the time until every tool list arrived."""
    rows: list[list[Line]] = []
    both = pairs(report)
    max_processes = max((max(one.old_processes, one.processes) for one in both), default=1)
    max_s = max((max(one.old_open_s, one.open_s) for one in both), default=1.0)
    for one in both:
        for number, way, processes, open_s, colour in (
            (str(one.number), "old_way", one.old_processes, one.old_open_s, "red"),
            ("", "broker", one.processes, one.open_s, "green"),
        ):
            bars = [_bar(processes / max_processes, colour), _bar(open_s / max_s, colour)]
            cells = [Line(number), Line(say(way)), Line(str(processes)), bars[0], Line(_s(open_s)), bars[1]]
            rows.append(cells)
    figures = [column for word in ("processes", "open_time") for column in _figure(say(word))]
    return Grid([Column(say("number"), right=True), Column(""), *figures], rows)


def _figure(name: str) -> list[Column]:
    return [Column(name, right=True), Column("")]


def _bar(share: float, colour: str) -> Line:
    whole, eighths = divmod(round(share * _BAR_WIDTH * 8), 8)
    return Line(("█" * whole + _EIGHTHS[eighths]).strip().ljust(_BAR_WIDTH), colour)


def _s(seconds: float) -> str:
    return f"{seconds:.3f}"


def notes(report: DoctorReport, say: Say) -> list[str]:
    """Return the notes below the comparison."""
    old = report.comparison
    if old is None:
        return [report.no_comparison] if report.no_comparison else []
    lines = [say("compare.meaning"), *_sum(old, report.evidence, say)]
    if old.skipped:
        lines.append(say("compare.skipped", servers=[*old.skipped]))
    if old.memory_ran_out:
        lines.append(say("compare.memory", pages=len(old.pages)))
    failed = {server: error for page in old.pages for server, error in page.failed.items()}
    for error in dict.fromkeys(failed.values()):
        servers = [server for server, other in failed.items() if other == error]
        lines.append(say("compare.failed", server=servers, error=error))
    started = max((page.processes for page in old.pages), default=0)
    lines.append(say("compare.left", count=old.left) if old.left else say("compare.ended", count=started))
    return lines


def _sum(old: Comparison, evidence: Evidence, say: Say) -> Iterator[str]:
    for last in old.pages[-1:]:
        yield say(
            "compare.sum",
            pages=last.number,
            old=last.processes,
            old_mib=round(last.rss_bytes / MIB),
            new=evidence.after.load.processes,
            new_mib=round(evidence.after.load.rss_bytes / MIB),
        )


class FindingText(NamedTuple):
    """The text of a finding. `mend` says what to do; it is empty for a remark."""

    text: str
    mend: str


def told(report: DoctorReport, say: Say, *, remarks: bool) -> list[FindingText]:
    """Return the texts of the findings, or of the remarks."""
    found = [one for one in report.verdict.findings if (one.grade is Grade.A) is remarks]
    return [tell(finding, say) for finding in found]


_ANY = {"server": "SERVER", "tool": "TOOL"}
"""The placeholders in the mend of a merged finding."""


def tell(finding: Finding, say: Say) -> FindingText:
    """Return the text of one finding."""
    facts = {**finding.facts, "server": finding.server or ""}
    if "state" in facts:
        facts["state"] = say(f"state.{facts['state']}")
    for name in ("first", "last"):
        if f"{name}_bytes" in facts:
            facts[name] = f"{int(facts[f'{name}_bytes']) / MIB:.1f}"
    names = _ANY if finding.word != finding.kind else {}
    mend = "" if finding.grade is Grade.A else say(f"{finding.kind}.mend", **{**facts, **names})
    return FindingText(say(finding.word, **facts), mend)


def conclusion(report: DoctorReport, say: Say) -> list[str]:
    """Return the verdict, its reason, and the rule about the number of processes."""
    grade, pages = report.verdict.grade.value, report.evidence.pages
    forgotten = sum(not page.closed for page in pages)
    why = [say(f"why.{grade}", pages=len(pages), forgotten=forgotten)]
    is_alone = grade == "A" and not report.evidence.clients
    if grade == "A" and len(pages) >= LEAST_PAGES:
        why.append(say("why.steady"))
    verdict = say("verdict.A.alone" if is_alone else f"verdict.{grade}")
    return [verdict, say("between_sentences").join(why), say("rule")]


def connected(report: DoctorReport, say: Say) -> str:
    """Return which client programs were connected, the first of them by name."""
    clients = [f"{name} ×{count}" for name, count in sorted(report.evidence.clients.items())]
    more = len(clients) - _MAX_CLIENTS
    shown = clients if more <= 0 else [*clients[:_MAX_CLIENTS], f"… ({len(clients)})"]
    return say("clients", clients=shown) if clients else say("no_clients")


_MAX_CLIENTS = 10


def as_parts(report: DoctorReport, say: Say) -> Iterator[Part]:
    """Yield the lines and tables of the report, for a terminal."""
    yield Line(title(report, say), "bold")
    yield record(report, say)
    yield loads(report, say)
    yield Line(connected(report, say))
    if report.comparison:
        yield Line(say("compare"), "bold")
        yield chart(report, say)
    yield from map(Line, notes(report, say))
    colour = _COLOURS[report.verdict.grade]
    for word, remarks in (("findings", False), ("remarks", True)):
        texts = told(report, say, remarks=remarks)
        if texts:
            yield Line(f"\n{say(word)}", "bold")
        for text, mend in texts:
            yield Line(f"- {text}", colour if mend else "")
            if mend:
                yield Line(mend, indent=2)
    grade, *rest = conclusion(report, say)
    yield Line(f"\n{grade}", f"bold {colour}")
    yield from map(Line, rest)


def as_json(report: DoctorReport, say: Say) -> dict[str, Any]:
    """Return the report for programs; its texts are in the reader's language."""
    evidence = report.evidence
    grade, why, rule = conclusion(report, say)
    return {
        "verdict": report.verdict.grade.value,
        "text": grade,
        "why": why,
        "rule": rule,
        "findings": [
            {
                "code": finding.word,
                "grade": finding.grade.value,
                "server": finding.server,
                "facts": finding.facts,
                **tell(finding, say)._asdict(),
            }
            for finding in report.verdict.findings
        ],
        "endpoint": report.endpoint,
        "broker_version": report.broker_version,
        "before": msgspec.to_builtins(evidence.before),
        "pages": [{"processes": page.processes, **msgspec.to_builtins(page)} for page in evidence.pages],
        "after": msgspec.to_builtins(evidence.after),
        "clients": evidence.clients,
        "clients_left": evidence.clients_left,
        "comparison": msgspec.to_builtins(report.comparison),
        "no_comparison": report.no_comparison,
    }
