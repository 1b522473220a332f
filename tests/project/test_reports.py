"""What the documentation says was seen is what the tests ask for: docs/faults.md and docs/soak.md."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import pytest
import tomli

from broker.command.cli import result_lines
from docs.blocks import faults, soak
from docs.blocks.markdown import TEXTS
from tests.faults.table import FAULTS, Call, End, Expected, Means, Moment
from tests.soak import report
from tests.soak.ground import Line
from tests.soak.parts import PARTS


def test_the_fault_matrix_that_is_shown_is_the_whole_one() -> None:
    """The results of the fault matrix are in the docs, each fault in each situation."""
    shown = faults.found()["faults"]
    assert list(shown) == [fault.name for fault in FAULTS]
    assert all(shown[fault.name]["means"] == fault.means.value for fault in FAULTS)
    assert all(set(cells) == {"means", *(moment.value for moment in Moment)} for cells in shown.values())


def test_what_was_seen_is_what_must_be() -> None:
    """Each cell of docs/faults.toml against the table that the tests have."""
    for fault in FAULTS:
        for moment, expected in fault.expected.items():
            seen = faults.found()["faults"][fault.name][moment.value]
            assert ended(seen) == must_end(expected), (fault.name, moment)
            assert (expected.cause or "") in seen.get("cause", ""), (fault.name, moment)
            assert seen["processes"] in fault.whole
            assert seen["answered"] > 0


def ended(seen: dict[str, object]) -> list[object]:
    return [seen.get(key) for key in ("end", "call", "safe_call")]


def must_end(expected: Expected) -> list[object]:
    return [end and end.value for end in (expected.end, expected.call, expected.safe_call)]


def test_every_word_of_the_matrix_has_its_text() -> None:
    """docs/texts.toml: nothing is missing, and nothing is left over."""
    kinds: dict[str, type[Enum]] = {"means": Means, "end": End, "calls": Call}
    for key, kind in kinds.items():
        assert set(TEXTS["faults"][key]) == {one.value for one in kind}
    assert list(TEXTS["faults"]["name"]) == [fault.name for fault in FAULTS]


def test_the_soak_that_is_shown_is_whole_and_at_the_stated_counts() -> None:
    """Every part, as often as it is stated; and every line has a text."""
    shown = soak.found()["parts"]
    assert {name: part["count"] for name, part in shown.items()} == {
        name: part.stated for name, part in PARTS.items()
    }
    assert list(TEXTS["soak"]["part"]) == list(PARTS)
    assert [name for name, part in shown.items() if "zh" not in soak.UNITS[part["unit"]]] == []
    assert {line["what"] for part in shown.values() for line in part["line"]} == set(TEXTS["soak"]["line"])


def test_a_report_keeps_every_figure_and_its_bound(tmp_path: Path) -> None:
    """A bound of 0 is one too: without it a miss would not be seen."""
    path = tmp_path / "soak.toml"
    lines = [Line("calls", 7, unit="MiB"), Line("two-at-once", 0, 0), Line("memory", 3.5, 2.0)]
    report.write("kills", 50, "kills", report.Took(1.4, 0.5), [Line("calls", 1)], path)
    report.write("kills", 50, "kills", report.Took(1.4, 0.5), lines, path)
    part = tomli.loads(path.read_text(encoding="utf-8"))["parts"]["kills"]
    assert (part["count"], part["unit"], part["seconds"], part["load"]) == (50, "kills", 1, 0.5)
    assert [(line["what"], line["measured"], line.get("bound")) for line in part["line"]] == [
        ("calls", 7, None),
        ("two-at-once", 0, 0),
        ("memory", 3.5, 2.0),
    ]
    assert [soak.holds(line) for line in part["line"]] == [True, True, False]


def test_a_figure_above_its_bound_is_a_miss() -> None:
    """A bound is inclusive, and a figure without one is only told."""
    assert [Line("x", measured, 1.0).holds for measured in (0, 1.0, 1.1)] == [True, True, False]
    assert Line("x", 99.0).holds


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        ({"content": [{"type": "text", "text": "hi"}, {"type": "image"}]}, ["hi", '{"type": "image"}']),
        ({"content": [{"type": "text"}, 5, None]}, ['{"type": "text"}', "5", "null"]),
        ({"content": 5}, ["5"]),
        ([1], ["[1]"]),
        (None, ["null"]),
        ({}, []),
    ],
)
def test_whatever_a_tool_answers_is_shown(result: object, lines: list[str]) -> None:
    """A server that does not keep to the protocol is no traceback of `mcp-broker call`."""
    assert result_lines(result) == lines
