"""The figures of the last published run of the benchmarks."""

from __future__ import annotations

import json
from typing import Any

from docs.blocks.markdown import DOCS, TEXTS, Language, code, table

_FIGURES = DOCS.parent / "benchmarks" / "figures.json"


def _read() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(_FIGURES.read_text(encoding="utf-8"))
    return figures


def _said(text: str, language: Language) -> str:
    return text if language == "en" else TEXTS["performance"][text]


def run(language: Language) -> str:
    """Return which run the figures are of, and how busy the machine was before it."""
    about = _read()["about"]
    load = about.get("load_before")
    if language == "zh":
        words = [f"`{about['plan']}` 方案", about["date"], f"提交 `{about['commit']}`", about["processor"]]
        return "，".join(words + ([f"开始前负载 {load:g}"] if load is not None else [])) + "。"
    words = [f"Plan `{about['plan']}`", about["date"], f"commit `{about['commit']}`", about["processor"]]
    return ", ".join(words + ([f"load before it {load:g}"] if load is not None else [])) + "."


def targets(language: Language) -> str:
    """Return each target with the figure that was reached."""
    head = {"en": ("what", "target", "reached", ""), "zh": ("指标", "目标", "实测", "")}
    words = {"en": ("not measured", "**missed**", "met"), "zh": ("未测", "**未达到**", "达到")}
    verdicts = dict(zip((None, False, True), words[language], strict=True))
    rows = (
        (_said(row["what"], language), row["limit"], row["reached"], verdicts[row["met"]])
        for row in _read()["targets"]
    )
    return table(head[language], rows)


def parts(language: Language) -> str:
    """Return the parts of one call."""
    head = {"en": ("part of a call", "µs"), "zh": ("一次调用的组成", "µs")}
    return table(head[language], ((_said(row["what"], language), f"{row['us']}") for row in _read()["parts"]))


def steps(language: Language) -> str:
    """Return the cost of each step of our own code."""
    head = {"en": ("step", "where", "µs"), "zh": ("步骤", "位置", "µs")}
    found = _read()["steps"]
    rows = [(_said(row["what"], language), code(row["where"]), f"{row['us']:.1f}") for row in found]
    together = {"en": "together", "zh": "合计"}[language]
    return table(head[language], [*rows, (together, "", f"{sum(row['us'] for row in found):.1f}")])
