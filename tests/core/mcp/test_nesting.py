"""Section 5: how deep JSON nests is found by its brackets, and is what a parser would find."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.mcp import nesting


def depth_of(value: object) -> int:
    """The reference: levels of arrays and objects."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


_tricky = st.text(alphabet='[]{}"\\a,:', max_size=8)
nests = st.recursive(
    _tricky | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_tricky, inner, max_size=3),
    max_leaves=12,
)


@given(nests, st.integers(0, 6), st.sampled_from([1, 3, 1024]))
@example(["\\", [[]]], 2, 3)
@example(['\\"[', [[]]], 2, 3)
@example([{"]": ["}"]}], 2, 3)
@example(["[", "", "]", [[]], "["], 2, 3)
def test_depth_is_that_of_a_simple_count(value: object, limit: int, at_once: int) -> None:
    """Brackets in strings are no brackets, however quotes are escaped, or a text is parted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "_BRACKETS_AT_ONCE", at_once)
        patch.setattr(nesting, "MAX_DEPTH", limit)
        assert nesting.is_deep(json.dumps(value).encode()) == (depth_of(value) > limit)


@given(nests, st.integers(0, 6), st.sampled_from([1, 3, 1024]))
@example(["[" * 3, [[]]], 2, 3)
def test_a_long_text_is_as_deep_as_a_short_one(value: object, limit: int, at_once: int) -> None:
    """Its brackets are looked for in another way, which is faster there; white space changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "_BRACKETS_AT_ONCE", at_once)
        patch.setattr(nesting, "MAX_DEPTH", limit)
        text = json.dumps(value, indent=1).encode() + b" " * nesting._LONG
        assert nesting.is_deep(text) == (depth_of(value) > limit)


@given(nests, st.sampled_from([1, 3, 1024]))
def test_what_is_still_open_where_a_text_is_cut(value: object, at_once: int) -> None:
    """Of a line that does not parse, an `id` near its end is the message's own only at a depth of one."""
    text = json.dumps(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "_BRACKETS_AT_ONCE", at_once)
        for cut, depth in cuts(text):
            assert nesting.depth_at_end(text[:cut].encode()) == depth


def cuts(text: str) -> Iterator[tuple[int, int]]:
    """The reference: each place outside of a string, and how many brackets are open before it."""
    depth, inside, escaped = 0, False, False
    for at, char in enumerate(text):
        if not inside:
            yield at, depth
            depth += (char in "[{") - (char in "]}")
        inside ^= char == '"' and not escaped
        escaped = inside and char == "\\" and not escaped
    yield len(text), depth
