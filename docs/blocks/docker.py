"""What `make docker-test` found, from `docs/docker.toml`."""

from __future__ import annotations

from typing import Any

import tomli

from docs.blocks.markdown import DOCS, TEXTS, Language, table


def found() -> dict[str, Any]:
    """Return the file as it is now: `make docker-test` writes it before it renews the pages."""
    return tomli.loads((DOCS / "docker.toml").read_text(encoding="utf-8"))


def about(language: Language) -> str:
    """Return the engine, and where its base image came from."""
    seen = found()["about"]
    return str(TEXTS["docker"]["about"][seen["base"]][language]).format(**seen)


def checks(language: Language) -> str:
    """Return each check, whether it held, and what was measured."""
    head = {"en": ("what was done", "held", "measured"), "zh": ("内容", "成立", "实测")}
    yes, no = {"en": ("yes", "no"), "zh": ("是", "否")}[language]
    rows = [
        [
            TEXTS["docker"]["check"][check["name"]][language],
            yes if check["held"] else no,
            _SEPARATOR[language].join(_figure(one, language) for one in check["figures"]) or "–",
        ]
        for check in found()["checks"]
    ]
    return table(head[language], rows)


_SEPARATOR = {"en": "; ", "zh": "；"}
_BOUND = {"en": " (at most {:g})", "zh": "（上限 {:g}）"}


def _figure(figure: dict[str, Any], language: Language) -> str:
    text = TEXTS["docker"]["figure"][figure["what"]]
    unit = f" {text['unit']}" if text["unit"] else ""
    bound = _BOUND[language].format(figure["bound"]) if "bound" in figure else ""
    label = text[language] if text[language].endswith("：") else f"{text[language]} "
    return f"{label}{figure['measured']:g}{unit}{bound}"
