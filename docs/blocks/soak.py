"""What `make soak` measured, from `docs/soak.toml`."""

from __future__ import annotations

from typing import Any

import tomli

from docs.blocks.faults import about
from docs.blocks.markdown import DOCS, TEXTS, Language, code, table


def found() -> dict[str, Any]:
    """Return the file as it is now: `make soak` writes it before it renews the pages."""
    return tomli.loads((DOCS / "soak.toml").read_text(encoding="utf-8"))


def machine(language: Language) -> str:
    """Return the machine."""
    ours = found()["machine"]
    packages = [name for name in ours if name not in ("processor", "memory", "kernel", "python")]
    return f"{about(ours)}; {', '.join(f'{name} {ours[name]}' for name in packages)}."


def parts(language: Language) -> str:
    """Return each part: what is done, how often, the laws that it tries, and whether all of it held."""
    head = {
        "en": ("command", "what is done", "how often", "laws", "held", "took", "load before", "date"),
        "zh": ("命令", "内容", "次数", "不变量", "成立", "用时", "开始前负载", "日期"),
    }
    rows = []
    for name, part in _in_order():
        said = TEXTS["soak"]["part"][name]
        missed = sum(not holds(line) for line in part["line"])
        yes, no = {"en": ("yes", "{} missed"), "zh": ("是", "{} 项未成立")}[language]
        held = no.format(missed) if missed else yes
        times = _times(part["count"], part["unit"], language)
        laws = ", ".join(map(str, said["laws"]))
        rows.append(
            [
                code(f"make soak PARTS={name}"),
                said[language],
                times,
                laws,
                held,
                f"{part['seconds']} s",
                f"{part['load']:g}",
                part["date"],
            ]
        )
    return table(head[language], rows)


def _in_order() -> list[tuple[str, dict[str, Any]]]:
    """Return the parts in the order in which they run, which is not that of the file."""
    order = list(TEXTS["soak"]["part"])
    return sorted(found()["parts"].items(), key=lambda one: order.index(one[0]))


def laws(language: Language) -> str:
    """Return the tests and the parts of the soak that guard each law."""
    head = {
        "en": ("law", "tests", "parts of [the soak](soak.md)"),
        "zh": ("不变量", "测试", "[长稳测试](soak.zh-CN.md)的部分"),
    }
    tried = TEXTS["soak"]["part"].items()
    rows = (
        [
            law,
            ", ".join(map(code, tests)),
            ", ".join(code(name) for name, part in tried if int(law) in part["laws"]) or "–",
        ]
        for law, tests in TEXTS["soak"]["tests"].items()
    )
    return table(head[language], rows)


def lines(language: Language) -> str:
    """Return every figure with its bound."""
    head = {"en": ("part", "figure", "measured", "at most"), "zh": ("部分", "指标", "实测", "上限")}
    said = TEXTS["soak"]["line"]
    rows = [
        [code(name), said[line["what"]][language], _figure(line, "measured"), _mark(line)]
        for name, part in _in_order()
        for line in part["line"]
    ]
    return table(head[language], rows)


def _times(count: int, unit: str, language: Language) -> str:
    said = UNITS.get(unit, {}).get(language, unit)
    return f"{count:,} {said.rstrip('s') if count == 1 else said}"


UNITS = {
    "rounds": {"zh": "轮"},
    "restarts": {"zh": "次重启"},
    "reloads": {"zh": "次重新加载"},
    "kills": {"zh": "次强制结束"},
    "seconds": {"zh": "秒"},
    "calls": {"zh": "个调用"},
    "requests": {"zh": "个请求，10 轮", "en": "requests, 10 rounds"},
    "clients": {"zh": "个客户端，10 轮", "en": "clients, 10 rounds"},
    "connections": {"zh": "个连接"},
    "cycles": {"zh": "个循环"},
    "games": {"zh": "局"},
    "bridges": {"zh": "个桥接进程"},
    "sessions": {"zh": "个会话"},
    "bytes": {"zh": "字节"},
}
"""unit of a part → how it is written, where that is not the unit itself"""


def holds(line: dict[str, Any]) -> bool:
    """Return whether a figure is within its bound."""
    return "bound" not in line or bool(line["measured"] <= line["bound"])


def _figure(line: dict[str, Any], key: str) -> str:
    return f"{line[key]:,} {line.get('unit', '')}".strip()


def _mark(line: dict[str, Any]) -> str:
    if "bound" not in line:
        return "–"
    return _figure(line, "bound") if holds(line) else f"**{_figure(line, 'bound')}**"
