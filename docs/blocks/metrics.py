"""The metrics for Prometheus, from the table of `broker.management.metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from broker.management.metrics import CALL_SECONDS, METRICS
from docs.blocks.markdown import TEXTS, Language, code, table

_HEAD = {"en": ("metric", "kind", "labels", "meaning"), "zh": ("指标", "类型", "标签", "含义")}


def families(language: Language) -> str:
    """Return every metric of the broker."""

    def rows() -> Iterator[list[str]]:
        for family in (*METRICS, CALL_SECONDS):
            text = family.help if language == "en" else _chinese(family.name, family.help)
            yield [code(family.exposed), family.kind, ", ".join(map(code, family.labels)) or "–", text]

    return table(_HEAD[language], rows())


def _chinese(name: str, english: str) -> str:
    known = TEXTS["metrics"].get(name, {})
    if known.get("of") != english:
        where = f"[metrics.{name}] of docs/texts.toml"
        raise SystemExit(f"{where}: translate this text, and write it beside as its `of`:\n{english}")
    return str(known["zh"])
