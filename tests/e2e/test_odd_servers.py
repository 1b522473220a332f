"""Every odd server works: it becomes ready, its tool is listed and answers, and so again after a restart.

An SDK client puts up with each of them. All run behind one broker, so that the time is that of one start.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from client_shim.wire import MANAGEMENT
from tests.e2e.harness import SERVERS, RunningBroker, running
from tests.servers.odd import MODERN, ODDITIES, TEXT

AT_ONCE = 4


def table(*arguments: str) -> dict[str, Any]:
    """The odd server of these arguments."""
    return {"command": sys.executable, "args": ["-I", "-S", str(SERVERS / "odd.py"), *arguments]}


TABLES = {
    **{name: table(name) for name in ODDITIES},
    **{f"modern-{name}": table(name, "--modern") for name in MODERN},
    "modern-banner": table("plain", "--modern", "--banner"),
    "modern-mark": table("plain", "--modern", "--mark"),
    "banner": table("plain", "--banner"),
    "mark": table("plain", "--mark"),
    "mark-fixed": {**table("plain", "--mark"), "protocol": "legacy"},
    "banner-silent": table("probe-silent", "--banner"),
    # A quarter of this time is waited for its answer, instead of `HANGS_S`.
    "probe-hangs": {**table("probe-hangs"), "timeout_start_sec": 20},
}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """One broker with all of them, which are ready."""
    with running(TABLES) as broker:
        yield broker


def rows(broker: RunningBroker) -> dict[str, Any]:
    """What `status` says of each."""
    return {row["name"]: row for row in broker.status()["servers"]}


def use(broker: RunningBroker, name: str) -> tuple[list[str], Any]:
    """Its tools, and what its tool says."""
    with broker.client() as client:
        listed = client.request(name, "tools/list")["tools"]
        said = client.request(name, "tools/call", {"name": "hello", "arguments": {}})
    return [tool["name"] for tool in listed], said


@pytest.mark.parametrize("name", TABLES)
def test_it_works(broker: RunningBroker, name: str) -> None:
    """Ready, `hello` listed once, and the real answer given, whatever stands beside it on stdout."""
    assert use(broker, name) == (["hello"], {"content": [{"type": "text", "text": TEXT}]})


def test_it_works_again_after_a_restart(broker: RunningBroker) -> None:
    """The era is known then, and the probe left out: a mark once broke only the restart."""

    def again(name: str) -> object:
        with broker.client() as client:
            client.request(MANAGEMENT, "restart", {"server": name})
        return use(broker, name)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(TABLES, pool.map(again, TABLES), strict=True))
    good = (["hello"], {"content": [{"type": "text", "text": TEXT}]})
    assert {name: answer for name, answer in answers.items() if answer != good} == {}
    assert {name for name, row in rows(broker).items() if row["last_error"]} == {
        "probe-refused-then-all",  # the first process of each of these is of no use
        "list-fatal",
        "list-fatal-templates",
    }


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("plain", set()),
        ("id-string", {"id-as-string"}),
        ("id-exponent", {"id-as-float"}),
        ("error-null", {"null-member"}),
        ("error-empty-list", {"empty-member"}),
        ("mark", {"byte-order-mark"}),
        ("colours", {"ansi-colours"}),
        ("log-result", {"not-json-rpc"}),
        ("log-no-message", {"no-message"}),
        ("list-nan", {"not-a-number"}),
        ("list-fatal", {"list-left-out"}),
        ("list-fatal-undeclared", {"list-undeclared"}),
        ("prompt", {"text-before-it"}),
        ("probe-is-error", {"probe-answered-oddly"}),
        ("probe-ends", {"probe-ended-it"}),
        ("probe-refused-then-ends", {"probe-ended-it"}),
        ("probe-closes", {"probe-ended-it"}),
        ("probe-hangs", {"probe-hung-it"}),
        ("probe-silent", {"probe-unanswered"}),
        ("initialize-capabilities-list", {"field-ignored", "list-undeclared"}),
        ("cursor-empty", {"empty-cursor"}),
        ("cursor-number", {"cursor-not-a-string"}),
        ("cursor-again", {"page-again"}),
        ("item-null", {"bad-item"}),
        ("item-twice", {"same-name"}),
    ],
)
def test_it_is_told(broker: RunningBroker, name: str, kinds: set[str]) -> None:
    """Every tolerance is counted by its kind."""
    assert set(rows(broker)[name]["tolerated"]) == kinds


def test_a_modern_server_is_used_as_one(broker: RunningBroker) -> None:
    """Whatever else is odd about it; one that has no capabilities refuses `initialize`, and is used then."""
    modern = {name for name, row in rows(broker).items() if row["era"] == "modern"}
    assert modern == {name for name in TABLES if name.startswith("modern-")}


def test_a_list_without_an_answer_is_told_in_the_end(broker: RunningBroker) -> None:
    """It has ten seconds, and holds nobody up meanwhile. The next process is not asked at its start."""
    until = time.monotonic() + 60.0
    while len(warnings := rows(broker)["list-mute"]["warnings"]) < 3:
        assert time.monotonic() < until, warnings
        time.sleep(0.2)
    assert len({warning["kind"] for warning in warnings} & {"list-unread", "list-left-out"}) == 1
    with broker.client() as client:
        assert client.request("plain", "prompts/list") == {"prompts": []}
