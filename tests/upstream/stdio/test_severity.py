"""The level of a line that a server wrote for people."""

from __future__ import annotations

import logging
import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.upstream.stdio.severity import severity

LINES = {
    logging.ERROR: [
        "ERROR: no such table",
        "error: no such table",
        "Error: Cannot find module 'x'",
        "[ERROR] no such table",
        "[error] no such table",
        "2026-11-24 08:28:47,123 ERROR no such table",
        "2026-11-24T08:28:47.123Z ERROR no such table",
        "2026-11-24 08:28:47,123 - server.db - ERROR - no such table",
        "2026-11-24 08:28:47.123 | ERROR    | server:main:3 - no such table",
        "[11/24/26 08:28:47] ERROR    no such table",
        "CRITICAL:root:no such table",
        "FATAL no such table",
        "Traceback (most recent call last):",
        "ValueError: no such table",
        "sqlite3.OperationalError: no such table",
        "npm ERR! code E404",
        "npm error code E404",
        '{"level":"error","msg":"no such table"}',
        '{"time": 1, "severity": "ERROR"}',
        '{"level":50,"msg":"no such table"}',
        'time="2026-11-24" level=error msg="no such table"',
        "panic: runtime error",
        "<3>no such table",
    ],
    logging.WARNING: [
        "WARNING: it is late",
        "[warn] it is late",
        "2026-11-24 08:28:47 WARN it is late",
        "npm warn deprecated",
        '{"level":40}',
        "<4>it is late",
    ],
    logging.INFO: ["INFO:     Started server process [1]", "<6>started", '{"level":"info"}'],
    logging.DEBUG: ["DEBUG:asyncio:Using selector", "[debug] x", '{"level":20}', "<7>x"],
    None: [
        "Server is running on stdio",
        "Error handling is done by the caller",
        "information about errors",
        "0 errors, 0 warnings",
        "",
        "12345",
        "{not json at all",
        "errors: 0",
    ],
}


@pytest.mark.parametrize(
    ("level", "line"), [pair for at, lines in LINES.items() for pair in product([at], lines)]
)
def test_a_line_has_the_level_that_it_says(level: int | None, line: str) -> None:
    """The right priority in the journal."""
    assert severity(line)[0] == level


def test_the_prefix_of_the_journal_is_stripped() -> None:
    """It is for the machine; a word at the start is for people, and stays."""
    assert severity("<3>no such table") == (logging.ERROR, "no such table")
    assert severity("ERROR: x")[1] == "ERROR: x"


@given(st.text(alphabet='0123456789 -:/[]|(){}"level=errorERROR', max_size=300))
def test_any_line_has_an_answer(line: str) -> None:
    """Law 5: what a server writes makes no fault of the broker's."""
    assert severity(line)[0] in (None, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


@pytest.mark.parametrize(
    "line", ["1 " * 2048, "[" + "1-:" * 1300, '{"level"' + " " * 4000, "x." * 2048 + "Error"]
)
def test_no_line_is_slow_to_read(line: str) -> None:
    """Law 5: a server that floods with such lines would hold up all the others."""
    began = time.process_time()
    for _ in range(100):
        severity(line)
    assert time.process_time() - began < 1
