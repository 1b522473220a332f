"""The terms of the project in both languages, from docs/glossary.toml."""

from __future__ import annotations

from typing import Any

import tomli

from docs.blocks.markdown import DOCS, Language, code, table

TERMS: list[dict[str, Any]] = tomli.loads((DOCS / "glossary.toml").read_text(encoding="utf-8"))["terms"]


def terms(language: Language) -> str:
    """Return each term with its meaning; in Chinese with the English one beside it."""
    if language == "en":
        return table(("term", "meaning"), ([term["en"], term["means_en"]] for term in TERMS))
    return table(
        ("术语", "英文", "含义"), ([term["zh"], code(term["en"]), term["means_zh"]] for term in TERMS)
    )
