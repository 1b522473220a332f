"""Clients that do not read, call without end, or vanish: bounded memory, and the others hardly notice.

Quiet and disturbed rounds take turns, so that their figures are of the same minutes of the same machine, and
what counts is the median of the rounds' ratios. A third kind of round tells what of it is the processor's:
beside a process that only takes one.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.e2e.harness import RunningBroker, rogue
from tests.e2e.raw import process
from tests.faults.neighbour import PATIENCE_S, Answered, Neighbour, neighbour, quantile_ms
from tests.soak.ground import MIB, Halfway, Line, Progress, counted, favoured, least_mib, vitals

ROUNDS = 10
SLACK_MIB = 24.0
"""What malloc and libzmq keep beside what the limits allow."""

LIMITS = {"credit_bytes": 8 * MIB, "outbox_bytes": 16 * MIB}
BOUND_MIB = (8 + 2 * 16) + SLACK_MIB
"""What one connection may hold: its credit in libzmq, its outbox in the broker and on the way there."""

TWICE = 2.0


class Plan(NamedTuple):
    """How many rounds, of how many seconds, after how many; and whether the processor is kept out of it.

    The broker rests for `rest_s` before it is weighed.
    """

    rounds: int
    round_s: float
    not_counted: int
    favoured: bool
    rest_s: float

    @classmethod
    def of(cls, count: int, stated: int) -> Plan:
        """Enough for a p99 at the stated count, and one to see that it works below it."""
        return cls(ROUNDS, 1.5, 3, True, 5.0) if count >= stated else cls(1, 0.3, 1, False, 0.0)


class Round(NamedTuple):
    """The p99 of the neighbour's calls in one round of each kind, in milliseconds."""

    quiet: float
    busy: float
    noisy: float


class Nuisance(NamedTuple):
    """A client in one of the roles of `tests/e2e/raw.py`, how big it is, and whether it is stopped."""

    role: str
    number: int
    is_stopped: bool = False


STOPPED_READER = Nuisance("steps", 4, is_stopped=True)
CALLER = Nuisance("requests", 100_000)
VANISHING = Nuisance("idle", 500)


def stopped_reader(count: int, progress: Progress) -> list[Line]:
    """`count` times a client is stopped under a flood of progress."""
    return rounds(STOPPED_READER, Plan.of(count, ROUNDS), progress)


def caller(count: int, progress: Progress) -> list[Line]:
    """A client sends `count` requests and reads nothing."""
    return rounds(CALLER._replace(number=count), Plan.of(count, CALLER.number), progress)


def vanishing(count: int, progress: Progress) -> list[Line]:
    """`count` clients connect and vanish."""
    return rounds(VANISHING._replace(number=count), Plan.of(count, VANISHING.number), progress)


def rounds(nuisance: Nuisance, plan: Plan, progress: Progress) -> list[Line]:
    """Quiet and disturbed rounds in turn: what the broker took, and how much slower the others were."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name, ExitStack() as stack:
        folder = Path(name)
        servers = {"s": rogue(max_in_flight=8), "h": rogue()}
        with favoured(plan.favoured) as are_favoured:
            broker = stack.enter_context(counted(servers, folder, limits=LIMITS))
        for _ in range(plan.not_counted):
            disturbed(broker, nuisance, plan.round_s)
        before, most, found = vitals(broker, folder), 0.0, list[Round]()
        halfway = Halfway(broker, plan.rounds, progress, rest_s=plan.rest_s)
        with favoured(plan.favoured):
            other = stack.enter_context(neighbour(broker.endpoint, "h"))
        for number in range(plan.rounds):
            found.append(one_round(other, broker, nuisance, plan.round_s, backwards=number % 2 == 1))
            most = max(most, peak_mib(broker))
            halfway(number + 1)
        other.finish()
        broker.wait(lambda status: status["broker"]["clients"] == 1)
        after = vitals(broker, folder, like=before)
        after = after._replace(memory_mib=least_mib(broker.pid, plan.rest_s))
    return [
        Line("hostile.memory-peak", round(most - before.memory_mib, 1), BOUND_MIB, "MiB"),
        Line("real-time", int(are_favoured)),
        *slower(found),
        *after.left_since(before),
        halfway.since(after),
    ]


def slower(found: list[Round]) -> list[Line]:
    """The p99 of each kind of round, and how much more it is than in the quiet round beside it."""

    def told(what: str, figures: Iterable[float], bound: float | None = None, unit: str = "") -> Line:
        return Line(f"hostile.{what}", round(median(figures), 2), bound, unit, timed=True)

    return [
        told("p99-quiet", (one.quiet for one in found), unit="ms"),
        told("p99-busy", (one.busy for one in found), unit="ms"),
        told("p99-disturbed", (one.noisy for one in found), unit="ms"),
        told("ratio-busy", (one.busy / one.quiet for one in found)),
        told("ratio", (one.noisy / one.quiet for one in found), TWICE),
    ]


def one_round(
    other: Neighbour, broker: RunningBroker, nuisance: Nuisance, round_s: float, *, backwards: bool
) -> Round:
    """All three kinds, one right after the other; backwards every other time, for what grows or ebbs."""
    kinds: dict[str, Callable[[], None]] = {
        "quiet": lambda: time.sleep(round_s),
        "busy": lambda: occupied(round_s),
        "noisy": lambda: disturbed(broker, nuisance, round_s),
    }
    order = list(reversed(kinds)) if backwards else list(kinds)
    p99 = {kind: quantile_ms(during(other, kinds[kind]), 0.99) for kind in order}
    return Round(**p99)


def during(other: Neighbour, what: Callable[[], None]) -> list[Answered]:
    """The neighbour's calls that were made while this was going on."""
    begin = time.monotonic()
    what()
    end = time.monotonic()
    give_up = end + PATIENCE_S  # the last of them may still be open: it is the one that counts
    while not other.answers(end) and time.monotonic() < give_up:
        time.sleep(0.01)
    return other.answers(begin, end)


def disturbed(broker: RunningBroker, nuisance: Nuisance, round_s: float) -> None:
    """One round of it, from the connection to the SIGKILL."""
    begin = time.monotonic()
    with process(broker.endpoint, nuisance.role, nuisance.number) as child:
        if nuisance.is_stopped:
            child.send_signal(signal.SIGSTOP)
        while time.monotonic() - begin < round_s:
            time.sleep(0.05)


def occupied(round_s: float) -> None:
    """One round beside a process that takes a processor, as a client that calls without end does."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        time.sleep(round_s)
        child.kill()


def peak_mib(broker: RunningBroker) -> float:
    """The most memory that the broker has had so far."""
    status = Path("/proc", str(broker.pid), "status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
