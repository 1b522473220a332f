"""The texts of an import, in English and Chinese."""

from __future__ import annotations

from broker.command.importing.format_texts import FORMATS
from broker.command.words import fill

WORDS: dict[str, tuple[str, str]] = {
    **FORMATS,
    "import_header": ("Made by `mcp-broker import` from {files}", "由 `mcp-broker import` 根据 {files} 生成"),
    "import_program": ("{server}: {command} is {program}", "{server}：{command} 即 {program}"),
    "import_private": (
        (
            "{server}: a service may have no access to {program} or to programs that it starts; install it "
            "for all users, or put this folder into the service's PATH and give that PATH as --path"
        ),
        (
            "{server}：系统服务可能无权访问 {program}，或找不到它要调用的程序；请为所有用户安装，或在服务的 "
            "PATH 中加入该目录，并用 --path 给出该 PATH"
        ),
    ),
    "import_not_found": (
        "{server}: imported unchanged, but it cannot start here: {problem}",
        "{server}：已原样导入，但在本机无法启动：{problem}",
    ),
    "import_cwd": (
        "{server}: runs in {folder}, because its definition has a path relative to it",
        "{server}：运行目录设为 {folder}，因为其定义中有相对于该目录的路径",
    ),
    "import_renamed": (
        "{server}: renamed, because {old!r} is not a valid name; clients have to call it {server}",
        "{server}：原名 {old!r} 不能用于 broker；客户端须改用 {server}",
    ),
    "import_remote": (
        (
            "{server}: not imported: it is a remote server ({kind}), and the broker runs stdio servers only; "
            "leave it with the client, or write a bridge as its command, such as npx -y mcp-remote ADDRESS"
        ),
        (
            "{server}：未导入：它是通过 {kind} 访问的远程服务器，而 broker 只运行 stdio 服务器；请保留在客户"
            "端的配置中，或把桥接程序写为其命令，例如 npx -y mcp-remote 地址"
        ),
    ),
    "import_own": (
        "{server}: not imported: it is built into its host ({kind}); leave it there",
        "{server}：未导入：它是宿主自带的部分（{kind}），由宿主自己运行；请保留在宿主的配置中",
    ),
    "import_windows_shell": (
        (
            "{server}: not imported: {shell} is a shell of Windows; on Linux write {instead} as command, and "
            "what stands behind it as args"
        ),
        (
            "{server}：未导入：{shell} 是 Windows 的命令解释器；在 Linux 上请把 {instead} 写为 command，"
            "其后的写为 args"
        ),
    ),
    "import_windows_program": (
        "{server}: not imported: {program} is a program of Windows; write that of Linux, such as {instead}",
        "{server}：未导入：{program} 是 Windows 程序；请改写为 Linux 上的程序，例如 {instead}",
    ),
    "import_windows_path": (
        (
            "{server}: imported but disabled: {key} has a path or variable of Windows, {found}; write one of "
            "this machine and remove enabled = false"
        ),
        (
            "{server}：已导入但被禁用：{key} 中有 Windows 的路径或变量 {found}；请改为本机的路径，并删除 "
            "enabled = false"
        ),
    ),
    "import_lost_backslash": (
        (
            "{server}: imported but disabled: {key} has {found}, a path of Windows whose single \\ made "
            "another character; write a path of this machine and remove enabled = false"
        ),
        (
            "{server}：已导入但被禁用：{key} 中有 {found}，这是 Windows 路径，其中单个 \\ 变成了别的字符；"
            "请改为本机的路径，并删除 enabled = false"
        ),
    ),
    "import_control": (
        "{server}: it contains the control character {found}; if a \\ was meant, write it twice: \\\\",
        "{server}：其中有控制字符 {found}；如果本意是 \\，请写两次：\\\\",
    ),
    "import_split": (
        (
            "{server}: its command was a whole line; now {command} is the command, and {count} word{count:s} "
            "{count:are} args"
        ),
        "{server}：原 command 是一整行命令；现在 {command} 为 command，{count} 个词为 args",
    ),
    "import_open_quotation": (
        (
            "{server}: imported but disabled: a quotation mark in command is not closed; write the program "
            "as command, its arguments as args, and remove enabled = false"
        ),
        (
            "{server}：已导入但被禁用：command 中的引号没有闭合；请把程序写为 command，参数写为 args，"
            "并删除 enabled = false"
        ),
    ),
    "import_needs_shell": (
        (
            '{server}: imported but disabled: its command is a line for a shell; write command = "sh" and '
            'args = ["-c", "the line"], and remove enabled = false'
        ),
        (
            '{server}：已导入但被禁用：其 command 是一行 shell 命令；请写成 command = "sh"、'
            'args = ["-c", "该行命令"]，并删除 enabled = false'
        ),
    ),
    "import_project": (
        "{server}: runs in {folder}, the folder of its project",
        "{server}：运行目录设为其所属项目 {folder}",
    ),
    "import_apart": (
        "{server}: this is {old!r} of project {folder}; another server in the file has that name",
        "{server}：这是项目 {folder} 的 {old!r}；同一文件中另有同名的服务器",
    ),
    "import_unnamed": (
        "{server}: it had no name; this one is made from its command, rename its table if you like",
        "{server}：原处没有名称；此名称取自其命令，可自行修改表名",
    ),
    "import_invalid": ("{server}: not imported: {problem}", "{server}：未导入：{problem}"),
    "import_unfilled": (
        (
            "{server}: imported but disabled: {key} has {placeholder}, and the broker fills variables in env "
            "only; write the value there, or run it by sh -c with the variable in env, and remove "
            "enabled = false"
        ),
        (
            "{server}：已导入但被禁用：{key} 中有 {placeholder}，而 broker 只在 env 中替换变量；请写入实际"
            "值，或用 sh -c 运行并把变量放在 env 中，再删除 enabled = false"
        ),
    ),
    "import_each_user": (
        (
            "{server}: imported but disabled: {key} has {placeholder}, another text for each user of its "
            "host; one server is for all here: write one text, and remove enabled = false"
        ),
        (
            "{server}：已导入但被禁用：{key} 中有 {placeholder}，它在原宿主中因用户而异，而这里所有人共用一"
            "个服务器；请写入一个值，并删除 enabled = false"
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
        "{server}: {key} {value} is read as milliseconds: {seconds} s",
        "{server}：{key} {value} 按毫秒理解，即 {seconds} 秒",
    ),
    "import_timeout_unclear": (
        "{server}: {key} {value} is left out, because its unit is unclear; write it in seconds",
        "{server}：{key} {value} 未导入：无法判断单位；请以秒为单位写入",
    ),
    "import_time": ("{server}: {key} is {meant}, {seconds} s", "{server}：{key} 写为 {meant}，{seconds} 秒"),
    "import_disabled": ("{server}: stays disabled", "{server}：保持禁用"),
    "import_secret_args": (
        "{server}: an argument looks like a secret; every user can see it in the process list",
        "{server}：有一个参数疑似密钥；本机所有用户都能在进程列表中看到它",
    ),
    "import_left_out": (
        "{server}: left out, because the broker has no such keys: {keys}",
        "{server}：broker 没有以下键，未导入：{keys}",
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
        "{path}: duplicate keys, the last one counts: {keys}",
        "{path}：以下键重复，以最后一个为准：{keys}",
    ),
    "import_exists": (
        (
            "{path} already exists; --merge adds to it, --force overwrites it and keeps it as .bak, "
            "--output names another file, --dry-run only shows the result"
        ),
        (
            "{path} 已存在；--merge 添加到其中，--force 覆盖并将原文件保留为 .bak，--output 指定其他文件，"
            "--dry-run 只显示结果"
        ),
    ),
    "import_force_or_merge": (
        "--force overwrites the file and --merge adds to it; give one of them",
        "--force 会覆盖文件，--merge 会添加到文件；请只用其中一个",
    ),
    "import_no_file": (
        "{path} is not a regular file; name another with --output",
        "{path} 不是普通文件；请用 --output 指定其他文件",
    ),
    "import_not_toml": (
        "{path} is not a broker.toml: {problem}; correct it first, or write another file with --output",
        "{path} 不是有效的 broker.toml：{problem}；请先改正，或用 --output 写入其他文件",
    ),
    "import_not_merged": (
        "cannot add to the file ({problem}); write another with --output, and copy the servers by hand",
        "无法添加到该文件（{problem}）；请用 --output 写入其他文件，再手动复制服务器",
    ),
    "import_invalid_file": (
        "nothing is written, because the file would have {count} mistake{count:s}:{lines}",
        "未写入任何内容，因为文件中会有 {count} 处错误：{lines}",
    ),
    "import_unwritable": (
        "{path} cannot be written: {problem}; name another file with --output",
        "{path} 无法写入：{problem}；请用 --output 指定其他文件",
    ),
    "import_nothing": ("{path}: nothing to write", "{path}：没有需要写入的内容"),
    "import_kept": ("{path}: backup of the old file", "{path}：原文件的备份"),
    "import_written": (
        "{path}: written, servers: {count}; now run: mcp-broker check --config {path}",
        "{path}：已写入 {count} 个服务器；接下来请运行：mcp-broker check --config {path}",
    ),
    "import_private_file": (
        "{path}: mode 0600, because it contains secrets; its owner must be the user that runs the broker",
        "{path}：权限为 0600，因为其中有密钥；文件所有者必须是运行 broker 的用户",
    ),
    "import_secrets": (
        "secrets in plain text: {names}; with --secrets-as-variables they stay out of the file",
        "明文密钥：{names}；使用 --secrets-as-variables 可不写入文件",
    ),
    "import_variables": (
        "set these variables where the broker is started: {names}",
        "请在启动 broker 的环境中设置以下变量：{names}",
    ),
}
"""word → English, Chinese."""


def say(word: str, **facts: object) -> str:
    """Return a text of `WORDS` in the reader's language, filled in."""
    return fill(WORDS[word], **facts)
