"""A report of an examination: as JSON for programs, as Markdown for issues, and the rows of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from broker.base.secrets import Secrets
from broker.command.doctor.evidence import Evidence, Page, Server
from broker.command.doctor.kinds import Finding, Grade
from broker.command.doctor.old_way import OldWay
from broker.command.doctor.texts import Say
from broker.command.doctor.verdict import LEAST_PAGES, Verdict

MIB = 1024**2


class Report(Struct, frozen=True, kw_only=True):
    """Everything that was seen and found.

    Args:
        old_way: where it was compared with.
        no_comparison: why it was not, in words, where that was asked for.
    """

    endpoint: str
    broker_version: str
    evidence: Evidence
    verdict: Verdict
    old_way: OldWay | None = None
    no_comparison: str | None = None


S = TypeVar("S", bound=Struct)


def masked(seen: S, mask: Secrets) -> S:
    """Return what was seen without the secrets in it: what servers and their errors say is repeated there."""
    return msgspec.convert(mask.throughout(msgspec.to_builtins(seen)), type(seen))


class Rows(NamedTuple):
    """A table: its head, and lines of as many cells."""

    head: list[str]
    lines: list[list[str]]


def title(report: Report, say: Say) -> str:
    """What the report is of."""
    return say("title", pages=len(report.evidence.pages), endpoint=report.endpoint)


def record(report: Report, say: Say) -> Rows:
    """The record table of the test guide, a line for each page."""
    earlier: tuple[Server, ...] = report.evidence.before.servers
    lines = []
    for page in report.evidence.pages:
        client = say("closed" if page.closed else "forgotten")
        remarks = ", ".join(_remarks(page, earlier, say))
        lines.append([str(page.number), _s(page.took_s), str(page.processes), client, remarks])
        earlier = page.servers
    return Rows([say(word) for word in ("number", "answer", "processes", "client", "remark")], lines)


def _remarks(page: Page, earlier: tuple[Server, ...], say: Say) -> Iterator[str]:
    """What was other than at the page before; the servers of which it is the same are named together."""
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
        yield say(word, server=_together(names), **dict(facts))


def _change(was: Server, now: Server, say: Say) -> tuple[str, dict[str, object]] | None:
    """What has become of a server, as a word of the texts and its facts; `None` for nothing."""
    if now.state not in ("ready", "disabled"):
        return "at_page.state", {"state": say(f"state.{now.state}")}
    if now.pid != was.pid:
        return "at_page.new", {}
    if now.processes != was.processes:
        return "at_page.count", {"first": was.processes, "last": now.processes}
    return None


_NAMED = 3
"""Names in a cell of a table; the findings below it have all of them."""


def _together(names: Sequence[str]) -> str:
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])}, … ({len(names)})"


def loads(report: Report, say: Say) -> Rows:
    """Processes, memory and CPU, before and after."""
    before, after = report.evidence.before.load, report.evidence.after.load
    lines = [
        [say("processes"), str(before.processes), str(after.processes)],
        [say("memory_row"), f"{before.rss_bytes / MIB:.1f}", f"{after.rss_bytes / MIB:.1f}"],
        [say("cpu_row"), _percent(before.cpu_percent), _percent(after.cpu_percent)],
    ]
    return Rows(["", say("before"), say("after")], lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


class Pair(NamedTuple):
    """One page both ways."""

    number: int
    old_processes: int
    processes: int
    old_open_s: float
    open_s: float


def pairs(report: Report) -> list[Pair]:
    """The pages that were opened both ways."""
    old = report.old_way.pages if report.old_way else ()
    return [
        Pair(was.number, was.processes, page.processes, was.open_s, page.open_s)
        for was, page in zip(old, report.evidence.pages, strict=False)
    ]


def comparison(report: Report, say: Say) -> Rows:
    """The pages that were opened both ways, in numbers."""
    ways = (say("old_way"), say("broker"))
    head = [f"{say(word)}: {way}" for word in ("processes", "open_time") for way in ways]
    lines = [
        [str(one.number), str(one.old_processes), str(one.processes), _s(one.old_open_s), _s(one.open_s)]
        for one in pairs(report)
    ]
    return Rows([say("number"), *head], lines)


def _s(seconds: float) -> str:
    return f"{seconds:.3f}"


def notes(report: Report, say: Say) -> list[str]:
    """What is to be said about the comparison."""
    old = report.old_way
    if old is None:
        return [report.no_comparison] if report.no_comparison else []
    said = [say("compare.meaning"), *_sum(old, report.evidence, say)]
    if old.skipped:
        said.append(say("compare.skipped", servers=", ".join(old.skipped)))
    if old.memory_ran_out:
        said.append(say("compare.memory", pages=len(old.pages)))
    failed = {server: error for page in old.pages for server, error in page.failed.items()}
    for error in dict.fromkeys(failed.values()):
        servers = ", ".join(server for server, other in failed.items() if other == error)
        said.append(say("compare.failed", server=servers, error=error))
    started = max((page.processes for page in old.pages), default=0)
    said.append(say("compare.left", count=old.left) if old.left else say("compare.ended", count=started))
    return said


def _sum(old: OldWay, evidence: Evidence, say: Say) -> Iterator[str]:
    for last in old.pages[-1:]:
        yield say(
            "compare.sum",
            pages=last.number,
            old=last.processes,
            old_mib=round(last.rss_bytes / MIB),
            new=evidence.after.load.processes,
            new_mib=round(evidence.after.load.rss_bytes / MIB),
        )


class Told(NamedTuple):
    """A finding in words; `mend` is empty where there is nothing to be done."""

    text: str
    mend: str


def told(report: Report, say: Say, *, remarks: bool) -> list[Told]:
    """The findings, or the remarks, in words."""
    found = [one for one in report.verdict.findings if (one.grade is Grade.A) is remarks]
    return [tell(finding, say) for finding in found]


_ANY = {"server": "SERVER", "tool": "TOOL"}
"""Stands in the mend of what was found of many servers."""


def tell(finding: Finding, say: Say) -> Told:
    """One finding in words."""
    facts = {**finding.facts, "server": finding.server or ""}
    if "state" in facts:
        facts["state"] = say(f"state.{facts['state']}")
    for name in ("first", "last"):
        if f"{name}_bytes" in facts:
            facts[name] = f"{int(facts[f'{name}_bytes']) / MIB:.1f}"
    names = _ANY if finding.word != finding.kind else {}
    mend = "" if finding.grade is Grade.A else say(f"{finding.kind}.mend", **{**facts, **names})
    return Told(say(finding.word, **facts), mend)


def conclusion(report: Report, say: Say) -> list[str]:
    """The verdict, why it is so, and what is to be expected."""
    grade, pages = report.verdict.grade.value, report.evidence.pages
    forgotten = sum(not page.closed for page in pages)
    why = [say(f"why.{grade}", pages=len(pages), forgotten=forgotten)]
    if grade == "A" and len(pages) >= LEAST_PAGES:
        why.append(say("why.steady"))
    return [say(f"verdict.{grade}"), " ".join(why), say("rule")]


def as_json(report: Report, say: Say) -> dict[str, Any]:
    """The report for programs; its texts are in the reader's language."""
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
        "clients_left": evidence.clients_left,
        "comparison": msgspec.to_builtins(report.old_way),
        "no_comparison": report.no_comparison,
    }


def as_markdown(report: Report, say: Say) -> str:
    """The report for an issue or a mail.

    Args:
        say: a `markdown_speaker`, so that nothing in it does more than to be read.
    """
    return "\n".join(_markdown(report, say))


def _markdown(report: Report, say: Say) -> Iterator[str]:
    yield from (f"## {title(report, say)}", "", *_table(record(report, say)), "", *_table(loads(report, say)))
    if report.old_way or report.no_comparison:
        yield from ("", f"### {say('compare')}", "")
        if report.old_way:
            yield from (*_table(comparison(report, say)), "")
        yield from (f"- {note}" for note in notes(report, say))
    for word, remarks in (("findings", False), ("remarks", True)):
        items = told(report, say, remarks=remarks)
        lines = [f"- {f'{text}. {mend}' if mend else text}" for text, mend in items]
        yield from ("", f"### {say(word)}", "", *lines) if lines else ()
    grade, *rest = conclusion(report, say)
    yield from ("", f"**{grade}** {' '.join(rest)}")


def _table(rows: Rows) -> Iterator[str]:
    for number, line in enumerate([rows.head, *rows.lines]):
        cells = [cell.replace("|", "\\|") for cell in line]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{' --- |' * len(line)}"
