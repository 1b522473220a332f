"""The texts of the commands, in English and Chinese.

The texts of the doctor, `import` and `attach` are in TOML files. These are in Python, because the thin
install prints some of them without a TOML parser.
"""

from __future__ import annotations

from broker.command.texts.filling import fill

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
    "idle": ("idle", "空闲"),
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
    "gateway_missing": (
        "this Python ({prefix}) has no {missing}; install them: pip install 'mcp-shared-broker[gateway]'",
        "此 Python（{prefix}）缺少 {missing}；请安装：pip install 'mcp-shared-broker[gateway]'",
    ),
    "gateway_token": (
        """\
The token of this gateway is in {path}. For Claude Code, for example:

  claude mcp add --transport http SERVER http://{address}/mcp/SERVER \\
      --header "Authorization: Bearer {token}\"""",
        """\
网关的令牌保存在 {path}。以 Claude Code 为例：

  claude mcp add --transport http SERVER http://{address}/mcp/SERVER \\
      --header "Authorization: Bearer {token}\"""",
    ),
    "gateway_config_bad": (
        "the gateway's settings have {count} mistake{count:s}:",
        "网关的设置有 {count} 处错误：",
    ),
    "columns_left_out": (
        "not shown at this width: {columns}; {width} columns show all, and so does --json",
        "因宽度不足未显示：{columns}；{width} 列可显示全部，--json 也包含全部",
    ),
    "client": (
        (
            "client {name}{where}: {connections} connection{connections:s}, {channels} channel{channels:s}, "
            "{calls} request{calls:s}, {running} running"
        ),
        "客户端 {name}{where}：连接 {connections}，通道 {channels}，请求 {calls}，进行中 {running}",
    ),
    "client_pids": (" (pid {pids})", "（进程号 {pids}）"),
    "more_clients": (
        "and {count} more client program{count:s}; `mcp-broker status --json` has all",
        "另有 {count} 个客户端程序，全部见 `mcp-broker status --json`",
    ),
    "all_ready": ("All {count} servers are ready.", "全部 {count} 个服务器均已就绪。"),
    "some_ready": (
        "{ready} of {count} server{count:s} {count:are} ready.",
        "{count} 个服务器中有 {ready} 个就绪。",
    ),
    "some_idle": (
        "{ready} of {count} server{count:s} {count:are} ready; idle until a call: {idle}.",
        "{count} 个服务器中有 {ready} 个就绪，{idle} 个空闲，有调用时启动。",
    ),
    "last_error": ("{server}: {error}", "{server}：{error}"),
    "tried_again": ("; next try in {after}", "；{after} 后重试"),
    "tried_at_once": (
        ", or now with `mcp-broker start {server:sh}`",
        "，或用 `mcp-broker start {server:sh}` 立即重试",
    ),
    "given_up": (
        "; not retried, because of its `restart` setting; `mcp-broker start {server:sh}` starts it",
        "；按 `restart` 设置不再重试；可用 `mcp-broker start {server:sh}` 启动",
    ),
    "is_starting": (
        "{server}: starting for {since}, {left} left (timeout_start_sec)",
        "{server}：启动已用 {since}，最多再等 {left}（timeout_start_sec）",
    ),
    "installing": (
        "{server}: starting for {since}; `{runner}` may be downloading; limit {most}",
        "{server}：启动已用 {since}；`{runner}` 可能仍在下载，最多等待 {most}",
    ),
    "left_out": (
        "{server}: not started, its table has a mistake; correct it, then run: mcp-broker reload",
        "{server}：配置有误，未启动；更正后请运行：mcp-broker reload",
    ),
    "kept": (
        "{server}: runs with its earlier table, because the new one has a mistake",
        "{server}：新配置有误，继续按原配置运行",
    ),
    "was_stopped": (
        "{server}: stopped; `mcp-broker start {server:sh}` starts it",
        "{server}：已停止；可用 `mcp-broker start {server:sh}` 启动",
    ),
    "leased": (
        "{server}: leased to {client} (pid {pid}) for {since}, for another {left} at least",
        "{server}：由 {client}（进程号 {pid}）独占 {since}，最早 {left} 后到期",
    ),
    "leased_waiting": (
        "; calls waiting: {waiting}; `mcp-broker release {server:sh}` ends the lease",
        "；等待中的调用 {waiting} 个；可用 `mcp-broker release {server:sh}` 收回",
    ),
    "released": (
        "{server}: taken from {client} (pid {pid}), which had it for {since}; calls waiting: {waiting}",
        "{server}：已从 {client}（进程号 {pid}）收回，此前它独占了 {since}；等待中的调用 {waiting} 个",
    ),
    "released_later": (
        "{server}: calls of that client that still run: {count}; others are served after them",
        "{server}：该客户端还有 {count} 个调用在执行，结束后才轮到其他客户端",
    ),
    "not_leased": ("{server}: no client has it for itself", "{server}：目前没有客户端独占"),
    "asked": ("{server}: questions: {counts}", "{server}：提问：{counts}"),
    "question_asked": ("asked {count}", "送达客户端 {count}"),
    "question_answered": ("answered {count}", "已回答 {count}"),
    "question_withdrawn": ("withdrawn {count}", "已撤回 {count}"),
    "question_expired": ("expired {count}", "超时 {count}"),
    "question_unusable": ("unusable {count}", "回答无效 {count}"),
    "question_refused": ("refused.{why} {count}", "已拒绝（{why}）{count}"),
    "refused_since_proved-wrong": (
        "{server}: asked without a call, so its questions are refused until `mcp-broker restart {server:sh}`",
        "{server}：在没有调用时提过问，因此提问一律被拒绝，直到执行 `mcp-broker restart {server:sh}`",
    ),
    "refused_since_cancelled-earlier": (
        "{server}: a cancelled call has no answer, so its questions are refused: `stops_on_cancel` may help",
        "{server}：已取消的调用未获响应，因此提问一律被拒绝：可考虑设置 `stops_on_cancel`",
    ),
    "tolerates": ("{server}: {what}", "{server}：{what}"),
    "ran_already": ("{server}: already running", "{server}：已在运行"),
    "what_next": (
        "details: mcp-broker logs SERVER; after the fix: mcp-broker start SERVER",
        "详情：mcp-broker logs SERVER；修复后：mcp-broker start SERVER",
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
    "no_server": (
        "there is no server {server}; the broker has {known}",
        "没有服务器 {server}；broker 中有 {known}",
    ),
    "nothing_written": ("{server} has written nothing so far", "{server} 尚未输出任何内容"),
    "lines_missing": (
        "{server}: {count} line{count:s} {count:are} missing here; it wrote more lines than the broker keeps",
        "{server}：此处缺少 {count} 行：短时间内的输出超过 broker 保留的行数",
    ),
    "config_bad": ("{path}: {count} mistake{count:s}", "{path}：{count} 处错误"),
    "runs": ("{server}: {program}", "{server}：{program}"),
    "off": ("{server}: disabled", "{server}：已禁用"),
    "check_as": (
        "checked as the service {unit}: user {user}, PATH {path}",
        "按服务 {unit} 的环境检查：用户 {user}，PATH {path}",
    ),
    "check_no_unit": (
        "{unit} is not installed; `sudo make install` in the checkout installs it",
        "未安装 {unit}；在源码目录中执行 `sudo make install` 可安装",
    ),
    "check_closed": (
        "{server}: {program} cannot run: user {user} has no access to {path}; change its mode, or move it",
        "{server}：{program} 无法运行：用户 {user} 无权访问 {path}；请修改其权限，或移到别处",
    ),
    "check_elsewhere": ("found at: {places}", "已找到：{places}"),
    "check_for_all": (
        "but user {user} has no access: install {command} for all users (in /usr/local/bin)",
        "但用户 {user} 无权访问：请为所有用户安装 {command}（放在 /usr/local/bin）",
    ),
    "check_path": (
        "write the full path as command, or `systemctl edit mcp-broker`: [Service] Environment=PATH={path}",
        "请把完整路径写为 command，或在 `systemctl edit mcp-broker` 中写入 [Service] Environment=PATH={path}",
    ),
    "check_variables": (
        "write into {file}, each on a line of its own: {lines}; then: sudo systemctl restart mcp-broker",
        "请在 {file} 中各写一行：{lines}；然后执行 sudo systemctl restart mcp-broker",
    ),
    "check_unread": (
        "{path}: you may not read it, so its variables count as missing; run this as root",
        "{path}：您无权读取，其中的变量按缺失处理；请以 root 身份运行",
    ),
    "check_comment": (
        "{path}, line {line}: systemd before 254 adds the next line to the comment; remove the backslash",
        "{path} 第 {line} 行：systemd 254 之前的版本会把下一行当作注释的一部分；请删除行尾的反斜杠",
    ),
    "check_config_closed": (
        "{path}: user {user} of the service has no access to {closed}; chgrp {group}, and chmod 0640",
        "{path}：服务无法读取，用户 {user} 无权访问 {closed}；请执行 chgrp {group} 和 chmod 0640",
    ),
    "check_clients_read": (
        "{path}: members of group {user}, which are the clients, can read it; chgrp {group}",
        "{path}：{user} 组的成员（即各客户端）可以读取它；请执行 chgrp {group}",
    ),
    "check_doctor_hidden": (
        "{server}: its table tools hides {tool}, so that doctor cannot call it; name another doctor.tool",
        "{server}：tools 表隐藏了 {tool}，doctor 无法调用它；请在 doctor.tool 中指定其他工具",
    ),
    "socket_closed": (
        (
            "{path} has mode {mode}, so nobody but the broker's user can connect, and {variable} is "
            "{wanted}; remove socket_mode from [broker], then reload"
        ),
        (
            "{path} 的权限为 {mode}，只有 broker 的用户能连接，而 {variable} 为 {wanted}；"
            "请从 [broker] 删除 socket_mode，然后重新加载"
        ),
    ),
    "check_socket_closed": (
        (
            "broker.socket_mode: with {mode} nobody but the broker's user can connect, and {variable} is "
            "{wanted}; remove the key"
        ),
        "broker.socket_mode：权限为 {mode} 时只有 broker 的用户能连接，而 {variable} 为 {wanted}；请删除此键",
    ),
    "check_secrets": (
        "{path}: every user can read it, and these look like secrets: {names}; chmod o-r, or write ${{NAME}}",
        "{path}：所有用户可读，而以下各项疑似密钥：{names}；请执行 chmod o-r，或改写为 ${{NAME}}",
    ),
    "tools_hidden": (
        "{server}: {count} hidden by [servers.{server}.tools] in broker.toml",
        "{server}：broker.toml 的 [servers.{server}.tools] 隐藏了 {count} 个",
    ),
    "no_tools": ("{server}: no tools", "{server}：没有工具"),
    "not_json": (
        'the arguments are not a JSON object: {problem}; write them as \'{{"name": "value"}}\'',
        '参数不是 JSON 对象：{problem}；请写成 \'{{"name": "value"}}\' 的形式',
    ),
    "controlled": (
        "{server}: {state}; calls: {ended} ended, {again} sent again, {cut} cut off, {waiting} waiting",
        "{server}：{state}；调用：已结束 {ended} 个，重试 {again} 个，中断 {cut} 个，等待中 {waiting} 个",
    ),
    "reload_unchanged": ("{server}: unchanged", "{server}：未变化"),
    "reload_added": ("{server}: added", "{server}：已添加"),
    "reload_removed": ("{server}: removed", "{server}：已移除"),
    "reload_enabled": ("{server}: enabled", "{server}：已启用"),
    "reload_disabled": ("{server}: disabled", "{server}：已禁用"),
    "reload_left_out": ("{server}: not started, its table has a mistake:", "{server}：配置有误，未启动："),
    "reload_kept": (
        "{server}: runs with its earlier table, because the new one has a mistake:",
        "{server}：新配置有误，继续按原配置运行：",
    ),
    "reload_restarted": ("{server}: restarted, because {keys} changed", "{server}：{keys} 有变化，已重启"),
    "reload_changed": (
        "{server}: {keys} changed; it is stopped, the change applies at its next start",
        "{server}：{keys} 有变化；服务器已停止，下次启动时生效",
    ),
    "reload_retuned": (
        "{server}: {keys} changed, applied without a restart",
        "{server}：{keys} 有变化，已生效，进程未重启",
    ),
    "reload_cut": (", calls cut off: {cut}", "，被中断的调用：{cut} 个"),
    "reload_state": (", {state}", "，{state}"),
    "reload_adjusted": ("applied now: {keys}", "已立即生效：{keys}"),
    "reload_refused": (
        "nothing changed: the broker keeps its current config",
        "未作任何更改：broker 继续使用现有配置",
    ),
    "still_waiting": (
        "waiting for {servers}; the start continues without this command; latest output: mcp-broker status",
        "正在等待 {servers}；结束本命令不影响启动。最新输出：mcp-broker status",
    ),
    "reloaded": ("{path}: reloaded, {count} server{count:s}", "{path}：已重新加载，共 {count} 个服务器"),
    "restart_needed": (
        "{key}: takes effect after a restart of the broker, because {why}",
        "{key}：重启 broker 之后才生效（{why}）",
    ),
    "config_refused": (
        "{path} was refused {since} ago; the broker keeps its earlier config:",
        "{path} 在 {since} 前被拒绝，broker 继续使用原有配置：",
    ),
    "waits_for_restart": (
        "takes effect after a restart of the broker: {keys}",
        "重启 broker 之后才生效：{keys}",
    ),
    "usage": ("Usage:", "用法："),
    "see_help": ("Try '{command} --help' for help.", "帮助：{command} --help"),
    "usage_error": ("Error: {problem}", "错误：{problem}"),
    "interrupted": ("interrupted", "已中断"),
    "no_output": ("cannot write the output: {errno}", "无法输出结果：{errno}"),
    "no_broker": ("no broker answers; waiting for one", "没有 broker 响应，正在等待"),
    "config_of_others": (
        "{path} is in this folder, but another user can write it; if it is yours: --config {path}",
        "当前目录中的 {path} 可被其他用户修改；如确认可用，请以 --config {path} 指定",
    ),
    "no_config": (
        "there is no broker.toml here and no {system}; name one with --config",
        "当前目录没有 broker.toml，也没有 {system}；请用 --config 指定",
    ),
}
"""word → English, Chinese."""


def say(word: str, **facts: object) -> str:
    """Return a text of `WORDS` in the reader's language, filled in."""
    return fill(WORDS[word], **facts)
