"""Derives the guide's verdict (A, B or C) from the evidence. Pure: a table of rules, each yields findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from statistics import median

from msgspec import Struct

from broker.command.doctor.evidence import Evidence, ServerSample, Stray, Visit, VisitError
from broker.command.doctor.grades import Facts, Finding, Grade, collected

LEAST_PAGES = 6
"""The number of pages from which a growing answer time can be told from noise."""

SLOWER_RATIO, SLOWER_SLACK_S = 1.5, 0.25
"""Answers count as slower if the last third's median exceeds the first's by both of these."""

MEMORY_RATIO, MEMORY_SLACK_BYTES = 1.3, 50 * 1024**2
"""A rise of memory by more than both of these gets a remark."""


class Verdict(Struct, frozen=True):
    """The grade and the findings, the worst first."""

    grade: Grade
    findings: tuple[Finding, ...]


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict, whose grade is that of the worst finding."""
    found = collected([finding for rule in RULES for finding in rule(evidence)])
    found.sort(key=lambda finding: finding.grade.value, reverse=True)
    return Verdict(found[0].grade if found else Grade.A, tuple(found))


# --- one server -------------------------------------------------------------------------------------


def _servers(evidence: Evidence) -> Iterator[Finding]:
    """Yield the worst finding of each server: a server that crashes also fails calls and is not ready."""
    for name in evidence.wanted:
        troubles = (trouble(evidence, name) for trouble in _TROUBLES)
        finding = next((trouble for trouble in troubles if trouble is not None), None)
        if finding is not None:
            yield finding


def _grows(evidence: Evidence, name: str) -> Finding | None:
    counts = _counts(evidence, name)
    return _about("grows", name, first=counts[0], last=counts[-1]) if grows(counts) else None


def _crashes(evidence: Evidence, name: str) -> Finding | None:
    history, visits = evidence.history(name), list(evidence.visits(name))
    deaths = sum(visit.fault is not None and visit.fault.died for visit in visits)
    pids = {server.pid for server in history if server.pid is not None}
    restarts = history[-1].restarts - history[0].restarts
    rested = any(server.state == "idle" for server in history)  # then another pid is no crash
    times = max(deaths, 0 if rested else len(pids) - 1, restarts)
    if times <= 0:
        return None
    return _about("crashes", name, times=times, error=_last_error(history, visits))


def _not_ready(evidence: Evidence, name: str) -> Finding | None:
    history = evidence.history(name)
    state, room = history[-1].state, history[-1].room
    if state in ("ready", "idle"):
        return None
    if state == "starting" and room is not None:
        return _about("no_room", name, limit=room["limit"])
    word = _BY_STATE.get(state, "not_ready")
    return _about(word, name, state=state, error=_last_error(history, ()))


_BY_STATE = dict.fromkeys(("starting", "handshake", "draining"), "starting") | {
    "stopped": "stopped",
    "misconfigured": "misconfigured",
}


def _fails(evidence: Evidence, name: str) -> Finding | None:
    visits = list(evidence.visits(name))
    for visit, fault in _faults(visits):
        if not _is_own_choice(visit):
            times = sum(1 for _, other in _faults(visits) if other.kind == fault.kind)
            of = len(visits)
            return _about(
                f"{fault.kind}_fails", name, tool=visit.tool or "-", error=fault.text, times=times, of=of
            )
    return None


_TROUBLES: tuple[Callable[[Evidence, str], Finding | None], ...] = (_grows, _crashes, _not_ready, _fails)


def grows(counts: Sequence[int]) -> bool:
    """Return whether the number of processes keeps rising, page by page.

    A server that starts workers at its first use rises once; a server with occasional helper processes rises
    and falls. Neither leaks.
    """
    if len(counts) < 3:
        return False
    third = len(counts) // 3
    rises = sum(after > before for before, after in pairwise(accumulate(counts, max)))
    still_rising = max(counts[-third:]) > max(counts[:-third])
    return rises >= 2 and still_rising and min(counts[-third:]) > min(counts[:third])


def _counts(evidence: Evidence, name: str) -> list[int]:
    """Return the sizes of a server's tree before the first page and after each, while it was ready.

    After the last page there are two samples. The second counts, because the tree has settled by then.
    """
    history = evidence.history(name)
    seen = [*history[:-2], history[-1]]
    return [server.processes for server in seen if server.state == "ready"] or [0]


def _faults(visits: Sequence[Visit]) -> Iterator[tuple[Visit, VisitError]]:
    return ((visit, visit.fault) for visit in visits if visit.fault is not None)


def _is_own_choice(visit: Visit) -> bool:
    """Return whether a tool that the doctor itself chose returned an error."""
    return visit.fault is not None and visit.fault.kind == "tool" and visit.chosen == "doctor"


def _last_error(history: Sequence[ServerSample], visits: Sequence[Visit]) -> str:
    errors = [server.last_error for server in history if server.last_error]
    errors += [] if errors else [fault.text for _, fault in _faults(visits)]
    return errors[-1] if errors else "-"


# --- answer times -----------------------------------------------------------------------------------


def _slower(evidence: Evidence) -> Iterator[Finding]:
    """Yield the servers that became slower; if that is all of them, one finding about the machine."""
    if not is_slower(times := [page.good_s for page in evidence.pages]):
        return
    slow = list(_slower_servers(evidence))
    if slow and len(slow) < len(evidence.wanted):
        yield from slow
    else:
        yield _about("slower_all", None, **_ends(times))


