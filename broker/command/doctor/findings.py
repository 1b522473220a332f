"""The texts of the findings, in English and Chinese: `NAME` is the problem, `NAME.mend` what to do."""

from __future__ import annotations

FINDINGS: dict[str, tuple[str, str]] = {
    "grows": (
        "{server}: its processes grow page by page, from {first} to {last}",
        "{server}：进程数逐页增长，从 {first} 增至 {last}",
    ),
    "grows.mend": (
        (
            "The broker runs one tree of it, so the likely cause is the server itself: it starts a process "
            "at each use and does not end it. Report this to its authors; until it is fixed, "
            "`mcp-broker restart {server:sh}` ends the processes."
        ),
        (
            "broker 只运行它的一棵进程树，因此最可能的原因是服务器自身：每次使用都启动一个进程而不结束。"
            "请报告给其作者；修复之前可用 `mcp-broker restart {server:sh}` 清理。"
        ),
    ),
    "second": (
        "{server}: the broker runs a second tree of it, pid {pids}",
        "{server}：broker 运行着它的第二棵进程树，进程号 {pids}",
    ),
    "second.mend": (
        "This must never happen. Restart the broker, and report it with the broker's log.",
        "这绝不应发生。请重启 broker，并附上 broker 的日志报告此问题。",
    ),
    "beside_grows": (
        (
            "{server}: processes outside of the broker grew from {first} to {last} during the test "
            "(pid {pids}), started by {by}"
        ),
        "{server}：broker 之外的同类进程在测试期间从 {first} 增至 {last} 个（进程号 {pids}），由 {by} 启动",
    ),
    "beside_grows.mend": (
        (
            "Likely cause: the backend still imports its own MCPClient, and each page starts its own "
            "servers. Import MCPClient from client_shim instead, and restart the backend."
        ),
        (
            "最可能的原因：后端仍在导入自己的 MCPClient，每个页面都自行启动服务器。请改为从 client_shim 导入 "
            "MCPClient，并重启后端。"
        ),
    ),
    "left": (
        "{count} connections that the broker still holds {seconds} s after their pages were left",
        "离开页面 {seconds} 秒后，broker 仍持有其中 {count} 个连接",
    ),
    "left.mend": (
        "This must not happen. Report it with the output of `mcp-broker status --json`.",
        "这不应发生。请附上 `mcp-broker status --json` 的输出报告此问题。",
    ),
    "slower_all": (
        "the answers became slower, from {first_s} s to {last_s} s, at all servers alike",
        "回答变慢，从 {first_s} 秒到 {last_s} 秒，且不能归因于某一个服务器",
    ),
    "slower_all.mend": (
        (
            "Likely cause: another program keeps this machine busy. Look with `top`, and repeat with "
            "`--cycles 30`."
        ),
        "最可能的原因：本机正忙于其他任务。请用 `top` 查看，并以 `--cycles 30` 重试。",
    ),
    "none_ready": ("none of the {count} servers is ready", "{count} 个服务器无一就绪"),
    "none_ready.mend": (
        "Solve the problems below, and look with `mcp-broker status`.",
        "请处理下面列出的问题，并用 `mcp-broker status` 查看。",
    ),
    "beside": (
        "{server}: its command also runs outside of the broker ({last}×, pid {pids}), started by {by}",
        "{server}：broker 之外另有 {last} 个相同命令行的进程（进程号 {pids}），由 {by} 启动",
    ),
    "beside.mend": (
        (
            "If that is your backend, it still imports its own MCPClient: import MCPClient from client_shim "
            "instead, and restart it. If it is an MCP host such as an editor, `mcp-broker attach` puts it "
            "behind the broker."
        ),
        (
            "如果那是你的后端，说明它仍在导入自己的 MCPClient：请改为从 client_shim 导入 MCPClient 并重启。如"
            "果是编辑器之类的 MCP 宿主，可用 `mcp-broker attach` 让它改用 broker。"
        ),
    ),
    "orphan": (
        "{server}: pid {pids} is left over from a broker that has exited",
        "{server}：进程 {pids} 是已退出的 broker 遗留的",
    ),
    "orphan.mend": (
        "End it with `kill PID`, and run the doctor again.",
        "请用 `kill 进程号` 结束它，再次运行 doctor。",
    ),
    "broker_restarted": ("the broker was restarted during the test", "测试期间 broker 被重启过"),
    "broker_restarted.mend": (
        "Look for the cause in its log, and run the doctor again.",
        "请在其日志中查找原因，再次运行 doctor。",
    ),
    "crashes": (
        "{server}: it exited while pages used it, {times}×: {error}",
        "{server}：页面使用期间它退出了 {times} 次：{error}",
    ),
    "crashes.mend": (
        (
            "The fault is the server's: look at `mcp-broker logs {server:sh}`. The broker restarts it each "
            "time, but the call in progress is lost."
        ),
        (
            "问题出在该服务器：请查看 `mcp-broker logs {server:sh}`。broker 每次都会重新启动它，但当时正在执"
            "行的调用会丢失。"
        ),
    ),
    "not_ready": ("{server}: it is not ready ({state}): {error}", "{server}：未就绪（{state}）：{error}"),
    "not_ready.mend": (
        (
            "Solve that, then run `mcp-broker restart {server:sh}`; its output is in "
            "`mcp-broker logs {server:sh}`. Install a missing command where the broker runs, not where the "
            "backend runs."
        ),
        (
            "请先解决该问题，再运行 `mcp-broker restart {server:sh}`；其输出见 `mcp-broker logs "
            "{server:sh}`。缺少的命令要安装在 broker 所在的环境，而不是后端所在的环境。"
        ),
    ),
    "misconfigured": (
        "{server}: not started, its table has a mistake: {error}",
        "{server}：配置有误，未启动：{error}",
    ),
    "misconfigured.mend": (
        "Correct broker.toml, then `mcp-broker reload`; `mcp-broker check` names every mistake.",
        "请更正 broker.toml，然后执行 `mcp-broker reload`；`mcp-broker check` 会列出每处错误。",
    ),
    "stopped": ("{server}: it is stopped; last error: {error}", "{server}：已停止；最近的错误：{error}"),
    "stopped.mend": (
        "Start it with `mcp-broker start {server:sh}`.",
        "请用 `mcp-broker start {server:sh}` 启动它。",
    ),
    "starting": ("{server}: it has not finished starting ({state})", "{server}：尚未启动完成（{state}）"),
    "starting.mend": (
        (
            "The first start with npx or uvx downloads packages: wait, and run the doctor again. If it never "
            "gets ready, look at `mcp-broker logs {server:sh}`."
        ),
        (
            "npx 或 uvx 首次启动需要下载：请稍候再运行 doctor。如果一直不能就绪，请查看"
            " `mcp-broker logs {server:sh}`。"
        ),
    ),
    "list_fails": (
        "{server}: its tools could not be listed at {times} of {of} pages: {error}",
        "{server}：{of} 个页面中有 {times} 个未能列出其工具：{error}",
    ),
    "list_fails.mend": ("Look at `mcp-broker logs {server:sh}`.", "请查看 `mcp-broker logs {server:sh}`。"),
    "call_fails": (
        "{server}: calling {tool} failed at {times} of {of} pages: {error}",
        "{server}：{of} 个页面中有 {times} 个调用 {tool} 失败：{error}",
    ),
    "call_fails.mend": (
        (
            "Try it by hand with `mcp-broker call {server:sh} {tool:sh}`, and look at "
            "`mcp-broker logs {server:sh}`."
        ),
        "请用 `mcp-broker call {server:sh} {tool:sh}` 手动尝试，并查看 `mcp-broker logs {server:sh}`。",
    ),
    "tool_fails": (
        "{server}: {tool} returned an error at {times} of {of} pages: {error}",
        "{server}：{of} 个页面中有 {times} 个调用 {tool} 返回错误：{error}",
    ),
    "tool_fails.mend": (
        "Correct tool and arguments in [servers.{server:key}.doctor], or provide what the tool needs.",
        "请更正 [servers.{server:key}.doctor] 中的工具与参数，或满足该工具的运行条件。",
    ),
    "slower": (
        "{server}: its answers became slower, from {first_s} s to {last_s} s",
        "{server}：回答变慢，从 {first_s} 秒到 {last_s} 秒",
    ),
    "slower.mend": (
        (
            "Other servers did not, so the cause is this server or a service that it uses. Repeat with "
            "`--cycles 30`; if it persists, `mcp-broker restart {server:sh}` and report it to its authors."
        ),
        (
            "其他服务器没有变慢，因此问题在它自身或它所依赖的服务。请以 `--cycles 30` 重试；如仍如此，请运行"
            " `mcp-broker restart {server:sh}`，并报告给其作者。"
        ),
    ),
    # --- merged findings, with the detail of each server
    "grows.many": (
        "the processes of {count} servers grow page by page: {servers}",
        "{count} 个服务器的进程数逐页增长：{servers}",
    ),
    "second.many": (
        "the broker runs a second tree of {count} servers: {servers}",
        "broker 运行着 {count} 个服务器的第二棵进程树：{servers}",
    ),
    "beside_grows.many": (
        "processes of {count} servers outside of the broker grew in number during the test: {servers}",
        "测试期间，{count} 个服务器在 broker 之外的同类进程增多：{servers}",
    ),
    "beside.many": (
        "the commands of {count} servers also run outside of the broker: {servers}",
        "broker 之外另有 {count} 个服务器的相同命令行在运行：{servers}",
    ),
    "orphan.many": (
        "processes of {count} servers are left over from a broker that has exited: {servers}",
        "{count} 个服务器有已退出的 broker 遗留的进程：{servers}",
    ),
    "crashes.many": (
        "{count} servers exited while pages used them: {servers}",
        "{count} 个服务器在页面使用期间退出：{servers}",
    ),
    "not_ready.many": (
        "{count} servers are not ready: {servers}; `mcp-broker status` says why",
        "{count} 个服务器未就绪：{servers}；原因见 `mcp-broker status`",
    ),
    "misconfigured.many": (
        "{count} servers not started, their tables have mistakes: {servers}",
        "{count} 个服务器配置有误，未启动：{servers}",
    ),
    "stopped.many": ("{count} servers are stopped: {servers}", "{count} 个服务器已停止：{servers}"),
    "starting.many": (
        "{count} servers have not finished starting: {servers}",
        "{count} 个服务器尚未启动完成：{servers}",
    ),
    "list_fails.many": (
        "the tools of {count} servers could not be listed (failed pages/all pages): {servers}",
        "{count} 个服务器的工具未能列出（失败页面数/总页面数）：{servers}",
    ),
    "call_fails.many": (
        "calls of {count} servers failed (failed pages/all pages): {servers}",
        "对 {count} 个服务器的调用失败（失败页面数/总页面数）：{servers}",
    ),
    "tool_fails.many": (
        "tools of {count} servers returned an error, at so many pages: {servers}",
        "{count} 个服务器的工具返回错误，出错的页面数：{servers}",
    ),
    "slower.many": (
        "the answers of {count} servers became slower: {servers}",
        "{count} 个服务器的回答变慢：{servers}",
    ),
    "wrapped.many": (
        (
            "The trees of {count} servers have several processes each, the same after each page: {servers}. "
            "These are launchers such as npx or uvx, and the servers below them: one tree each, which is "
            "correct."
        ),
        (
            "{count} 个服务器的进程树各有多个进程，且每个页面之后都不变：{servers}。它们由 npx、uvx 之类的"
            "启动器及其启动的服务器组成，各为一棵进程树，属于正常。"
        ),
    ),
    "rose.many": (
        "The trees of {count} servers rose at their first use, and stayed there: {servers}.",
        "{count} 个服务器的进程树增大后保持不变：{servers}。这是首次使用时启动的工作进程。",
    ),
    "tool_complains.many": (
        (
            "The tools that the doctor itself chose returned an error at {count} servers: {servers}. "
            "Name better ones in [servers.NAME.doctor]."
        ),
        (
            "doctor 自行选择的工具在 {count} 个服务器上返回错误：{servers}。可在 [servers.NAME.doctor] 中指定"
            "更合适的工具。"
        ),
    ),
    # --- remarks
    "wrapped": (
        (
            "{server}: its tree has {processes} processes, the same after each page: a launcher such as npx "
            "or uvx, and the server below it. That is one tree, which is correct."
        ),
        (
            "{server}：其进程树有 {processes} 个进程，且每个页面之后都不变：由 npx、uvx 之类的启动器及其启动"
            "的服务器组成，是一棵进程树，属于正常。"
        ),
    ),
    "rose": (
        (
            "{server}: its tree rose from {first} to {last} processes and stayed there: workers that it "
            "starts at its first use."
        ),
        "{server}：它的进程树从 {first} 个进程增至 {last} 个后保持不变：是首次使用时启动的工作进程。",
    ),
    "no_tool": (
        (
            "{servers}: listed but not called, because no tool is both annotated `readOnlyHint` and free of "
            "required arguments. Name a harmless call in [servers.NAME.doctor] of the broker's config."
        ),
        (
            "{servers}：只列出了工具而未调用，因为没有标注 `readOnlyHint` 且无需参数的工具。可在 broker 配置"
            "的 [servers.NAME.doctor] 中指定一个无害的调用。"
        ),
    ),
    "tool_complains": (
        (
            "{server}: {tool}, which the doctor itself chose, returned an error: {error}. Name a better one "
            "in [servers.{server:key}.doctor]."
        ),
        (
            "{server}：doctor 自行选择的 {tool} 返回了错误：{error}。可在 [servers.{server:key}.doctor] 中指"
            "定更合适的工具。"
        ),
    ),
    "runtime": (
        (
            "{servers}: started with {runtimes}, which only the broker needs. Some backends check for it and "
            "drop these servers if it is missing in their own container. If the tools are here but not on "
            "the page, install it there, or remove that check."
        ),
        (
            "{servers}：由 {runtimes} 启动，只有 broker 需要它。有的后端会检查它，若自己的容器中没有，就会"
            "丢弃这些服务器：如果这里有工具而页面上没有，请在后端容器中安装它，或去掉该检查。"
        ),
    ),
    "elsewhere": (
        (
            "The broker runs on another machine or in another container. Its CPU time and servers outside of "
            "the broker are not visible from here: run the doctor where the broker runs, and count processes "
            "in the backend's container too."
        ),
        (
            "broker 运行在另一台机器或另一个容器中，此处看不到 CPU 占用，也看不到 broker 之外的服务器进程："
            "请在 broker 所在的环境运行 doctor，并在后端的容器中也统计一次进程。"
        ),
    ),
    "few_pages": (
        "With fewer than {least} pages the doctor cannot tell whether answers become slower.",
        "页面少于 {least} 个时，不判断回答是否变慢。",
    ),
    "memory": (
        (
            "Memory rose from {first} to {last} MiB, as it does when servers are used for the first time. "
            "Run the doctor once more: it should stay the same."
        ),
        "内存从 {first} MiB 增至 {last} MiB。服务器首次使用时会这样；请再运行一次 doctor，应当不再增长。",
    ),
}
"""word → English, Chinese. A remark has no mend; a merged finding has the mend of its kind."""
