"""What the command says to people, in English and Chinese."""

from __future__ import annotations

import os
from collections.abc import Mapping

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
        ", or at once by `mcp-broker start {server}`",
        "，或用 `mcp-broker start {server}` 立即重试",
    ),
    "given_up": (
        "; left at that, as its `restart` says; `mcp-broker start {server}` starts it",
        "；按其 `restart` 的设置不再重试；用 `mcp-broker start {server}` 启动",
    ),
    "was_stopped": (
        "{server}: it was stopped; `mcp-broker start {server}` starts it",
        "{server}：已被停止；用 `mcp-broker start {server}` 启动",
    ),
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
    "no_config": (
        "there is no broker.toml here and no {system}; name one with --config",
        "当前目录没有 broker.toml，也没有 {system}；请用 --config 指定",
    ),
    "import_header": ("Made by `mcp-broker import` from {files}", "由 `mcp-broker import` 根据 {files} 生成"),
    "import_program": ("{server}: {command} is {program}", "{server}：{command} 即 {program}"),
    "import_private": (
        (
            "{server}: a service may not see {program}, nor find what it calls itself; install it for all "
            "users, or start the service with this folder in its PATH and give that PATH as --path"
        ),
        (
            "{server}：系统服务可能看不到 {program}，也可能找不到它自己要调用的程序；请为所有用户安装，"
            "或让服务的 PATH 包含该目录，并用 --path 给出该 PATH"
        ),
    ),
    "import_not_found": (
        "{server}: imported as it is, but it would not start here: {problem}",
        "{server}：已原样导入，但在本机无法启动：{problem}",
    ),
    "import_cwd": (
        "{server}: runs in {folder}, for a path in its definition is relative to that",
        "{server}：运行目录设为 {folder}，因为其定义中有相对于该目录的路径",
    ),
    "import_renamed": (
        "{server}: this is {old!r}, a name that the broker cannot use; clients have to call it {server}",
        "{server}：原名 {old!r} 不能用于 broker；客户端须改用 {server}",
    ),
    "import_remote": (
        (
            "{server}: not imported: it is reached by {kind}, and the broker runs stdio servers only; "
            "leave it with the client"
        ),
        "{server}：未导入：它通过 {kind} 访问，而 broker 只运行 stdio 服务器；请保留在客户端的配置中",
    ),
    "import_invalid": ("{server}: not imported: {problem}", "{server}：未导入：{problem}"),
    "import_unfilled": (
        (
            "{server}: imported but disabled: {key} has {placeholder}, and the broker fills variables in "
            "env only; write the value there and remove enabled = false"
        ),
        (
            "{server}：已导入但被禁用：{key} 中有 {placeholder}，而 broker 只在 env 中替换变量；"
            "请写入实际值并删除 enabled = false"
        ),
    ),
    "import_env_file": (
        (
            "{server}: the variables in {file} are not imported; write them into env, or set them where "
            "the broker is started and name them in env_inherit"
        ),
        "{server}：{file} 中的变量未导入；请写入 env，或在启动 broker 处设置并列入 env_inherit",
    ),
    "import_input": (
        "{server}: {placeholder} in env {key} is now the variable {variable}",
        "{server}：env {key} 中的 {placeholder} 改为变量 {variable}",
    ),
    "import_default": (
        "{server}: the default of {variable} in env {key} is left out: the broker has none; set {variable}",
        "{server}：env {key} 中 {variable} 的默认值未导入，broker 不支持默认值；请设置 {variable}",
    ),
    "import_dollar": (
        "{server}: env {key} stays as it is; if it means a variable, write it with braces: ${{NAME}}",
        "{server}：env {key} 保持原样；如果它是变量，请写成带花括号的 ${{NAME}}",
    ),
    "import_timeout": (
        "{server}: timeout {value} is read as milliseconds: {seconds} s",
        "{server}：timeout {value} 按毫秒理解，即 {seconds} 秒",
    ),
    "import_timeout_unclear": (
        "{server}: timeout {value} is left out: is it seconds, milliseconds, no time? write it in seconds",
        "{server}：timeout {value} 未导入：无法判断是秒、毫秒还是无效时间；请以秒为单位写入",
    ),
    "import_disabled": ("{server}: disabled, as it was there", "{server}：保持禁用"),
    "import_secret_args": (
        "{server}: an argument looks like a secret; everybody here can see it in the list of processes",
        "{server}：有一个参数像是密钥；本机所有用户都能在进程列表中看到它",
    ),
    "import_left_out": (
        "{server}: left out, for the broker has no such keys: {keys}",
        "{server}：以下键 broker 没有，未导入：{keys}",
    ),
    "import_same": ("{server}: the same in {one} and {other}", "{server}：{one} 与 {other} 中的定义相同"),
    "import_clash": (
        "{server}: {one} and {other} differ in {keys}",
        "{server}：{one} 与 {other} 的 {keys} 不同",
    ),
    "import_preferred": (
        "{server}: taken from {one}, not from {other}; they differ in {keys}",
        "{server}：采用 {one}，不采用 {other}；两者的 {keys} 不同",
    ),
    "import_refused": (
        "nothing is written; choose a definition by --prefer first or --prefer last",
        "未写入任何内容；请用 --prefer first 或 --prefer last 选择一种定义",
    ),
    "import_twice": (
        "{path}: stands there twice, and the last one counts: {keys}",
        "{path}：以下键出现两次，以最后一个为准：{keys}",
    ),
    "import_exists": (
        (
            "{path} is there already; --merge adds to it, --force writes over it and keeps it as .bak, "
            "--output names another file, --dry-run only shows the result"
        ),
        (
            "{path} 已存在；--merge 添加到其中，--force 覆盖并将原文件保留为 .bak，--output 指定其他文件，"
            "--dry-run 只显示结果"
        ),
    ),
    "import_force_or_merge": (
        "--force writes over the file and --merge adds to it; give one of them",
        "--force 会覆盖文件，--merge 会添加到文件；请只用其中一个",
    ),
    "import_no_file": (
        "{path} is not a regular file; name another with --output",
        "{path} 不是普通文件；请用 --output 指定其他文件",
    ),
    "import_unreadable": (
        "{path} cannot be read: {problem}; correct its name or its permissions",
        "{path} 无法读取：{problem}；请检查文件名或权限",
    ),
    "import_not_utf8": (
        "{path} is not UTF-8: {problem}; save it as UTF-8",
        "{path} 不是 UTF-8：{problem}；请另存为 UTF-8",
    ),
    "import_not_json": (
        "{path}:{line}:{column}: not JSON: {problem}; correct this place first",
        "{path}:{line}:{column}：不是 JSON：{problem}；请先改正此处",
    ),
    "import_too_deep": (
        "{path} is nested too deeply; is it the right file?",
        "{path} 嵌套过深；请确认文件是否正确",
    ),
    "import_surrogate": (
        "{path} has half a character in it (\\ud800 to \\udfff); remove it",
        "{path} 中有不完整的字符（\\ud800 至 \\udfff）；请删除",
    ),
    "import_no_servers": (
        "{path} has no servers: none of {sections} is an object there; name a file that has one of them",
        "{path} 中没有服务器：{sections} 均不是对象；请指定含有其中之一的文件",
    ),
    "import_not_toml": (
        "{path} is not a broker.toml: {problem}; correct it first, or write another file with --output",
        "{path} 不是有效的 broker.toml：{problem}；请先改正，或用 --output 写入其他文件",
    ),
    "import_not_merged": (
        "the file cannot be added to ({problem}); write another with --output, and copy the servers by hand",
        "无法添加到该文件（{problem}）；请用 --output 写入其他文件，再手动复制服务器",
    ),
    "import_invalid_file": (
        "nothing is written, for the file would have {count} mistake{count:s}:{lines}",
        "未写入任何内容，因为文件中会有 {count} 处错误：{lines}",
    ),
    "import_unwritable": (
        "{path} cannot be written: {problem}; name another file with --output",
        "{path} 无法写入：{problem}；请用 --output 指定其他文件",
    ),
    "import_nothing": ("{path}: nothing to write", "{path}：没有需要写入的内容"),
    "import_kept": ("{path}: the old file", "{path}：原文件"),
    "import_written": (
        "{path}: written, servers: {count}; now run: mcp-broker check --config {path}",
        "{path}：已写入 {count} 个服务器；接下来请运行：mcp-broker check --config {path}",
    ),
    "import_private_file": (
        "{path}: mode 0600, for there are secrets in it; its owner has to be the user that runs the broker",
        "{path}：权限为 0600，因为其中有密钥；文件所有者必须是运行 broker 的用户",
    ),
    "import_secrets": (
        "secrets in plain text: {names}; with --secrets-as-variables they stay out of the file",
        "明文密钥：{names}；使用 --secrets-as-variables 可不写入文件",
    ),
    "import_variables": (
        "variables that have to be set where the broker is started: {names}",
        "启动 broker 处必须设置的变量：{names}",
    ),
}
"""word → English, Chinese."""


def language(environ: Mapping[str, str] = os.environ) -> int:
    """0 for English, 1 for Chinese: by $MCP_BROKER_LANG, else by the locale, in the order of POSIX."""
    names = ("MCP_BROKER_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    chosen = next((value for name in names if (value := environ.get(name))), "")
    return int(chosen.lower().startswith("zh"))


class _Number(int):
    """A number whose noun and verb follow it: `{count} server{count:s} {count:are} ready`."""

    def __format__(self, form: str) -> str:
        one, more = {"s": ("", "s"), "are": ("is", "are")}.get(form, ("", ""))
        return (one if self == 1 else more) if more else super().__format__(form)


def say(word: str, **facts: object) -> str:
    """A text in the reader's language, filled in."""
    filled = {name: _Number(fact) if type(fact) is int else fact for name, fact in facts.items()}
    return WORDS[word][language()].format(**filled)