def _slower_servers(evidence: Evidence) -> Iterator[Finding]:
    for name in evidence.wanted:
        times = [visit.list_s + visit.call_s for visit in evidence.visits(name) if visit.fault is None]
        if is_slower(times):
            yield _about("slower", name, **_ends(times))


def is_slower(times_s: Sequence[float]) -> bool:
    """Return whether answer times grow, by the medians of the first and the last third."""
    if len(times_s) < LEAST_PAGES:
        return False
    first_s, last_s = _medians(times_s)
    return last_s > first_s * SLOWER_RATIO and last_s - first_s > SLOWER_SLACK_S


def _medians(times_s: Sequence[float]) -> tuple[float, float]:
    third = len(times_s) // 3
    return median(times_s[:third]), median(times_s[-third:])


def _ends(times_s: Sequence[float]) -> Facts:
    first_s, last_s = _medians(times_s)
    return {"first_s": round(first_s, 3), "last_s": round(last_s, 3)}


# --- the whole --------------------------------------------------------------------------------------


def _none_ready(evidence: Evidence) -> Iterator[Finding]:
    if not any(server.state in ("ready", "idle") for server in evidence.after.servers):
        yield _about("none_ready", None, count=len(evidence.wanted))


def _left(evidence: Evidence) -> Iterator[Finding]:
    if evidence.clients_left:
        yield _about("left", None, count=evidence.clients_left, seconds=round(evidence.waited_s, 1))


def _restarted(evidence: Evidence) -> Iterator[Finding]:
    if evidence.before.instance != evidence.after.instance:
        yield _about("broker_restarted", None)


def _strays(evidence: Evidence) -> Iterator[Finding]:
    """Yield the strays that exist after the last page."""
    earlier = _by_server(evidence.before.strays or ())
    for (server, kind), strays in _by_server(evidence.after.strays or ()).items():
        before, after = len(earlier.get((server, kind), ())), len(strays)
        word = "beside_grows" if kind == "beside" and after > before else kind
        pids = ", ".join(str(stray.pid) for stray in strays)
        by = ", ".join(sorted({stray.by for stray in strays}))
        yield _about(word, server, pids=pids, by=by, first=before, last=after)


def _by_server(strays: Sequence[Stray]) -> dict[tuple[str, str], list[Stray]]:
    grouped: dict[tuple[str, str], list[Stray]] = {}
    for stray in strays:
        grouped.setdefault((stray.server, stray.kind), []).append(stray)
    return grouped


# --- remarks ----------------------------------------------------------------------------------------


def _trees(evidence: Evidence) -> Iterator[Finding]:
    for name in evidence.wanted:
        counts = _counts(evidence, name)
        first, last = counts[0], counts[-1]
        if last > first and not grows(counts):
            yield _about("rose", name, first=first, last=last)
        elif last == first > 1:
            yield _about("wrapped", name, processes=last)


def _tools(evidence: Evidence) -> Iterator[Finding]:
    untried = []
    for name in evidence.wanted:
        visits = list(evidence.visits(name))
        if visits and all(visit.chosen == "none" and visit.fault is None for visit in visits):
            untried.append(name)
        for visit in filter(_is_own_choice, visits[-1:]):
            error = visit.fault.text if visit.fault else "-"
            yield _about("tool_complains", name, tool=visit.tool or "-", error=error)
    if untried:
        yield _about("no_tool", None, servers=_named(untried), count=len(untried))


def _runtimes(evidence: Evidence) -> Iterator[Finding]:
    needed = {name: runtime for name, runtime in evidence.runtimes.items() if name in evidence.wanted}
    if needed:
        runtimes = ", ".join(sorted(Counter(needed.values())))
        yield _about("runtime", None, servers=_named(list(needed)), count=len(needed), runtimes=runtimes)


def _named(servers: Sequence[str]) -> str:
    """Return the names of servers, with their number if it is large."""
    names = ", ".join(servers)
    return names if len(servers) <= _SEEN_AT_ONCE else f"{names} ({len(servers)})"


_SEEN_AT_ONCE = 3


def _asks(evidence: Evidence) -> Iterator[Finding]:
    """Yield the servers whose questions are refused until their process is replaced."""
    for server in evidence.after.servers:
        if server.questions_refused in _BY_REFUSAL:
            yield _about(_BY_REFUSAL[server.questions_refused], server.name)


_BY_REFUSAL: dict[str | None, str] = {"proved-wrong": "asks_outside", "cancelled-earlier": "asks_unclear"}


def _limits(evidence: Evidence) -> Iterator[Finding]:
    """Yield what could not be examined."""
    if evidence.after.strays is None:
        yield _about("elsewhere", None)
    if len(evidence.pages) < LEAST_PAGES:
        yield _about("few_pages", None, least=LEAST_PAGES)


def _backends(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.clients:
        yield _about("no_backend", None)


def _ports(evidence: Evidence) -> Iterator[Finding]:
    if evidence.open_ports:
        yield _about("open_port", None, endpoints=", ".join(evidence.open_ports))


def _memory(evidence: Evidence) -> Iterator[Finding]:
    before, after = evidence.before.load.rss_bytes, evidence.after.load.rss_bytes
    if after > before * MEMORY_RATIO and after - before > MEMORY_SLACK_BYTES:
        yield _about("memory", None, first_bytes=before, last_bytes=after)


RULES: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    _none_ready,
    _servers,
    _strays,
    _left,
    _restarted,
    _slower,
    _trees,
    _tools,
    _asks,
    _memory,
    _backends,
    _ports,
    _runtimes,
    _limits,
)


def _about(word: str, server: str | None, **facts: str | int | float) -> Finding:
    return Finding(word, server, facts)
