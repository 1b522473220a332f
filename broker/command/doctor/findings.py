"""What is found, in English and Chinese: each under its name in the verdict, its mend under `NAME.mend`."""

from __future__ import annotations

FINDINGS: dict[str, tuple[str, str]] = {
    "grows": (
        "{server}: its processes grow page by page, from {first} to {last}",
        "{server}：进程数逐页增长，从 {first} 增至 {last}",
    ),
    "grows.mend": (
        (
            "The broker runs one tree of it; so the likely cause is the server itself, which starts a "
            "process at each use and does not end it. Report it to its authors; `mcp-broker restart "
            "{server:sh}` clears up until then."
        ),
        (
            "broker 只运行它的一棵进程树，因此最可能是服务器自身每次使用都启动一个进程而不结束。请报告给其作"
            "者；在此之前可用 `mcp-broker restart {server:sh}` 清理。"
        ),
    ),
    "second": (
        "{server}: the broker runs a second tree of it, pid {pids}",
        "{server}：broker 运行着它的第二棵进程树，进程号 {pids}",
    ),
    "second.mend": (
        "That must never be. Restart the broker, and report it with the broker's log.",
        "这绝不应发生。请重启 broker，并附上 broker 的日志报告此问题。",
    ),
    "beside_grows": (
        (
            "{server}: processes beside the broker's grew from {first} to {last} meanwhile (pid {pids}), "
            "started by {by}"
        ),
        "{server}：broker 之外的同类进程在测试期间从 {first} 增至 {last} 个（进程号 {pids}），由 {by} 启动",
    ),
    "beside_grows.mend": (
        (
            "Likely cause: the backend still imports its own MCPClient, and each page starts servers of its "
            "own. Let it import MCPClient from client_shim, and restart it."
        ),
        (
            "最可能的原因：后端仍在导入自己的 MCPClient，每个页面都自行启动服务器。请改为从 client_shim 导入 "
            "MCPClient，并重启后端。"
        ),
    ),
    "left": (
        "connections of pages that the broker still holds {seconds} s after they were left: {count}",
        "页面离开 {seconds} 秒后，broker 仍持有其中 {count} 个连接",
    ),
    "left.mend": (
        "That must not be. Report it with the output of `mcp-broker status --json`.",
        "这不应发生。请附上 `mcp-broker status --json` 的输出报告此问题。",
    ),
    "slower_all": (
        "the answers became slower, from {first_s} s to {last_s} s, and no single server is to blame",
        "回答变慢，从 {first_s} 秒到 {last_s} 秒，且不能归因于某一个服务器",
    ),
    "slower_all.mend": (
        (
            "Likely cause: something else keeps this machine busy. Look with `top`, and repeat with "
            "`--cycles 30`."
        ),
        "最可能的原因：本机正忙于其他任务。请用 `top` 查看，并以 `--cycles 30` 重试。",
    ),
    "none_ready": ("none of the {count} servers is ready", "{count} 个服务器无一就绪"),
    "none_ready.mend": (
        "Mend what is named below, and look with `mcp-broker status`.",
        "请处理下面列出的问题，并用 `mcp-broker status` 查看。",
    ),
    "beside": (
        ("{server}: its command line also runs beside the broker ({last}×, pid {pids}), started by {by}"),
        "{server}：broker 之外另有 {last} 个相同命令行的进程（进程号 {pids}），由 {by} 启动",
    ),
    "beside.mend": (
        (
            "If that is your backend, it still imports its own MCPClient: let it import MCPClient from "
            "client_shim, and restart it. If it is another program that is to have servers of its own, all "
            "is well."
        ),
        (
            "如果那是您的后端，说明它仍在导入自己的 MCPClient：请改为从 client_shim 导入 MCPClient 并重启。如"
            "果是另一个本就自带服务器的程序，则没有问题。"
        ),
    ),
    "orphan": (
        "{server}: pid {pids} is left over from a broker that is gone",
        "{server}：进程 {pids} 是已不存在的 broker 遗留的",
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
        "{server}: it ended while pages used it, {times}×: {error}",
        "{server}：页面使用期间它退出了 {times} 次：{error}",
    ),
    "crashes.mend": (
        (
            "The fault is the server's: look at `mcp-broker logs {server:sh}`. The broker starts it again "
            "each time, and the call that was under way is lost."
        ),
        (
            "问题出在该服务器：请查看 `mcp-broker logs {server:sh}`。broker 每次都会重新启动它，但当时正在执"
            "行的调用会丢失。"
        ),
    ),
    "not_ready": ("{server}: it is not ready ({state}): {error}", "{server}：未就绪（{state}）：{error}"),
    "not_ready.mend": (
        (
            "Mend that, then `mcp-broker restart {server:sh}`; what it wrote is in "
            "`mcp-broker logs {server:sh}`. A command that is missing has to be installed where the broker "
            "runs, not where the backend does."
        ),
        (
            "请先解决该问题，再运行 `mcp-broker restart {server:sh}`；它的输出见 `mcp-broker logs "
            "{server:sh}`。缺少的命令须安装在 broker 运行之处，而不是后端运行之处。"
        ),
    ),
    "misconfigured": (
        "{server}: it was left out, for its table has a mistake: {error}",
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
            "A first start with npx or uvx downloads: wait, and run the doctor again. If it never gets "
            "ready, look at `mcp-broker logs {server:sh}`."
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
        "{server}: {tool} answered with an error at {times} of {of} pages: {error}",
        "{server}：{of} 个页面中有 {times} 个得到 {tool} 的错误回答：{error}",
    ),
    "tool_fails.mend": (
        "Correct tool and arguments in [servers.{server:key}.doctor], or mend what the tool needs.",
        "请更正 [servers.{server:key}.doctor] 中的工具与参数，或解决该工具所依赖的问题。",
    ),
    "slower": (
        "{server}: its answers became slower, from {first_s} s to {last_s} s",
        "{server}：回答变慢，从 {first_s} 秒到 {last_s} 秒",
    ),
    "slower.mend": (
        (
            "The others did not, so it is the server or what it asks. Repeat with `--cycles 30`; if it goes "
            "on, `mcp-broker restart {server:sh}` and report it to its authors."
        ),
        (
            "其他服务器没有变慢，因此问题在它自身或它所依赖的服务。请以 `--cycles 30` 重试；如仍如此，请运行"
            " `mcp-broker restart {server:sh}`，并报告给其作者。"
        ),
    ),
    # --- of many servers, each named with its details
    "grows.many": (
        "the processes of {count} servers grow page by page: {servers}",
        "{count} 个服务器的进程数逐页增长：{servers}",
    ),
    "second.many": (
        "the broker runs a second tree of {count} servers: {servers}",
        "broker 运行着 {count} 个服务器的第二棵进程树：{servers}",
    ),
    "beside_grows.many": (
        "processes of {count} servers beside the broker's grew in number meanwhile: {servers}",
        "测试期间，{count} 个服务器在 broker 之外的同类进程增多：{servers}",
    ),
    "beside.many": (
        "the command lines of {count} servers also run beside the broker: {servers}",
        "broker 之外另有 {count} 个服务器的相同命令行在运行：{servers}",
    ),
    "orphan.many": (
        "processes of {count} servers are left over from a broker that is gone: {servers}",
        "{count} 个服务器有已不存在的 broker 遗留的进程：{servers}",
    ),
    "crashes.many": (
        "{count} servers ended while pages used them: {servers}",
        "{count} 个服务器在页面使用期间退出：{servers}",
    ),
    "not_ready.many": (
        "{count} servers are not ready: {servers}; `mcp-broker status` says why",
        "{count} 个服务器未就绪：{servers}；原因见 `mcp-broker status`",
    ),
    "misconfigured.many": (
        "{count} servers were left out, for their tables have mistakes: {servers}",
        "{count} 个服务器配置有误，未启动：{servers}",
    ),
    "stopped.many": ("{count} servers are stopped: {servers}", "{count} 个服务器已停止：{servers}"),
    "starting.many": (
        "{count} servers have not finished starting: {servers}",
        "{count} 个服务器尚未启动完成：{servers}",
    ),
    "list_fails.many": (
        "the tools of {count} servers could not be listed, at so many pages: {servers}",
        "{count} 个服务器的工具未能列出，失败的页面数：{servers}",
    ),
    "call_fails.many": (
        "calls of {count} servers failed, at so many pages: {servers}",
        "对 {count} 个服务器的调用失败，失败的页面数：{servers}",
    ),
    "tool_fails.many": (
        "tools of {count} servers answered with an error, at so many pages: {servers}",
        "{count} 个服务器的工具返回错误，出错的页面数：{servers}",
    ),
    "slower.many": (
        "the answers of {count} servers became slower: {servers}",
        "{count} 个服务器的回答变慢：{servers}",
    ),
    "wrapped.many": (
        (
            "The trees of {count} servers have several processes, and the same after each page: {servers}. "
            "Those are launchers such as npx or uvx, and the servers below them: one tree each, as it "
            "should be."
        ),
        (
            "{count} 个服务器的进程树各有多个进程，且每个页面之后都不变：{servers}。由 npx、uvx 之类的启动器"
            "及其下的服务器组成，各算一棵树，属于正常。"
        ),
    ),
    "rose.many": (
        "The trees of {count} servers rose at their first use, and stayed there: {servers}.",
        "{count} 个服务器的进程树增大后保持不变：{servers}。这是首次使用时启动的工作进程。",
    ),
    "tool_complains.many": (
        (
            "{count} servers answered the tool that the doctor chose by itself with an error: {servers}. "
            "Name better ones in [servers.NAME.doctor]."
        ),
        (
            "{count} 个服务器对 doctor 自行选择的工具返回了错误：{servers}。可在 [servers.NAME.doctor] 中指定"
            "更合适的工具。"
        ),
    ),
    # --- remarks
    "wrapped": (
        (
            "{server}: its tree has {processes} processes, and the same after each page: a launcher such as "
            "npx or uvx, and the server below it. That is one tree, as it should be."
        ),
        (
            "{server}：它的进程树有 {processes} 个进程，且每个页面之后都不变：由 npx、uvx 之类的启动器及其下"
            "的服务器组成。这算一棵树，属于正常。"
        ),
    ),
    "rose": (
        (
            "{server}: its tree rose from {first} to {last} processes and stayed there: what it starts when "
            "it is first used."
        ),
        "{server}：它的进程树从 {first} 个进程增至 {last} 个后保持不变：是首次使用时启动的工作进程。",
    ),
    "no_tool": (
        (
            "{servers}: listed and not called, because no tool of theirs that needs no arguments is "
            "annotated `readOnlyHint`. Name a harmless call in [servers.NAME.doctor] of the broker's config."
        ),
        (
            "{servers}：只列出了工具而未调用，因为没有标注 `readOnlyHint` 且无需参数的工具。可在 broker 配置"
            "的 [servers.NAME.doctor] 中指定一个无害的调用。"
        ),
    ),
    "tool_complains": (
        (
            "{server}: {tool}, which the doctor chose by itself, answered with an error: {error}. Name a "
            "better one in [servers.{server:key}.doctor]."
        ),
        (
            "{server}：doctor 自行选择的 {tool} 返回了错误：{error}。可在 [servers.{server:key}.doctor] 中指"
            "定更合适的工具。"
        ),
    ),
    "runtime": (
        (
            "{servers}: started with {runtimes}, which only the broker needs. A backend whose registry looks "
            "for it drops these servers where it is missing in the backend's own container: if their tools "
            "are here and not on the page, install it there, or remove that check."
        ),
        (
            "{servers}：由 {runtimes} 启动，只有 broker 需要它。但后端的注册表会检查它，若后端自己的容器中没"
            "有，就会丢弃这些服务器：如果这里有工具而页面上没有，请在后端容器中安装它，或去掉该检查。"
        ),
    ),
    "elsewhere": (
        (
            "The broker runs on another machine or in another container. CPU, and servers beside the broker, "
            "cannot be seen from here: run the doctor where the broker runs, and count in the backend's "
            "container as well."
        ),
        (
            "broker 运行在另一台机器或另一个容器中，此处看不到 CPU，也看不到 broker 之外的服务器进程：请在 "
            "broker 所在之处运行 doctor，并在后端的容器中也清点一次。"
        ),
    ),
    "few_pages": (
        "With fewer than {least} pages it is not judged whether answers become slower.",
        "页面少于 {least} 个时，不判断回答是否变慢。",
    ),
    "memory": (
        (
            "Memory rose from {first} to {last} MiB. Servers that were used for the first time do that; run "
            "the doctor once more, and it should stay."
        ),
        "内存从 {first} MiB 增至 {last} MiB。服务器首次使用时会这样；再运行一次 doctor，应当不再增长。",
    ),
}
"""word → English, Chinese. A remark has no mend; what is found of many servers has the mend of one."""
