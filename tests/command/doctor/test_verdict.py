"""The doctor's verdict, as a table: what was seen → the grade and what was found. No process, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.command.doctor import verdict
from broker.command.doctor.evidence import (
    Evidence,
    Load,
    Moment,
    Page,
    ServerSample,
    Stray,
    Visit,
    VisitError,
)
from broker.command.doctor.grades import (
    DETAILS,
    FINDINGS_AT_LEAST,
    GRADES,
    MANY,
    REMARKS_AT_LEAST,
    Facts,
    Finding,
    Grade,
    collected,
)
from broker.command.doctor.report import DoctorReport, record, tell
from broker.command.doctor.texts import FINDINGS, WORDS, Say, markdown_speaker, speaker
from broker.command.doctor.verdict import grows, is_slower, judge

At = Callable[[int], Any]
"""Something for each moment: 0 before the first page, N after page N, and the last once more at the end."""

MIB = 1024**2


def different(those: Mapping[str, At], name: str, n: int) -> Any:
    """What is different about one of them at a moment."""
    at = those.get(name)
    return {} if at is None else at(n)


def server(name: str, **keys: Any) -> ServerSample:
    """A ready server with one process, but for `keys`."""
    return ServerSample(**{"name": name, "state": "ready", "pid": 100, "processes": 1, **keys})


def visit(name: str, **keys: Any) -> Visit:
    """A page that listed a server's tools and called one."""
    return Visit(**{"server": name, "tool": "look", "chosen": "config", "call_s": 0.002, **keys})


def moment(servers: tuple[ServerSample, ...], **keys: Any) -> Moment:
    load = Load(processes=sum(one.processes for one in servers), rss_bytes=300 * MIB, cpu_percent=0.0)
    return Moment(**{"instance": "i", "servers": servers, "load": load, "strays": (), **keys})


def seen(
    pages: int = 10,
    *,
    visits: Mapping[str, At] | None = None,
    took: At = lambda n: 0.02,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    whole: Mapping[str, Any] | None = None,
    **servers: At,
) -> Evidence:
    """What the doctor saw of servers `a` and `b`: all is well, but for what is said.

    Args:
        servers, visits: name → the fields that are different at a moment; no visit where it is `None`.
        took: how long a page took, in seconds.
        before, after, whole: fields of the moments and of the evidence.
    """

    def at(n: int) -> tuple[ServerSample, ...]:
        return tuple(server(name, **different(servers, name, n)) for name in ("a", "b"))

    def visited(n: int) -> tuple[Visit, ...]:
        fields = {name: different(visits or {}, name, n) for name in ("a", "b")}
        return tuple(visit(name, **keys) for name, keys in fields.items() if keys is not None)

    return Evidence(
        before=moment(at(0), **(before or {})),
        pages=tuple(
            Page(number=n, closed=n % 2 == 1, open_s=0.01, took_s=took(n), visits=visited(n), servers=at(n))
            for n in range(1, pages + 1)
        ),
        after=moment(at(pages), **(after or {})),
        **{"clients": {"backend": 1}, **(whole or {})},
    )


def trees(*counts: int) -> At:
    """Sizes of a tree; the last one stays."""
    return lambda n: {"processes": counts[min(n, len(counts) - 1)]}


def state(name: str, **keys: Any) -> At:
    return lambda n: {"state": name, "pid": None, "processes": 0, **keys}


def fails(
    kind: Literal["list", "call", "tool"], pages: range = range(1, 11), *, died: bool = False, **keys: Any
) -> dict[str, At]:
    """Server `a` fails at these pages."""
    return {"a": lambda n: {"fault": VisitError(kind, "broken", died), **keys} if n in pages else {}}


def stray(kind: Literal["second", "orphan", "beside"], pid: int = 9) -> Stray:
    return Stray(server="a", pid=pid, kind=kind, by="python backend.py (pid 8)")


def strays(*found: Stray) -> dict[str, tuple[Stray, ...]]:
    return {"strays": found}


