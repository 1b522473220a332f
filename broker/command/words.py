"""What the command says to people, in English and Chinese."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from broker.config.names import shell, toml_key

WORDS: dict[str, tuple[str, str]] = {
    "server": ("server", "服务器"),
    "state": ("state", "状态"),
    "pid": ("pid", "进程号"),
    "processes": ("procs", "进程数"),
    "uptime": ("up", "运行时间"),
    "restarts": ("restarts", "重启"),
    "tools": ("tools", "工具"),
    "calls": ("calls", "调用"),
    "errors": ("errors", "错误"),
    "latency": ("p50/p99 ms", "p50/p99 毫秒"),
    "cpu": ("cpu", "CPU"),
    "memory": ("memory", "内存"),
    "ready": ("ready", "就绪"),
    "starting": ("starting", "启动中"),
    "handshake": ("handshake", "握手中"),
    "draining": ("ending", "正在结束"),
    "stopped": ("stopped", "已停止"),
    "backoff": ("restarting", "等待重启"),
    "broken": ("broken", "已熔断"),
    "disabled": ("disabled", "已禁用"),
    "misconfigured": ("misconfigured", "配置有误"),
    "broker_line": (
        "mcp-broker {version}, pid {pid}, up {uptime}, {memory}, {clients} client{clients:s}, {endpoint}",
        "mcp-broker {version}，进程号 {pid}，运行 {uptime}，内存 {memory}，客户端 {clients} 个，{endpoint}",
    ),
    "all_ready": ("All {count} servers are ready.", "全部 {count} 个服务器均已就绪。"),
    "some_ready": (
        "{ready} of {count} server{count:s} {count:are} ready.",
        "{count} 个服务器中有 {ready} 个就绪。",
    ),
    "last_error": ("{server}: {error}", "{server}：{error}"),
    "cause_exited": ("it exited with status {status}", "以状态 {status} 退出"),
    "cause_killed": ("it was killed by {signal}", "被 {signal} 杀死"),
    "cause_no-command": ("there is no command {command}", "PATH 中没有命令 {command}"),
    "cause_not-ready": ("it was not ready within {within_s:g} s", "{within_s:g} 秒内未就绪"),
    "in_other_words": ("{error}", "{cause}（{error}）"),
    "tried_again": ("; tried again in {after}", "；{after} 后重试"),
    "tried_at_once": (
        ", or at once by `mcp-broker start {server:sh}`",
        "，或用 `mcp-broker start {server:sh}` 立即重试",
    ),
    "given_up": (
        "; left at that, as its `restart` says; `mcp-broker start {server:sh}` starts it",
        "；按其 `restart` 的设置不再重试；用 `mcp-broker start {server:sh}` 启动",
    ),
    "is_starting": (
        "{server}: it has been starting for {since}, and has {left} left (timeout_start_sec)",
        "{server}：已启动 {since}，还有 {left}（timeout_start_sec）",
    ),
    "installing": (
        "{server}: it has been starting for {since}; `{runner}` may be downloading, for {most} at most",
        "{server}：已启动 {since}；`{runner}` 可能仍在下载，总共最多 {most}",
    ),
    "left_out": (
        "{server}: left out, for its table has a mistake; once it is corrected: mcp-broker reload",
        "{server}：配置有误，未启动；更正之后：mcp-broker reload",
    ),
    "kept": (
        "{server}: goes on by its earlier table, for the new one has a mistake",
        "{server}：新配置有误，继续按原配置运行",
    ),
    "was_stopped": (
        "{server}: it was stopped; `mcp-broker start {server:sh}` starts it",
        "{server}：已被停止；用 `mcp-broker start {server:sh}` 启动",
    ),
    "puts_up_with": ("{server}: {what}", "{server}：{what}"),
    "ran_already": ("{server}: was running already", "{server}：本来就在运行"),
    "what_next": (
        "more: mcp-broker logs SERVER; once it is mended: mcp-broker start SERVER",
        "更多：mcp-broker logs SERVER；修好之后：mcp-broker start SERVER",
    ),
    "config_fine": ("{path}: fine, {count} server{count:s}", "{path}：配置正确，共 {count} 个服务器"),
    "config_missing": (
        "{path}: {missing} of {count} server{count:s} cannot be started",
        "{path}：{count} 个服务器中有 {missing} 个无法启动",
    ),
    "no_lists": (
        "no server has been ready yet; `mcp-broker status` shows why",
        "还没有服务器就绪；原因见 `mcp-broker status`",
    ),
    "nothing_written": ("{server} has written nothing so far", "{server} 尚未输出任何内容"),
    "lines_missing": (
        "{server}: {count} line{count:s} {count:are} missing here, for it wrote more at once than is kept",
        "{server}：此处缺少 {count} 行：它一次写出的行数超过 broker 保留的数目",
    ),
    "config_bad": ("{path}: {count} mistake{count:s}", "{path}：{count} 处错误"),
    "runs": ("{server}: {program}", "{server}：{program}"),
    "off": ("{server}: disabled", "{server}：已禁用"),
    "check_as": (
        "as the service of {unit} sees it: user {user}, PATH {path}",
        "按服务 {unit} 的视角检查：用户 {user}，PATH {path}",
    ),
    "check_no_unit": (
        "there is no {unit} here; `sudo make install` in the checkout installs it",
        "此处没有 {unit}；在源码目录中执行 `sudo make install` 可安装",
    ),
    "check_closed": (
        "{server}: {program} cannot run: {path} is closed to user {user}; change its mode, or move it",
        "{server}：{program} 无法运行：用户 {user} 无权访问 {path}；请修改其权限，或移到别处",
    ),
    "check_elsewhere": ("it is here: {places}", "它在这里：{places}"),
    "check_for_all": (
        "which is closed to user {user}: install {command} for all users (in /usr/local/bin)",
        "但用户 {user} 无权访问：请为所有用户安装 {command}（放在 /usr/local/bin）",
    ),
    "check_path": (
        "write the whole path as command, or `systemctl edit mcp-broker`: [Service] Environment=PATH={path}",
        "请把完整路径写为 command，或在 `systemctl edit mcp-broker` 中写入 [Service] Environment=PATH={path}",
    ),
    "check_unread": (
        "{path} is closed to you: the variables in it are taken to be missing; run this as root",
        "你无权读取 {path}：其中的变量按缺失处理；请以 root 身份运行",
    ),
    "check_config_closed": (
        "{path}: the service cannot read it, {closed} is closed to user {user}; chgrp {user}, and chmod 0640",
        "{path}：服务无法读取，用户 {user} 无权访问 {closed}；请执行 chgrp {user} 和 chmod 0640",
    ),
    "check_secrets": (
        "{path}: everybody can read it, and these look like secrets: {names}; chmod o-r, or write ${{NAME}}",
        "{path}：所有人可读，而以下各项像是密钥：{names}；请执行 chmod o-r，或改写为 ${{NAME}}",
    ),
    "no_tools": ("{server}: no tools", "{server}：没有工具"),
    "not_json": (
        'the arguments are not a JSON object: {problem}; write them as \'{{"name": "value"}}\'',
        '参数不是 JSON 对象：{problem}；请写成 \'{{"name": "value"}}\' 的形式',
    ),
    "moved": (
        "{server}: {state}; calls: {ended} ended, {again} sent again, {cut} cut off, {waiting} waiting",
        "{server}：{state}；调用：{ended} 个已结束，{again} 个重新发送，{cut} 个被中断，{waiting} 个在等待",
    ),
    "reload_unchanged": ("{server}: unchanged", "{server}：未变化"),
    "reload_added": ("{server}: added", "{server}：已添加"),
    "reload_removed": ("{server}: removed", "{server}：已移除"),
    "reload_enabled": ("{server}: enabled", "{server}：已启用"),
    "reload_disabled": ("{server}: disabled", "{server}：已禁用"),
    "reload_left_out": ("{server}: left out, for its table has a mistake:", "{server}：配置有误，未启动："),
    "reload_kept": (
        "{server}: goes on as it was, for its new table has a mistake:",
        "{server}：新配置有误，继续按原配置运行：",
    ),
    "reload_restarted": ("{server}: restarted, for {keys} changed", "{server}：{keys} 有变化，已重启"),
    "reload_changed": (
        "{server}: {keys} changed; it is stopped, and follows at its next start",
        "{server}：{keys} 有变化；它已停止，下次启动时生效",
    ),
    "reload_retuned": (
        "{server}: {keys} changed, in the same process",
        "{server}：{keys} 有变化，进程未重启",
    ),
    "reload_cut": (", calls cut off: {cut}", "，被中断的调用：{cut} 个"),
    "reload_state": (", {state}", "，{state}"),
    "reload_adjusted": ("changed at once: {keys}", "已立即生效：{keys}"),
    "reload_refused": (
        "nothing was changed: the broker goes on with the config it has",
        "未作任何更改：broker 继续使用现有配置",
    ),
    "still_waiting": (
        "waiting for {servers}, which goes on without this command; its newest lines: mcp-broker status",
        "正在等待 {servers}；即使结束本命令，启动也会继续。最新输出：mcp-broker status",
    ),
    "reloaded": ("{path}: reloaded, {count} server{count:s}", "{path}：已重新加载，共 {count} 个服务器"),
    "restart_needed": (
        "{key}: has no effect until the broker is restarted, for {why}",
        "{key}：重启 broker 之后才生效（{why}）",
    ),
    "config_refused": (
        "{path} was refused {since} ago, and the broker goes on with the config it had:",
        "{path} 在 {since} 前被拒绝，broker 继续使用原有配置：",
    ),
    "waits_for_restart": (
        "without effect until the broker is restarted: {keys}",
        "重启 broker 之后才生效：{keys}",
    ),
    "interrupted": ("interrupted", "已中断"),
    "no_output": ("its output cannot be written: {problem}", "无法写出结果：{problem}"),
    "no_broker": ("no broker answers; waiting for one", "没有 broker 响应，正在等待"),
    "config_of_others": (
        "{path} was found here, and another user may have written it; if it is right: --config {path}",
        "{path} 是在当前目录找到的，其他用户可能写过它；如确认是自己的，请用 --config {path} 指定",
    ),
    "no_config": (
        "there is no broker.toml here and no {system}; name one with --config",
        "当前目录没有 broker.toml，也没有 {system}；请用 --config 指定",
    ),
}
"""word → English, Chinese."""


def language(environ: Mapping[str, str] = os.environ) -> int:
    """0 for English, 1 for Chinese: by $MCP_BROKER_LANG, else by the locale, in the order of POSIX."""
    names = ("MCP_BROKER_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    chosen = next((value for name in names if (value := environ.get(name))), "")
    return int(chosen.lower().startswith("zh"))


class _Text(str):
    """A text that is also an argument of a command (`{server:sh}`) or a key in TOML (`{server:key}`)."""

    def __format__(self, form: str) -> str:
        written = {"sh": shell, "key": toml_key}.get(form)
        return written(self) if written else super().__format__(form)


class _Number(int):
    """A number whose noun and verb follow it: `{count} server{count:s} {count:are} ready`."""

    def __format__(self, form: str) -> str:
        one, more = {"s": ("", "s"), "are": ("is", "are")}.get(form, ("", ""))
        return (one if self == 1 else more) if more else super().__format__(form)


def say(word: str, **facts: object) -> str:
    """A text of `WORDS` in the reader's language, filled in."""
    return fill(WORDS[word], **facts)


def fill(text: tuple[str, str], **facts: object) -> str:
    """A text in the reader's language, filled in."""
    return fill_in(text[language()], **facts)


def fill_in(text: str, **facts: object) -> str:
    """A text with its facts, each in the form that the text wants it in."""
    forms: dict[type, Callable[[Any], object]] = {int: _Number, str: _Text}
    return text.format(**{name: forms.get(type(fact), _same)(fact) for name, fact in facts.items()})


def _same(fact: object) -> object:
    return fact
