"""All patterns at once find what an expression of each finds, in a time that no text makes long (law 5)."""

from __future__ import annotations

import re
import sys
from fnmatch import translate
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.servers.patterns import Patterns, Variables
from broker.core.servers.visibility import MAX_NAME_CHARS

VARIABLE = re.compile(r"(\{[^{}]*\})")
CHARS = "ab*?[]!^-{}+/#\né你"
VALUES = {"none": None, "narrow": "[^/?#]*", "broad": ".*"}


def expression(pattern: str, variables: Variables) -> re.Pattern[str]:
    """The regular expression of one pattern, as Python's library writes it, with the values of variables."""
    value = VALUES[variables]
    if value is None:
        return re.compile(translate(pattern))
    parts = VARIABLE.split(pattern)
    bare = [translate(part).removeprefix("(?s:")[: -len(r")\Z")] for part in parts[::2]]
    values = [".*" if one[1:2] and one[1] in "+#/.;?&" else value for one in parts[1::2]]
    return re.compile("(?s:" + "".join(map(str.__add__, bare, [*values, ""])) + r")\Z")


@given(
    st.lists(st.text(CHARS, max_size=9), max_size=5),
    st.text(CHARS, max_size=9),
    st.sampled_from(["none", "narrow", "broad"]),
)
@example(["*a{x}b"], "a/ab", "narrow")
@example(["{x}{y}*", "*{x}", "**", "{x}{x}"], "a/b", "narrow")
@example(["[!]", "[]", "[", "[]a]", "[!]a]", "[b-a]", "[!b-a]", "[^a]"], "]", "none")
@example(["[{x}]", "{[ab]}"], "[a]", "narrow")
@example(["{+x}/{y}"], "a/b/c", "narrow")
def test_patterns_match_as_regular_expressions_do(
    patterns: list[str], text: str, variables: Variables
) -> None:
    """In every mixture of gaps, sets and characters."""
    made = Patterns(patterns, variables)
    matching = made.matching(text)
    found = [matching & end != 0 for end in made.ends]
    assert found == [expression(one, variables).match(text) is not None for one in patterns]
    assert matching & ~sum(made.ends) == 0


@given(st.text("[]!-^az\x00\x7f\U0010ffff", min_size=1, max_size=7), st.characters())
@example("[!\U0010ffff]", "\U0010ffff")
@example("[\x00-\U0010ffff]", "\U0010ffff")
def test_a_set_has_the_characters_of_the_expression(pattern: str, char: str) -> None:
    """At both ends of all characters, too."""
    assert (Patterns([pattern]).matching(char) != 0) == (expression(pattern, "none").match(char) is not None)


@pytest.mark.parametrize("pattern", ["*a*a*a*a*a*a*b", "{a}x{b}x{c}x", "*" + "a" * 127 + "b", "[ab]*" * 50])
@pytest.mark.parametrize("text", ["a" * MAX_NAME_CHARS, "x" * MAX_NAME_CHARS, "ab" * (MAX_NAME_CHARS // 2)])
def test_a_text_is_read_once(pattern: str, text: str) -> None:
    """Counted in lines of the code that run: a few for each character."""
    made, lines = Patterns([pattern] * 128, "narrow"), 0

    def count(frame: object, event: str, arg: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        made.matching(text)
    finally:
        sys.settrace(before)
    assert lines <= 5 * len(text) + 10
