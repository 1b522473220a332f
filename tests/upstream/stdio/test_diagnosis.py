"""The reason that is shown is the cause: what real programs write as they end, and the line that says why."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from broker.upstream.stdio.diagnosis import MAX_CHARS, cause_in, last_line

OUTPUTS = tomli.loads(Path(__file__).with_name("stderr_outputs.toml").read_text(encoding="utf-8"))


def kept(text: str) -> list[str]:
    """The lines as the log of a server keeps them: without those that are empty."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_cause_is_found(name: str) -> None:
    """Every shape of the table, whole."""
    assert cause_in(kept(OUTPUTS[name]["text"])) == OUTPUTS[name]["cause"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_was_written_before_changes_nothing(name: str) -> None:
    """A server has written for days when it ends."""
    before = (
        [f"INFO: request {number}" for number in range(100)] + ["ValueError: of long ago"] + ["fine"] * 30
    )
    assert cause_in(before + kept(OUTPUTS[name]["text"])) == OUTPUTS[name]["cause"]


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name.startswith("Python")])
def test_the_log_may_hold_only_the_end_of_it(name: str) -> None:
    """Whatever has scrolled out, a border is never the reason."""
    lines = kept(OUTPUTS[name]["text"])
    for start in range(len(lines)):
        found = cause_in(lines[start:])
        assert found is None or not set(found) <= set("+-=│╰╯─| 0123456789"), (start, found)


@pytest.mark.parametrize(
    "border",
    ["+------------------------------------", "╰────────╯", "└───┘", "====", "-----", "  ^^^^^", "│", "***"],
)
def test_a_border_is_no_reason(border: str) -> None:
    """Seen: `its last line was: +-----------`."""
    assert cause_in(["it broke", border]) == "it broke"
    assert last_line(["it broke", border]) == "it broke"
    assert cause_in([border]) is None


def test_nothing_written_is_no_reason() -> None:
    """A server that ends without a word."""
    assert cause_in([]) is None
    assert last_line([]) is None


_PIECES = [line for output in OUTPUTS.values() for line in kept(output["text"])]


@given(st.lists(st.sampled_from(_PIECES) | st.text(max_size=60), max_size=60))
def test_any_lines_are_taken(lines: list[str]) -> None:
    """Pieces of all shapes, in any order: an answer of bounded length, never a fault."""
    found = cause_in(lines)
    assert found is None or 0 < len(found) <= MAX_CHARS


SLOW = (
    *("x" * 4096, "a." * 2048, "│ " * 2048, "+-" * 2048, "a: " * 1365, " " * 4096, "error " * 682),
    *(
        "Traceback (most recent call last) " * 120,
        "Caused by: " * 370,
        '{"a":' * 800,
        "A" + ".a" * 2000 + "Error",
    ),
)


@pytest.mark.parametrize("line", SLOW, ids=[line[:8] for line in SLOW])
def test_a_line_made_to_be_slow_is_not(line: str) -> None:
    """Law 5: the longest line that is kept, as often as lines are kept; the others wait meanwhile."""
    began = process_time()
    cause_in([line] * 200)
    assert process_time() - began < 0.5
