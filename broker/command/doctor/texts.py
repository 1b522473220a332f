"""The texts of the doctor, in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from broker.command import words
from broker.command.doctor.findings import FINDINGS
from client_shim.text import on_one_line

Say = Callable[..., str]
"""Returns a text of `WORDS` in the reader's language, filled in with facts."""

STATES = (
    "ready",
    "starting",
    "handshake",
    "draining",
    "stopped",
    "backoff",
    "broken",
    "disabled",
    "misconfigured",
)
"""The states of a server, with the texts of `status`."""


class OnProgress(Protocol):
    """Called with the progress: a word of `WORDS`, the steps done and in total, and further facts."""

    def __call__(self, word: str, done: int, total: int, **facts: object) -> None: ...


WORDS: dict[str, tuple[str, str]] = {
    **{f"state.{state}": words.WORDS[state] for state in STATES},
    # --- the course
    "waiting": ("waiting for servers that are starting: {servers}", "等待正在启动的服务器：{servers}"),
    "looking": ("counting processes", "正在统计进程"),
    "page_done": (
        "page {done}/{total}: answered in {took:.3f} s, processes: {processes}",
        "第 {done}/{total} 页：回答用时 {took:.3f} 秒，进程 {processes} 个",
    ),
    "old_page_done": (
        "the old way, page {done}/{total}: opened in {took:.3f} s, processes: {processes}",
        "旧方式第 {done}/{total} 页：打开用时 {took:.3f} 秒，进程 {processes} 个",
    ),
    # --- the record
    "title": (
        "mcp-broker doctor: {pages} page opens on {endpoint}",
        "mcp-broker doctor：打开页面 {pages} 次，{endpoint}",
    ),
    "number": ("page", "页面"),
    "answer": ("answer time, s", "回答时间（秒）"),
    "processes": ("processes", "进程数"),
    "client": ("client", "客户端"),
    "remark": ("remark", "备注"),
    "closed": ("closed", "已关闭"),
    "forgotten": ("forgotten", "未关闭"),
    "before": ("before", "测试前"),
    "after": ("after", "测试后"),
    "memory_row": ("memory, MiB (broker and servers)", "内存，MiB（broker 与服务器）"),
    "cpu_row": ("CPU at rest, % of one core", "空闲 CPU，单核百分比"),
    "at_page.list": ("{server}: no list", "{server}：未取得列表"),
    "at_page.call": ("{server}: call failed", "{server}：调用失败"),
    "at_page.tool": ("{server}: tool error", "{server}：工具报错"),
    "at_page.died": ("{server}: ended", "{server}：进程退出"),
    "at_page.new": ("{server}: new process", "{server}：新进程"),
    "at_page.state": ("{server}: {state}", "{server}：{state}"),
    "at_page.count": ("{server}: {first} → {last} processes", "{server}：进程数 {first} → {last}"),
    # --- the comparison
    "compare": ("Compared with the old way", "与旧方式对比"),
    "old_way": ("old way", "旧方式"),
    "broker": ("broker", "broker"),
    "open_time": ("open, s", "打开（秒）"),
    "compare.meaning": (
        "The old way: each page starts every server itself, and its client is never closed.",
        "旧方式：每个页面自行启动所有服务器，其客户端从不关闭。",
    ),
    "compare.sum": (
        "After page {pages}: {old} processes and {old_mib} MiB the old way, {new} and {new_mib} MiB here.",
        "第 {pages} 页之后：旧方式 {old} 个进程、{old_mib} MiB，broker {new} 个进程、{new_mib} MiB。",
    ),
    "compare.ended": (
        "All {count} processes of the old way were ended.",
        "旧方式启动的 {count} 个进程已全部结束。",
    ),
    "compare.left": (
        (
            "{count} processes of the old way could not be ended; find them with "
            "`grep -l MCP_BROKER_DOCTOR /proc/*/environ`."
        ),
        "旧方式有 {count} 个进程未能结束；可用 `grep -l MCP_BROKER_DOCTOR /proc/*/environ` 查找。",
    ),
    "compare.skipped": (
        "Not started the old way, because containers outlive their command: {servers}.",
        "以下服务器未按旧方式启动，因为容器不会随启动命令一起结束：{servers}。",
    ),
    "compare.memory": (
        "The old way stopped after {pages} pages, because this machine has little memory left.",
        "本机可用内存不足，旧方式在第 {pages} 页之后停止。",
    ),
    "compare.failed": ("The old way, {server}: {error}", "旧方式，{server}：{error}"),
    "config_elsewhere": (
        (
            "No comparison: the broker runs on another machine, in another container, or as a user whose "
            "processes are hidden; run `mcp-broker doctor --compare` where the broker runs."
        ),
        (
            "未做对比：broker 运行在另一台机器、另一个容器中，或其进程对当前用户不可见；请在 broker 所在的"
            "环境中运行 `mcp-broker doctor --compare`。"
        ),
    ),
    "config_unreadable": (
        "No comparison: cannot read the broker's config {path}: {problem}",
        "未做对比：无法读取 broker 的配置 {path}：{problem}",
    ),
    # --- the verdict
    "verdict.A": ("Verdict: A, fixed.", "判定：A，已修复。"),
    "verdict.B": ("Verdict: B, partly fixed.", "判定：B，部分修复。"),
    "verdict.C": ("Verdict: C, not fixed.", "判定：C，未修复。"),
    "why.A": (
        (
            "Pages opened and left: {pages}, without closing their client: {forgotten}. No process was "
            "started for them, and none was left behind."
        ),
        (
            "打开并离开的页面共 {pages} 个，其中未关闭客户端的 {forgotten} 个：没有为它们启动任何进程，"
            "也没有残留。"
        ),
    ),
    "why.steady": ("The answers did not become slower.", "回答没有变慢。"),
    "why.B": (
        "Opening pages starts no process. Solve the problems above.",
        "打开页面不会启动进程；但上面列出的问题需要处理。",
    ),
    "why.C": ("The most likely cause is the first problem above.", "最可能的原因是上面列出的第一项。"),
    "rule": (
        (
            "The correct number is one process tree per server, always: before the first page, while pages "
            "are open, and after the last was closed. The servers belong to the broker, not to a page. The "
            "older guide expected 0 after a close, because each page had its own servers."
        ),
        (
            "正确的结果是：每个服务器始终恰好有一个进程（树）。打开第一个页面之前、页面打开期间、关闭最后一个"
            "页面之后都是如此，因为服务器属于 broker，而不属于页面。旧的测试指南要求关闭页面后进程数为 0，"
            "是因为当时每个页面各自启动服务器。"
        ),
    ),
    "findings": ("Problems", "需要处理"),
    "remarks": ("Remarks", "说明"),
    **FINDINGS,
}
"""word → English, Chinese."""


_PLAIN = re.compile(r"(?!www\.)[\w ,.;()%+×/-]*")
"""Text without Markdown or GitHub syntax: no link, image, mention or HTML."""


def markdown_speaker(language: int) -> Say:
    """Return a `Say` for Markdown, which puts texts of servers and config files into code spans.

    Otherwise every reader of the issue would fetch an image, and a mention would notify a person.
    """

    def say(word: str, **facts: object) -> str:
        parts = WORDS[word][language].split("`")
        formatted = [
            words.fill_in(
                part, **{name: _inert(fact, in_code=bool(number % 2)) for name, fact in facts.items()}
            )
            for number, part in enumerate(parts)
        ]
        return "`".join(formatted)

    return say


def _inert(fact: object, *, in_code: bool) -> object:
    if not isinstance(fact, str):
        return fact
    text = on_one_line(fact).replace("`", "'")
    return text if in_code or _PLAIN.fullmatch(text) else f"`{text}`"


def speaker(language: int) -> Say:
    """Return a `Say` for this language: 0 for English, 1 for Chinese."""
    return lambda word, **facts: words.fill_in(WORDS[word][language], **facts)