def lists(*slow: str, by_s: float = 0.2) -> dict[str, At]:
    """The lists of these servers take longer at each page."""
    return {name: lambda n: {"list_s": by_s * n} for name in slow}


def heavy(mib: int) -> dict[str, Load]:
    return {"load": Load(processes=2, rss_bytes=mib * MIB, cpu_percent=None)}


CASES: dict[str, tuple[Evidence, str, set[tuple[str, str | None]]]] = {
    # One process per server, always.
    "all is well": (seen(), "A", set()),
    "a launcher and its server": (seen(a=trees(3)), "A", {("wrapped", "a")}),
    "workers started at first use": (seen(a=trees(1, 5)), "A", {("rose", "a")}),
    "workers started over the first pages": (seen(a=trees(1, 2, 3, 4)), "A", {("rose", "a")}),
    "a helper that comes and goes": (seen(a=lambda n: {"processes": 1 + n % 2}), "A", set()),
    "helpers of many sizes": (seen(a=trees(1, 2, 1, 3, 1, 4, 1, 5, 1)), "A", set()),
    "a tree that shrinks": (seen(a=trees(3, 2, 1)), "A", set()),
    "one more at each page": (seen(a=lambda n: {"processes": 1 + n}), "C", {("grows", "a")}),
    "one more at each forgotten page": (seen(a=lambda n: {"processes": 1 + n // 2}), "C", {("grows", "a")}),
    "one more now and then": (seen(a=lambda n: {"processes": 1 + n // 4}), "C", {("grows", "a")}),
    "one more at each of two pages": (seen(2, a=lambda n: {"processes": 1 + n}), "C", {("grows", "a")}),
    "both grow": (
        seen(a=lambda n: {"processes": 1 + n}, b=lambda n: {"processes": 3 + n}),
        "C",
        {("grows", "a"), ("grows", "b")},
    ),
    "a start that was still under way": (
        seen(a=lambda n: {"processes": (0, 1, 3)[min(n, 2)], "state": "ready" if n > 1 else "starting"}),
        "A",
        {("wrapped", "a")},
    ),
    # Servers that do not do their part.
    "another pid once": (seen(a=lambda n: {"pid": 100 + (n > 4)}), "B", {("crashes", "a")}),
    "another pid at each page": (seen(a=lambda n: {"pid": 100 + n}), "B", {("crashes", "a")}),
    "a restart between two looks": (seen(a=lambda n: {"restarts": int(n > 2)}), "B", {("crashes", "a")}),
    "restarts of long ago": (seen(a=lambda n: {"restarts": 7, "last_error": "old"}), "A", set()),
    "a call that killed it": (seen(visits=fails("call", range(10, 11), died=True)), "B", {("crashes", "a")}),
    "crashed, and not back yet": (
        seen(
            a=lambda n: {"state": "backoff", "pid": None, "processes": 0} if n > 1 else {},
            visits={**fails("call", range(1, 2), died=True)},
        ),
        "B",
        {("crashes", "a")},
    ),
    "broken": (seen(a=state("broken", last_error="no such command")), "B", {("not_ready", "a")}),
    "left out": (seen(a=state("misconfigured", last_error="no K")), "B", {("misconfigured", "a")}),
    "waiting for its restart": (seen(a=state("backoff")), "B", {("not_ready", "a")}),
    "stopped by hand": (seen(a=state("stopped")), "B", {("stopped", "a")}),
    "starting": (seen(a=state("starting")), "B", {("starting", "a")}),
    "waiting for room": (
        seen(a=state("starting", room={"limit": "max_running", "value": 2, "used": 2})),
        "B",
        {("no_room", "a")},
    ),
    "in its handshake": (seen(a=state("handshake")), "B", {("starting", "a")}),
    "switched off": (seen(a=state("disabled"), visits={"a": lambda n: None}), "A", set()),
    "ready at last": (seen(a=lambda n: {"state": "ready" if n > 3 else "starting"}), "A", set()),
    "none is ready": (
        seen(a=state("broken"), b=state("stopped")),
        "C",
        {("none_ready", None), ("not_ready", "a"), ("stopped", "b")},
    ),
    "none is wanted": (
        seen(a=state("disabled"), b=state("disabled"), visits={"a": lambda n: None, "b": lambda n: None}),
        "C",
        {("none_ready", None)},
    ),
    "no list": (seen(visits=fails("list", chosen="none")), "B", {("list_fails", "a")}),
    "a call without an answer": (seen(visits=fails("call", range(3, 4))), "B", {("call_fails", "a")}),
    "such a call, chosen by the doctor": (
        seen(visits=fails("call", chosen="doctor")),
        "B",
        {("call_fails", "a")},
    ),
    "the configured tool fails": (seen(visits=fails("tool")), "B", {("tool_fails", "a")}),
    "a tool fails that the doctor chose": (
        seen(visits=fails("tool", chosen="doctor")),
        "A",
        {("tool_complains", "a")},
    ),
    "no tool to call": (seen(visits={"a": lambda n: {"chosen": "none"}}), "A", {("no_tool", None)}),
    "idle, before the first page and again after each": (
        seen(a=lambda n: {"state": "idle", "pid": None, "processes": 0} if n % 2 == 0 else {"pid": 100 + n}),
        "A",
        set(),
    ),
    # Questions.
    "asked without a call": (
        seen(a=lambda n: {"questions_refused": "proved-wrong"}),
        "B",
        {("asks_outside", "a")},
    ),
    "left a cancelled call unanswered": (
        seen(a=lambda n: {"questions_refused": "cancelled-earlier"}),
        "B",
        {("asks_unclear", "a")},
    ),
    "refuses questions for a reason that only a newer broker knows": (
        seen(a=lambda n: {"questions_refused": "new"}),
        "A",
        set(),
    ),
    # Answer times.
    "as slow at the end as at the start": (seen(took=lambda n: 4.0), "A", set()),
    "faster and faster": (seen(took=lambda n: 5.0 / n), "A", set()),
    "one slow page": (seen(took=lambda n: 9.0 if n == 10 else 0.02), "A", set()),
    "slow every other page": (seen(took=lambda n: 0.5 + n % 2), "A", set()),
    "much slower, of very little": (seen(took=lambda n: 0.01 * n), "A", set()),
    "a little slower, of much": (seen(took=lambda n: 10 + 0.1 * n), "A", set()),
    "slower at each page": (seen(took=lambda n: 0.2 * n), "C", {("slower_all", None)}),
    "slower from the middle on": (seen(took=lambda n: 0.1 + (n > 5)), "C", {("slower_all", None)}),
    "slower, of too few pages to say": (seen(5, took=lambda n: 1.0 * n), "A", {("few_pages", None)}),
    "one server becomes slower": (
        seen(took=lambda n: 0.2 * n, visits=lists("a")),
        "B",
        {("slower", "a")},
    ),
    "all servers become slower": (
        seen(took=lambda n: 0.4 * n, visits=lists("a", "b")),
        "C",
        {("slower_all", None)},
    ),
    "calls that time out, towards the end": (
        seen(
            took=lambda n: 30.02 if n > 6 else 0.02,
            visits=fails("call", range(7, 11), call_s=30.0),
        ),
        "B",
        {("call_fails", "a")},
    ),
    # Residue, and the broker itself.
    "pages that the broker still holds": (seen(whole={"clients_left": 3}), "C", {("left", None)}),
    "another broker than before": (seen(after={"instance": "j"}), "B", {("broker_restarted", None)}),
    # The same servers beside the broker's.
    "beside it all the time": (
        seen(before=strays(stray("beside")), after=strays(stray("beside"))),
        "B",
        {("beside", "a")},
    ),
    "more and more beside it": (
        seen(before=strays(stray("beside")), after=strays(stray("beside"), stray("beside", 10))),
        "C",
        {("beside_grows", "a")},
    ),
    "new beside it": (seen(after=strays(stray("beside"))), "C", {("beside_grows", "a")}),
    "no longer beside it": (seen(before=strays(stray("beside"))), "A", set()),
    "left over from another broker": (seen(after=strays(stray("orphan"))), "B", {("orphan", "a")}),
    "twice in one broker": (seen(after=strays(stray("second"))), "C", {("second", "a")}),
    "elsewhere": (seen(before={"strays": None}, after={"strays": None}), "A", {("elsewhere", None)}),
    # Remarks.
    "memory that rose much": (seen(before=heavy(300), after=heavy(600)), "A", {("memory", None)}),
    "memory that rose little": (seen(before=heavy(30), after=heavy(60)), "A", set()),
    "no backend": (seen(whole={"clients": {}}), "A", {("no_backend", None)}),
    "a port without keys": (
        seen(whole={"open_ports": ("tcp://127.0.0.1:5555",)}),
        "A",
        {("open_port", None)},
    ),
    "runtimes": (
        seen(a=state("disabled"), whole={"runtimes": {"a": "npx", "b": "uvx"}}),
        "A",
        {("runtime", None)},
    ),
    # All together.
    "the worst decides": (
        seen(
            a=state("broken"),
            b=lambda n: {"processes": 1 + n},
            whole={"clients_left": 1, "runtimes": {"b": "npx"}},
        ),
        "C",
        {("not_ready", "a"), ("grows", "b"), ("left", None), ("runtime", None)},
    ),
}


@pytest.mark.parametrize(("evidence", "grade", "found"), CASES.values(), ids=CASES)
def test_the_verdict(evidence: Evidence, grade: str, found: set[tuple[str, str | None]]) -> None:
    """The guide's A, B and C: one process per server, steady answers, no residue, else who is to blame."""
    few = {("few_pages", None)} if len(evidence.pages) < verdict.LEAST_PAGES else set()
    judged = judge(evidence)
    assert {(finding.word, finding.server) for finding in judged.findings} == found | few
    assert judged.grade == grade
    grades = [finding.grade.value for finding in judged.findings]
    assert grades == sorted(grades, reverse=True)


def test_every_finding_is_reached() -> None:
    """A finding that no case leads to would guard nothing."""
    reached = {finding.word for evidence, _, _ in CASES.values() for finding in judge(evidence).findings}
    assert reached == set(GRADES)


@pytest.mark.parametrize("speaks", [speaker, markdown_speaker], ids=["plain", "Markdown"])
@pytest.mark.parametrize("language", [0, 1], ids=["en", "zh"])
@pytest.mark.parametrize("case", CASES)
def test_every_finding_can_be_said(case: str, language: int, speaks: Callable[[int], Say]) -> None:
    """Each text finds the facts it is filled in with, in both languages; only what is bad has a mend."""
    for finding in judge(CASES[case][0]).findings:
        text, mend = tell(finding, speaks(language))
        assert text
        assert "{" not in text + mend
        assert bool(mend) is (finding.grade > Grade.A)
        assert finding.server is None or finding.server in text


def test_no_text_is_left_over() -> None:
    """Every text of a finding belongs to one; the two languages fill in the same facts."""
    assert {word.removesuffix(".mend") for word in FINDINGS} == {*GRADES, *(word + MANY for word in DETAILS)}
    for word, (english, chinese) in WORDS.items():
        assert fields(english) == fields(chinese), word


FORTY = tuple(f"server-{number}" for number in range(40))


@pytest.mark.parametrize(
    "how", [{"processes": 3}, {"state": "starting"}, {"state": "broken"}, {"state": "stopped"}]
)
def test_forty_servers_make_one_remark_of_a_kind(how: dict[str, Any]) -> None:
    """With their count and all of their names, and one mend, in both languages."""
    servers = (*(server(name, **how) for name in FORTY), server("fine"))
    pages = tuple(
        Page(number=n, closed=True, open_s=0.01, took_s=0.01, visits=(), servers=servers) for n in range(1, 7)
    )
    judged = judge(
        Evidence(before=moment(servers), pages=pages, after=moment(servers), clients={"backend": 1})
    )
    (finding,) = judged.findings
    assert (finding.server, finding.facts["count"]) == (None, 40)
    for language in (0, 1):
        text, mend = tell(finding, speaker(language))
        assert "40" in text
        assert all(name in text for name in FORTY)
        assert "{" not in text + mend
        assert bool(mend) is (finding.grade > Grade.A)


def test_forty_servers_are_one_remark_in_a_row_of_the_record() -> None:
    """The cell of a page names a few; the findings name all of them."""
    ready = tuple(server(name) for name in FORTY)
    broken = tuple(server(name, state="broken", pid=None, processes=0) for name in FORTY)
    visits = tuple(visit(name, fault=VisitError("call", "no answer")) for name in FORTY[:2])
    page = Page(number=1, closed=True, open_s=0.1, took_s=0.1, visits=visits, servers=broken)
    evidence = Evidence(before=moment(ready), pages=(page,), after=moment(broken))
    report = DoctorReport(endpoint="e", broker_version="1", evidence=evidence, verdict=judge(evidence))
    ((*_, remark),) = record(report, speaker(0)).rows
    assert remark.text == "server-0, server-1: call failed, server-2, server-3, server-4, … (38): broken"


@pytest.mark.parametrize("word", DETAILS)
def test_every_kind_is_collected(word: str) -> None:
    """Few have their own details; many are one finding of the same grade, which can be said."""
    facts = dict.fromkeys(fields(FINDINGS[word][0]) | fields(FINDINGS.get(f"{word}.mend", ("",))[0]), "7")
    least = REMARKS_AT_LEAST if GRADES[word] is Grade.A else FINDINGS_AT_LEAST
    kind = [Finding(word, f"s{number}", {**facts, "state": "broken"}) for number in range(least)]
    assert collected(kind[:-1]) == kind[:-1]
    (finding,) = collected(kind)
    assert (finding.word, finding.grade, finding.facts["count"]) == (f"{word}.many", GRADES[word], least)
    for language in (0, 1):
        text, mend = tell(finding, speaker(language))
        assert "s0" in text
        assert "{" not in text + mend
        assert "s0" not in mend


def fields(text: str) -> set[str]:
    """What a text is filled in with."""
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize(
    ("case", "facts"),
    [
        ("one more at each page", {"first": 1, "last": 11}),
        ("another pid at each page", {"times": 10, "error": "-"}),
        ("broken", {"state": "broken", "error": "no such command"}),
        ("a call without an answer", {"tool": "look", "error": "broken", "times": 1, "of": 10}),
        ("slower at each page", {"first_s": 0.4, "last_s": 1.8}),
        (
            "more and more beside it",
            {"pids": "9, 10", "by": "python backend.py (pid 8)", "first": 1, "last": 2},
        ),
    ],
)
def test_the_facts(case: str, facts: Facts) -> None:
    """What the reader is told, beside the names: how often, from what to what, and the error's own words."""
    assert judge(CASES[case][0]).findings[0].facts == facts


@given(st.lists(st.integers(0, 40), min_size=3, max_size=60), st.integers(1, 4))
def test_every_steady_leak_is_seen(base: list[int], by: int) -> None:
    """However few the pages and whatever the size, `by` more at each page is a leak."""
    assert grows([base[0] + by * n for n in range(len(base))])


@given(st.integers(0, 40), st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_what_comes_and_goes_is_no_leak(size: int, extra: list[int]) -> None:
    """Helpers that a look happens to catch, and that are gone at the end, are no residue."""
    assert not grows([size, *(size + more for more in extra), size])


@given(st.lists(st.floats(0, 100), max_size=40), st.floats(0, 0.24))
def test_noise_within_the_slack_is_not_slower(times: list[float], noise: float) -> None:
    """Below the slack nothing is slower, and fewer than six pages never are."""
    assert not is_slower([1.0 + noise * (n % 2) for n in range(len(times))])
    assert not is_slower(times[: verdict.LEAST_PAGES - 1])
