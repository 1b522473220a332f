"""The texts of `attach`, `detach`, `add` and `remove`, in English and Chinese."""

from __future__ import annotations

from broker.command.words import fill

WORDS: dict[str, tuple[str, str]] = {
    # --- why an entry stays as it is
    "attach_stays": ("{name}: stays as it is: {why}", "{name}：保持原样：{why}"),
    "attach_of_project": ("it belongs to the project {folder}", "它属于项目 {folder}"),
    "attach_variable": ("it depends on the project, by {variable}", "它依赖当前项目（{variable}）"),
    "attach_relative": ("it depends on the project, by the path {path}", "它依赖当前项目（相对路径 {path}）"),
    "attach_roots": ("it takes its folders from the session (roots)", "它的目录由会话给出（roots）"),
    "attach_browser": (
        "{package} drives a browser, which sessions must not share",
        "{package} 操作浏览器，不同会话不应共用",
    ),
    "attach_code": ("{package} works on one project at a time", "{package} 一次只处理一个项目"),
    "attach_session": ("{package} keeps the state of one session", "{package} 保存单个会话的状态"),
    "attach_disabled": ("it is disabled", "它已被禁用"),
    "attach_remote": ("it is not a stdio server ({kind})", "它不是 stdio 服务器（{kind}）"),
    "attach_already": ("it is attached already", "它已经接入 broker"),
    "attach_no_server": ("it is not the entry of a server", "它不是服务器条目"),
    "attach_form": (
        "it is written in several pieces, or twice; write it as one piece",
        "它被拆成几处或重复出现；请写成一处",
    ),
    "attach_fault": ("it cannot be imported", "无法导入"),
    "attach_needs": (
        "set {variables} where the broker is started, then name it with --server",
        "请先在启动 broker 的环境中设置 {variables}，再用 --server 指定它",
    ),
    "attach_differs": (
        "the broker's server of this name differs in {keys}; to use the broker's: --server {name:sh}",
        "broker 中的同名服务器在 {keys} 上不同；如要使用 broker 的，请加 --server {name:sh}",
    ),
    "attach_unread": (
        "the broker has a server of this name, and its config cannot be read; to use it: --server {name:sh}",
        "broker 中已有同名服务器，但无法读取其配置；如要使用它，请加 --server {name:sh}",
    ),
    "attach_unknown": ("the host has no server of this name", "宿主中没有这个服务器"),
    # --- errors
    "attach_unreadable": (
        "{path} cannot be read: {problem}; correct the name or the permissions",
        "{path} 无法读取：{problem}；请检查路径或权限",
    ),
    "attach_unwritable": (
        "{path} cannot be written: {problem}; correct the permissions",
        "{path} 无法写入：{problem}；请检查权限",
    ),
    "attach_of_others": (
        "another user can change {path} or a link to it; remove that access first",
        "其他用户可以修改 {path} 或指向它的链接；请先取消其权限",
    ),
    "attach_untrusted": ("{problem}; {mend}", "{problem}；{mend}"),
    "attach_too_large": (
        "{path} has more than {bytes} bytes; is it the right file?",
        "{path} 超过 {bytes} 字节；请确认文件是否正确",
    ),
    "attach_not_utf8": (
        "{path} is not UTF-8: {problem}; save it as UTF-8",
        "{path} 不是 UTF-8：{problem}；请另存为 UTF-8",
    ),
    "attach_not_json": (
        "{path}:{line}: not JSON; correct this line first, or see `mcp-broker import {path:sh} --dry-run`",
        "{path}:{line}：不是 JSON；请先改正该行，或运行 `mcp-broker import {path:sh} --dry-run` 查看",
    ),
    "attach_not_toml": (
        "{path}: not TOML: {problem}; correct this line first",
        "{path}：不是 TOML：{problem}；请先改正该行",
    ),
    "attach_not_edited": (
        "the file of {host} cannot be changed without changing more than its servers; nothing is written",
        "无法只修改 {host} 配置文件中的服务器；未写入任何内容",
    ),
    "attach_changed_meanwhile": (
        "{path} changed while this command ran; run it again",
        "{path} 在本命令运行期间被修改；请重新运行",
    ),
    "attach_ledger": (
        "{path} is damaged: {problem}; restore it from a backup, or remove it if no host is attached",
        "{path} 已损坏：{problem}；请从备份恢复；如果没有宿主接入，可将其删除",
    ),
    "attach_claude": (
        "`claude` failed at {entry}: {problem}; to restore: mcp-broker detach claude-code --force",
        "`claude` 处理 {entry} 时失败：{problem}；恢复：mcp-broker detach claude-code --force",
    ),
    "attach_unknown_host": (
        "there is no host {host}; known hosts: {hosts}",
        "没有宿主 {host}；可用的宿主：{hosts}",
    ),
    "attach_no_file": ("{host}: no file at {path}", "{host}：{path} 不存在"),
    "attach_one_host": (
        "--config names one file; name its host, such as: mcp-broker attach cursor --config FILE",
        "--config 指定一个文件；请同时指定宿主，例如：mcp-broker attach cursor --config FILE",
    ),
    "attach_no_http": (
        "{host} takes no address with a token from a variable; attach it without --http",
        "{host} 不支持带变量令牌的地址；请不要使用 --http",
    ),
    "attach_not_yours": (
        "{path} belongs to another user; first: sudo mcp-broker import {host:sh} --merge --output {path:sh}",
        "{path} 属于其他用户；请先运行：sudo mcp-broker import {host:sh} --merge --output {path:sh}",
    ),
    # --- what is done
    "attach_found": ("found here: {hosts}", "在本机找到：{hosts}"),
    "attach_none_found": (
        "no host with servers was found here; name one, or its file with --config",
        "本机没有找到配置了服务器的宿主；请指定宿主，或用 --config 指定其文件",
    ),
    "attach_question": ("Attach these?", "接入以上宿主？"),
    "attach_name_them": (
        "name the hosts, or confirm with --yes; input is not a terminal",
        "请指定宿主，或加 --yes 确认；输入不是终端",
    ),
    "attach_nothing": ("{host}: nothing to attach in {path}", "{host}：{path} 中没有可接入的服务器"),
    "attach_dry": ("dry run: nothing is written", "试运行：未写入任何内容"),
    "attach_by_claude": (
        "{path} is changed by Claude Code's own command, {program} mcp add-json",
        "{path} 由 Claude Code 自己的命令修改：{program} mcp add-json",
    ),
    "attach_backup": ("{path}: backup of the old file", "{path}：原文件的备份"),
    "attach_done": (
        "{host}: {count} server{count:s} attached: {names}; restart {host}",
        "{host}：已接入 {count} 个服务器：{names}；请重启 {host}",
    ),
    "attach_token": (
        "set {variable} to the gateway's token where the hosts are started",
        "请在启动宿主的环境中把 {variable} 设为网关的令牌",
    ),
    "attach_left_out": (
        "the broker did not take the new servers; no host was changed",
        "broker 未接受新的服务器；未修改任何宿主",
    ),
    "attach_no_broker": (
        "no broker runs; start it: mcp-broker serve --config {path:sh}",
        "broker 没有运行；请启动：mcp-broker serve --config {path:sh}",
    ),
    "attach_header": ("Added by `mcp-broker {command}`", "由 `mcp-broker {command}` 添加"),
    "attach_plain_secrets": (
        "{path} now contains secrets in plain text: {names}",
        "{path} 中现有明文密钥：{names}",
    ),
    # --- detach
    "detach_nothing": ("no host is attached", "没有已接入的宿主"),
    "detach_done": (
        "{host}: {count} server{count:s} restored: {names}; restart {host}",
        "{host}：已恢复 {count} 个服务器：{names}；请重启 {host}",
    ),
    "detach_edited": (
        "{name}: changed meanwhile, your values are kept: {keys}",
        "{name}：期间有修改，已保留你的值：{keys}",
    ),
    "detach_dropped": (
        "{name}: changed meanwhile, restored as it was: {keys}; your values are in the backup",
        "{name}：期间有修改，已恢复原值：{keys}；你的值在备份中",
    ),
    "detach_changed": (
        "{name}: stays as it is: it runs another command by now; --force restores the earlier one",
        "{name}：保持原样：它已被改为其他命令；如要恢复原条目，请加 --force",
    ),
    "detach_missing": (
        "{name}: removed from {path} meanwhile; the earlier entry is in {ledger}, --force restores it",
        "{name}：期间已从 {path} 中删除；原条目保存在 {ledger}，加 --force 可恢复",
    ),
    "detach_no_file": (
        "{path} no longer exists; its earlier entries are kept in {ledger}",
        "{path} 已不存在；其原条目保存在 {ledger}",
    ),
    "detach_stay": (
        "the servers stay in broker.toml; mcp-broker remove NAME takes one out",
        "服务器仍在 broker.toml 中；可用 mcp-broker remove 名称 删除",
    ),
    "detach_restart": (
        "{path} holds secrets, so it was written without Claude Code's command; restart Claude Code",
        "{path} 含有密钥，因此未使用 Claude Code 的命令而直接写入；请重启 Claude Code",
    ),
    # --- add, remove
    "add_bad_name": (
        "{name!r} cannot be a server's name: {problem}; {mend}",
        "{name!r} 不能作为服务器名称：{problem}；{mend}",
    ),
    "add_exists": (
        "{path} has a server {name} already; remove it first: mcp-broker remove {name:sh}",
        "{path} 中已有服务器 {name}；请先删除：mcp-broker remove {name:sh}",
    ),
    "add_bad_env": ("{pair}: write NAME=VALUE", "{pair}：请写成 名称=值"),
    "add_done": ("{name}: added to {path}", "{name}：已添加到 {path}"),
    "remove_unknown": ("{path} has no server {name}", "{path} 中没有服务器 {name}"),
    "remove_not_cut": (
        "{name} cannot be removed from {path} without changing more; remove it by hand",
        "无法只从 {path} 中删除 {name}；请手动删除",
    ),
    "remove_attached": (
        "{name}: {hosts} would lose it; detach first: mcp-broker detach --server {name:sh}, or add --force",
        "{name}：{hosts} 仍在使用它；请先运行 mcp-broker detach --server {name:sh}，或加 --force",
    ),
    "remove_done": ("{name}: removed from {path}", "{name}：已从 {path} 中删除"),
    "reload_failed": ("the broker did not reload: {problem}", "broker 未能重新加载：{problem}"),
}
"""word → English, Chinese."""


def say(word: str, **facts: object) -> str:
    """Return a text of `WORDS` in the reader's language, filled in."""
    numbers = (int, float)
    plain = {name: fact if isinstance(fact, numbers) else str(fact) for name, fact in facts.items()}
    return fill(WORDS[word], **plain)


class AttachError(Exception):
    """The command cannot go on; the message says why and what to do."""

    def __init__(self, word: str, **facts: object) -> None:
        super().__init__(say(word, **facts))
