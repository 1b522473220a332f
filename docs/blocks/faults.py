"""What `make soak` saw in the fault matrix, from `docs/faults.toml`."""

from __future__ import annotations

from typing import Any

import tomli

from docs.blocks.markdown import DOCS, TEXTS, Block, Language, code, table


def found() -> dict[str, Any]:
    """Return the file as it is now: `make soak` writes it before it renews the pages."""
    return tomli.loads((DOCS / "faults.toml").read_text(encoding="utf-8"))


_HEADS = {
    "end": {"en": "afterwards", "zh": "之后"},
    "call": {"en": "a call", "zh": "一个调用"},
    "safe_call": {"en": "a read-only call", "zh": "一个只读调用"},
    "cause": {"en": "`status` says", "zh": "`status` 的说明"},
    "processes": {"en": "processes", "zh": "进程"},
    "seconds": {"en": "whole again after", "zh": "恢复用时"},
    "answered": {"en": "neighbour's calls meanwhile", "zh": "其间邻居的调用"},
}


def means(language: Language) -> str:
    """Return the faults and how each is caused."""
    head = {"en": ("fault", "how it comes about"), "zh": ("故障", "如何产生")}
    said = TEXTS["faults"]["means"]
    rows = (
        [_name(fault, language), said[one["means"]][language]] for fault, one in found()["faults"].items()
    )
    return table(head[language], rows)


def seen(moment: str) -> Block:
    """Return the block of one situation: each fault with its outcome."""

    def block(language: Language) -> str:
        cells = {fault: one[moment] for fault, one in found()["faults"].items() if moment in one}
        columns = [key for key in _HEADS if any(key in cell for cell in cells.values())]
        head = [{"en": "fault", "zh": "故障"}[language], *(_HEADS[key][language] for key in columns)]
        rows = (
            [_name(fault, language), *(_shown(key, cell, language) for key in columns)]
            for fault, cell in cells.items()
        )
        return table(head, rows)

    return block


def around(language: Language) -> str:
    """Return the figures of the broker and the neighbour."""
    whole = found()
    seen, run_on = whole["around"], (whole["date"], about(whole["machine"]))
    pairs = ", ".join(f"{before} → {after}" for before, after in seen["descriptors"])
    tasks = ", ".join(f"{before} → {after}" for before, after in seen["tasks"])
    times = f"{seen['p50_ms']:g} / {seen['p99_ms']:g} / {seen['longest_ms']:g} ms"
    said = {
        "en": [
            ("run on", ", ".join(run_on)),
            ("servers with a fault", str(seen["servers"])),
            ("the neighbour's calls, each answered and rightly", f"{seen['calls']:,}"),
            ("median / p99 / longest of them", times),
            ("descriptors of the broker with all servers stopped: before → after, of each play", pairs),
            ("its tasks", tasks),
            ("lines of garbage that it counted", f"{seen['noise']:,}"),
        ],
        "zh": [
            ("运行于", "，".join(run_on)),
            ("带故障的服务器", str(seen["servers"])),
            ("邻居的调用，全部得到正确响应", f"{seen['calls']:,}"),
            ("其中位数 / p99 / 最长", times),
            ("全部服务器停止时 broker 的描述符：每场之前 → 之后", pairs),
            ("其任务", tasks),
            ("它计数的垃圾行", f"{seen['noise']:,}"),
        ],
    }
    return table(("", ""), said[language])


def about(machine: dict[str, str]) -> str:
    """Return a short description of the machine."""
    return f"{machine['processor']}, {machine['memory']}, {machine['kernel']}, Python {machine['python']}"


def _name(fault: str, language: Language) -> str:
    return fault if language == "en" else str(TEXTS["faults"]["name"][fault])


def _shown(key: str, cell: dict[str, Any], language: Language) -> str:
    if key not in cell:
        return "–"
    if key == "end":
        return str(TEXTS["faults"]["end"][cell[key]][language])
    if key in ("call", "safe_call"):
        return str(TEXTS["faults"]["calls"][cell[key]][language])
    if key == "cause":
        return code(cell[key])
    if key == "seconds":
        return f"{cell[key]:g} s"
    if key == "answered":
        return f"{cell[key]} (≤ {cell['longest_ms']} ms)"
    return str(cell[key])
