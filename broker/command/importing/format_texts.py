"""The texts about files that cannot be parsed, in English and Chinese."""

from __future__ import annotations

FORMATS: dict[str, tuple[str, str]] = {
    "import_unreadable": (
        "{path} cannot be read: {problem}; correct its name or its permissions",
        "{path} 无法读取：{problem}；请检查文件名或权限",
    ),
    "import_not_utf8": (
        "{path} is not UTF-8: {problem}; save it as UTF-8",
        "{path} 不是 UTF-8：{problem}；请另存为 UTF-8",
    ),
    "import_not_json": (
        "{path}:{line}:{column}: not JSON: {problem}",
        "{path}:{line}:{column}：不是 JSON：{problem}",
    ),
    "json_backslash": (
        "a single \\ in a text; write it twice: \\\\ is one",
        "文本中有单个 \\；请写两次：\\\\ 表示一个",
    ),
    "json_control": (
        "a line break or another control character in a text; write \\n for a line break, \\t for a tab",
        "文本中有换行或其他控制字符；换行请写 \\n，制表符请写 \\t",
    ),
    "json_unterminated": (
        "the text that begins here has no closing quotation mark",
        "从此处开始的文本缺少结尾的引号",
    ),
    "json_comment": (
        "a comment is // up to the end of its line, or /* up to */",
        "注释的写法是 // 到行尾，或 /* 到 */",
    ),
    "json_quote": ("a single quotation mark; write double ones", "单引号；请改用双引号"),
    "json_word": ("{found} is not JSON; write {instead}", "{found} 不是 JSON 的写法；请写 {instead}"),
    "json_empty": (
        "there is nothing before this {found}; write what is missing, or remove the comma or the colon",
        "此 {found} 之前缺少内容；请补上，或删除多余的逗号或冒号",
    ),
    "json_number": (
        "{found} is not a JSON number; write decimal digits, such as 16 or 0.5, or a text in quotes",
        "{found} 不是 JSON 的数；请用十进制数字书写，例如 16 或 0.5，或写成带引号的文本",
    ),
    "json_key": ('a key stands in double quotation marks: "…"', '键要写在双引号中："…"'),
    "json_colon": ("a colon is missing before {found}", "{found} 之前缺少冒号"),
    "json_comma": ("a comma is missing before {found}", "{found} 之前缺少逗号"),
    "json_extra": (
        "unexpected {found}; remove it, or write what is missing before it",
        "此处的 {found} 多余；请删除，或补上前面缺少的括号",
    ),
    "json_text": ('a text stands in double quotation marks: "…"', '文本要写在双引号中："…"'),
    "json_unclosed": (
        "the text ends and {missing} is missing: the {opened} of line {opened_line} is not closed",
        "文本到此结束，缺少 {missing}：第 {opened_line} 行的 {opened} 没有闭合",
    ),
    "json_ends": ("something is missing here: the text ends", "文本到此结束，缺少内容"),
    "json_nothing": (
        "there is nothing but comments; is it the right file?",
        "除注释外没有内容；请确认文件是否正确",
    ),
    "import_toml": (
        "{path}: not TOML: {problem}; correct this line first",
        "{path}：不是 TOML：{problem}；请先改正该行",
    ),
    "import_toml_backslash": (
        "{path}: not TOML: {problem}; write a text with \\ in single quotation marks, or \\ twice",
        "{path}：不是 TOML：{problem}；含 \\ 的文本请用单引号，或把 \\ 写两次",
    ),
    "import_not_yaml": (
        "{path}:{line}:{column}: not YAML: {problem}; correct this line, or the indent of the one before",
        "{path}:{line}:{column}：不是 YAML：{problem}；请改正该行，或上一行的缩进",
    ),
    "import_command": ("{path}:{line}: {problem}", "{path}:{line}：{problem}"),
    "import_no_command": (
        '"{found}" adds no server; write one such line for each: claude mcp add NAME -- COMMAND ARGUMENTS',
        '"{found}" 没有添加服务器；请每行写一个：claude mcp add 名称 -- 命令 参数',
    ),
    "import_command_short": (
        "the name or the command is missing: claude mcp add NAME -- COMMAND ARGUMENTS",
        "缺少名称或命令：claude mcp add 名称 -- 命令 参数",
    ),
    "import_command_option": (
        "the option {option} is not known; write the server's own options behind --",
        "未知选项 {option}；服务器自己的选项请写在 -- 之后",
    ),
    "import_command_json": (
        "its JSON is not an object; write it in single quotation marks: '{{\"command\": …}}'",
        "其 JSON 不是对象；请写在单引号中：'{{\"command\": …}}'",
    ),
    "import_open_quote": (
        "a quotation mark is not closed, or the line goes on and nothing follows",
        "引号没有闭合，或该行以 \\ 续行而后面没有内容",
    ),
    "import_empty": (
        "{path} is empty; name the file of another host, or paste its servers",
        "{path} 是空的；请指定其他宿主的文件，或粘贴其中的服务器",
    ),
    "import_no_input": (
        "name a FILE, or write to standard input: mcp-broker import - < FILE",
        "请指定 FILE，或通过标准输入提供：mcp-broker import - < FILE",
    ),
    "import_old": ("{problem}", "{problem}"),
    "import_too_deep": (
        "{path} is nested too deeply; is it the right file?",
        "{path} 嵌套过深；请确认文件是否正确",
    ),
    "import_surrogate": (
        "{path} has an incomplete character (\\ud800 to \\udfff); remove it",
        "{path} 中有不完整的字符（\\ud800 至 \\udfff）；请删除",
    ),
    "import_no_servers": (
        "{path} has no servers in a known format; the known hosts, with the key of each: {hosts}",
        "{path} 中没有可识别的服务器；可识别的宿主及其键：{hosts}",
    ),
}
"""word → English, Chinese. Those of `json_` are the problem in `import_not_json`."""
