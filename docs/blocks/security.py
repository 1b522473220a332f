"""The threats of `docs/texts.toml`: what an attacker may try, what stops it, and its test."""

from __future__ import annotations

from typing import Any

from docs.blocks.markdown import TEXTS, Block, Language, code, table


def threats(who: str) -> Block:
    """Return the block of the threats by one kind of attacker, `[security.WHO.*]`."""
    head = {"en": ("attempt", "what happens", "test"), "zh": ("尝试", "结果", "测试")}

    def rows(language: Language) -> str:
        return table(
            head[language],
            ([one[language], one[f"{language}_end"], code(one["test"])] for one in of(who).values()),
        )

    return rows


def of(who: str) -> dict[str, dict[str, Any]]:
    """Name → a threat: its words in both languages, and its test as pytest names it."""
    found: dict[str, dict[str, Any]] = TEXTS["security"][who]
    return found
