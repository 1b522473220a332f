"""What a server may be called, and how its name is written where it is not alone."""

from __future__ import annotations

import shlex
import unicodedata

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from broker.config.names import MAX_CHARS, derived, file_name, normal, shell, toml_key, why_not

NAMES = [
    "time",
    "a",
    "7",
    "时间",
    "my server",
    "Ünïcode",
    "हिन्दी",
    "שלום",
    "عربي",
    "Привет",
    "a.b-c_d",
    "_x",
    ".x",
    "²",
]

NO_NAMES = {
    "": "it is empty",
    "x" * 65: "it has 65 characters",
    "a/b": "the character '/', U+002F SOLIDUS",
    "a\tb": "the character U+0009",
    "a\u00a0b": "the character U+00A0 NO-BREAK SPACE",
    "a\u3000b": "the character U+3000 IDEOGRAPHIC SPACE",
    "a\u200bb": "the character U+200B ZERO WIDTH SPACE",
    "a\u202eb": "the character U+202E RIGHT-TO-LEFT OVERRIDE",
    "a\u3164b": "U+3164 HANGUL FILLER",
    "a\ufe0f": "U+FE0F VARIATION SELECTOR-16",
    "📁": "U+1F4C1 FILE FOLDER",
    "a\ud800": "the character U+D800",
    "$broker": "the character '$'",
    " a": "a space at an end",
    "a ": "a space at an end",
    "a  b": "two spaces together",
    "-.-": "no letter and no digit",
    "-a": "begins with '-'",
    "\u0301a": "begins with",
}

any_text = st.text(st.characters(), max_size=80)


@pytest.mark.parametrize("name", NAMES)
def test_letters_and_digits_of_every_script_are_names(name: str) -> None:
    """With - _ . and single spaces inside."""
    assert why_not(normal(name)) is None


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_may_disguise_one_name_as_another_is_none(name: str) -> None:
    """The reason names the character, also where it cannot be seen."""
    assert NO_NAMES[name] in str(why_not(normal(name)))


@given(any_text)
def test_a_derived_name_is_a_name(name: str) -> None:
    """Stable, and the same for both spellings of a letter."""
    assert why_not(normal(derived(name))) is None
    assert normal(derived(name)) == derived(name) == derived(normal(name))
    assert len(derived(name)) <= MAX_CHARS


@given(any_text, any_text)
def test_two_names_never_become_one(one: str, other: str) -> None:
    """Neither as a derived name nor as a file."""
    if normal(one) != normal(other):
        assert derived(one) != derived(other)
    if one != other:
        assert file_name(one) != file_name(other)


@given(any_text)
def test_a_file_name_is_one_on_every_file_system(name: str) -> None:
    """ASCII, no slash, no dot or hyphen first, and short enough for what is put behind it."""
    found = file_name(name)
    assert found.isascii()
    assert found.isprintable()
    assert "/" not in found
    assert found[0] not in ".-"
    assert len(found) <= MAX_CHARS


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_in_a_command_and_in_toml_is_that_name(name: str) -> None:
    """Whatever stands in an error may be copied; nothing in it moves a cursor."""
    assert shlex.split(f"logs {shell(name)}")[1:] == [name]
    assert tomli.loads(f"[servers.{toml_key(name)}]\n")["servers"] == {name: {}}
    assert toml_key(name).isprintable()


def test_every_letter_without_a_shape_is_known() -> None:
    """Of this Python's Unicode: fillers, selectors and joiners that are letters or marks."""
    for code in range(0x110000):
        char = chr(code)
        name = unicodedata.name(char, "")
        if unicodedata.category(char)[0] in "LM" and any(
            word in name
            for word in ("HANGUL FILLER", "VARIATION SELECTOR", "GRAPHEME JOINER", "VOWEL INHERENT")
        ):
            assert why_not(f"a{char}"), name
