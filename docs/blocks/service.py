"""The settings of the service's unit, and their purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator

from docs.blocks.markdown import DOCS, TEXTS, Language, code, table

UNIT = DOCS.parent / "systemd" / "mcp-broker.service"

_BOUNDARY = "# What a server cannot do."
"""The line of the unit between the settings of the service and those that restrict its servers."""

_LEFT_OUT = re.compile(r"^#   ((?:\w+=\S*,? )+) *(.+)$", re.MULTILINE)
_LINE = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)

_HEAD = {"en": ("in the unit", "what it is for"), "zh": ("单元中的设置", "作用")}
_HEAD_OUT = {"en": ("left out", "because"), "zh": ("未使用", "原因")}


def _halves() -> tuple[str, str]:
    _, _, service = UNIT.read_text(encoding="utf-8").partition("[Service]")
    above, boundary, below = service.partition("[Install]")[0].partition(_BOUNDARY)
    assert boundary, f"{UNIT.name} has lost its line {_BOUNDARY!r}"
    return above, below


def settings(text: str) -> Iterator[tuple[str, str]]:
    """Return every setting with its value, in the order of the unit."""
    return ((match[1], match[2]) for match in _LINE.finditer(text))


def keys() -> tuple[set[str], set[str]]:
    """Return all settings, and the ones that restrict servers, each of which needs a text."""
    above, below = ({key for key, _ in settings(half)} for half in _halves())
    return above | below, below


def left_out() -> dict[str, str]:
    """Return the settings that are left out because they break servers, and why."""
    return {match[1].strip(): match[2] for match in _LEFT_OUT.finditer(_halves()[1])}


def unit(language: Language) -> str:
    """Return the settings of the service."""
    return table(_HEAD[language], _rows(_halves()[0], language))


def hardening(language: Language) -> str:
    """Return the settings that restrict its servers."""
    return table(_HEAD[language], _rows(_halves()[1], language))


def _rows(text: str, language: Language) -> Iterator[list[str]]:
    for key, value in settings(text):
        if key in TEXTS["unit"]:
            yield [code(f"{key}={value}"), TEXTS["unit"][key][language]]


def not_used(language: Language) -> str:
    """Return the settings that are left out."""
    rows = ([code(what), _why(what, why, language)] for what, why in left_out().items())
    return table(_HEAD_OUT[language], rows)


def _why(what: str, english: str, language: Language) -> str:
    if language == "en":
        return f"{english[0].upper()}{english[1:]}."
    known = TEXTS["left_out"].get(what, {})
    if known.get("of") != english:
        where = f"[left_out.{what!r}] of docs/texts.toml"
        raise SystemExit(f"{where}: translate this text, and write it beside as its `of`:\n{english}")
    return str(known["zh"])
