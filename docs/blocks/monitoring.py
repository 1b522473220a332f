"""The alerts for Prometheus and the dashboard for Grafana, in the language of who is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import tomli

from docs.blocks.markdown import DOCS, Language

_TEXTS: dict[str, Any] = tomli.loads((DOCS / "monitoring.toml").read_text(encoding="utf-8"))
_DASHBOARD = DOCS.parent / "examples" / "grafana" / "mcp-broker.json"
_SHOWN = ("title", "description", "label", "legendFormat", "text")
"""The keys of a dashboard that people see."""


def alerts(language: Language) -> str:
    """Return the rules of the alerts as YAML."""
    rules = [line for alert in _TEXTS["alerts"] for line in _rule(alert, language)]
    return "\n".join(["```yaml", "groups:", "  - name: mcp-broker", "    rules:", *rules, "```"])


def _rule(alert: dict[str, str], language: Language) -> Iterator[str]:
    yield f"      - alert: {alert['name']}"
    yield f"        expr: {alert['expr']}"
    if "for" in alert:
        yield f"        for: {alert['for']}"
    yield f"        labels: {{severity: {alert['severity']}}}"
    yield f"        annotations: {{summary: {json.dumps(alert[language], ensure_ascii=False)}}}"


def chinese_dashboard() -> str:
    """Return the dashboard with Chinese texts. It has a name of its own, so both can be imported."""
    made = _in_chinese(json.loads(_DASHBOARD.read_text(encoding="utf-8")))
    made["uid"] += "-zh"
    return json.dumps(made, ensure_ascii=False, indent=2) + "\n"


def _in_chinese(node: Any, key: str = "") -> Any:
    if isinstance(node, dict):
        return {name: _in_chinese(value, name) for name, value in node.items()}
    if isinstance(node, list):
        return [_in_chinese(value, key) for value in node]
    return _text(node) if key in _SHOWN and isinstance(node, str) else node


def _text(english: str) -> str:
    if english not in _TEXTS["dashboard"] and _has_words(english):
        raise SystemExit(f"[dashboard] of docs/monitoring.toml: translate this text: {english}")
    return str(_TEXTS["dashboard"].get(english, english))


def _has_words(text: str) -> bool:
    """Return whether a text is more than labels of the metric and percentiles."""
    return any(word.isalpha() for word in text.replace("{{", " {{").split() if not word.startswith("{{"))
