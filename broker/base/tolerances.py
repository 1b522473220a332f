"""The oddities of servers that the broker tolerates: their names, and the words for people.

Each is counted per server (`tolerated` in `status --json`). A notable one is also logged as a warning, once
per process, and has a line in `status`: something is lost, slow or doubtful because of it.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

Fact = str | int


class Oddity(str, Enum):
    """The kinds of oddities, by their names in `tolerated`."""

    # Lines
    BYTE_ORDER_MARK = "byte-order-mark"
    ANSI = "ansi-colours"
    PREFIX = "text-before-it"
    NOT_JSON_RPC = "not-json-rpc"
    NO_MESSAGE = "no-message"
    NOT_FINITE = "not-a-number"
    BROKEN = "broken-answer"
    # Envelopes
    STRING_ID = "id-as-string"
    FLOAT_ID = "id-as-float"
    NULL_ID = "null-id"
    NULL_MEMBER = "null-member"
    EMPTY_MEMBER = "empty-member"
    PARAMS = "params-not-an-object"
    UNMATCHED = "unmatched-answer"
    # The handshake
    PROBE_ODD = "probe-answered-oddly"
    PROBE_UNANSWERED = "probe-unanswered"
    PROBE_EXIT = "probe-ended-it"
    PROBE_HANG = "probe-hung-it"
    FIELD = "field-ignored"
    OLD_VERSION = "old-version"
    FORGOTTEN = "era-changed"
    # Lists
    EMPTY_CURSOR = "empty-cursor"
    BAD_CURSOR = "cursor-not-a-string"
    CURSOR_AGAIN = "cursor-again"
    PAGE_AGAIN = "page-again"
    TOO_LONG = "list-too-long"
    NO_LIST = "list-missing"
    BAD_ITEM = "bad-item"
    SAME_NAME = "same-name"
    PARTIAL = "list-partial"
    UNREAD = "list-unread"
    UNDECLARED = "list-undeclared"
    SPARED = "list-left-out"
    # The config
    PATTERN = "pattern-unmatched"


class OddityKind(Struct, frozen=True):
    """The texts of a kind, with places for facts, and whether it is notable."""

    english: str
    chinese: str
    notable: bool = False


_O = Oddity

KINDS: dict[Oddity, OddityKind] = {
    _O.BYTE_ORDER_MARK: OddityKind(
        "a byte-order mark before a line of its stdout",
        "stdout 的行首有字节顺序标记（BOM）",
    ),
    _O.ANSI: OddityKind("ANSI colours around a message", "消息前后带有 ANSI 颜色序列"),
    _O.PREFIX: OddityKind(
        "text without a line end before its first answer: a prompt, or an escape sequence",
        "第一个响应之前有没有换行的文字：提示符或转义序列",
    ),
    _O.NOT_JSON_RPC: OddityKind(
        'JSON on its stdout that is no JSON-RPC 2.0 (no `"jsonrpc": "2.0"`): kept as log lines',
        'stdout 上有不是 JSON-RPC 2.0 的 JSON（没有 `"jsonrpc": "2.0"`）：按日志行保留',
    ),
    _O.NO_MESSAGE: OddityKind(
        "JSON on its stdout that names JSON-RPC 2.0 and is no message of it: kept as log lines",
        "stdout 上有写着 JSON-RPC 2.0 却不是其消息的 JSON：按日志行保留",
    ),
    _O.NOT_FINITE: OddityKind(
        "messages have NaN or Infinity, which JSON does not have: passed on as null",
        "消息中有 JSON 没有的 NaN 或 Infinity：按 null 转交",
        notable=True,
    ),
    _O.BROKEN: OddityKind(
        "an answer that cannot be used: {reason}", "有无法使用的响应：{reason}", notable=True
    ),
    _O.STRING_ID: OddityKind("answers carry ids as strings", "响应中的 id 是字符串", notable=True),
    _O.FLOAT_ID: OddityKind("answers carry ids as floats", "响应中的 id 是浮点数", notable=True),
    _O.NULL_ID: OddityKind("notifications carry an `id` of null", "通知带有值为 null 的 `id`"),
    _O.NULL_MEMBER: OddityKind("members that are null beside others", "消息中有值为 null 的成员"),
    _O.EMPTY_MEMBER: OddityKind(
        "an `error` that is no error object beside a result, or an empty `result` beside an error",
        "result 旁边有不成其为错误的 `error`，或 error 旁边有空的 `result`",
    ),
    _O.PARAMS: OddityKind("params that are no object: taken as absent", "params 不是对象：按没有处理"),
    _O.UNMATCHED: OddityKind(
        "an answer came with the id {id}, which no open request has: a request may wait until its time is up",
        "收到 id 为 {id} 的响应，但没有未完成的请求用这个 id：可能有请求会一直等到超时",
        notable=True,
    ),
    _O.PROBE_ODD: OddityKind(
        "answered server/discover oddly, and was taken for an older server: {reason}",
        "对 server/discover 的响应不合规范，按旧版服务器处理：{reason}",
    ),
    _O.PROBE_UNANSWERED: OddityKind(
        'leaves server/discover unanswered, which delays its start; `protocol = "legacy"` in '
        "[servers.{server}] leaves it out",
        '不响应 server/discover，启动因此变慢；在 [servers.{server}] 中写 `protocol = "legacy"` 可跳过这一步',
        notable=True,
    ),
    _O.PROBE_EXIT: OddityKind(
        'ended at server/discover and was started again without it; `protocol = "legacy"` in '
        "[servers.{server}] leaves it out",
        "收到 server/discover 就退出，已重新启动，不再发送该请求；"
        '在 [servers.{server}] 中写 `protocol = "legacy"` 可跳过这一步',
        notable=True,
    ),
    _O.PROBE_HANG: OddityKind(
        'answered nothing after server/discover and was started again without it; `protocol = "legacy"` in '
        "[servers.{server}] leaves it out",
        "收到 server/discover 之后不再响应，已重新启动，不再发送该请求；"
        '在 [servers.{server}] 中写 `protocol = "legacy"` 可跳过这一步',
        notable=True,
    ),
    _O.FIELD: OddityKind(
        "its answer to {method} has fields of the wrong type, which were ignored: {fields}",
        "对 {method} 的响应中有类型不对的字段，已忽略：{fields}",
    ),
    _O.OLD_VERSION: OddityKind("speaks the old protocol version {version}", "使用旧的协议版本 {version}"),
    _O.FORGOTTEN: OddityKind("is of another era than its last process was", "与它上一个进程的协议时代不同"),
    _O.EMPTY_CURSOR: OddityKind(
        '{list}: `nextCursor` is "" and leads nowhere: taken for the end',
        '{list}：`nextCursor` 为 ""，且没有后续内容：按列表结束处理',
        notable=True,
    ),
    _O.BAD_CURSOR: OddityKind(
        "{list}: `nextCursor` is no string: the list ends there, with {count} items",
        "{list}：`nextCursor` 不是字符串：列表到此为止，共 {count} 项",
        notable=True,
    ),
    _O.CURSOR_AGAIN: OddityKind(
        "{list}: the same `nextCursor` came again: the list ends there, with {count} items",
        "{list}：同一个 `nextCursor` 再次出现：列表到此为止，共 {count} 项",
        notable=True,
    ),
    _O.PAGE_AGAIN: OddityKind(
        "{list}: a further page brought nothing new: the list ends there, with {count} items",
        "{list}：后一页没有新的项：列表到此为止，共 {count} 项",
        notable=True,
    ),
    _O.TOO_LONG: OddityKind(
        "{list}: it goes on beyond {most}: the list ends there, with {count} items",
        "{list}：超过上限（{most}）：列表到此为止，共 {count} 项",
        notable=True,
    ),
    _O.NO_LIST: OddityKind(
        "{list}: the answer has no `{member}`, or null: taken for an empty list",
        "{list}：响应中没有 `{member}`，或为 null：按空列表处理",
    ),
    _O.BAD_ITEM: OddityKind(
        "{list}: left out {count} item{count:s} that cannot be used: {reason}",
        "{list}：略去 {count} 个无法使用的项：{reason}",
        notable=True,
    ),
    _O.SAME_NAME: OddityKind(
        "{list}: left out {count} item{count:s} of a name that was there before",
        "{list}：略去 {count} 个重名的项",
        notable=True,
    ),
    _O.PARTIAL: OddityKind(
        "{list}: only the first {count} items were read: {reason}",
        "{list}：只读到前 {count} 项：{reason}",
        notable=True,
    ),
    _O.UNREAD: OddityKind("{list}: could not be read: {reason}", "{list}：无法读取：{reason}", notable=True),
    _O.SPARED: OddityKind(
        "{list}: an earlier process ended or fell silent at it: it is asked for when a client wants it",
        "{list}：此前的进程在被问到它时退出或不再响应：只在客户端需要时才询问",
        notable=True,
    ),
    _O.PATTERN: OddityKind(
        "{list}: patterns in broker.toml that match nothing the server lists: {patterns}",
        "{list}：broker.toml 中有与服务器列出的任何项都不匹配的模式：{patterns}",
        notable=True,
    ),
    _O.UNDECLARED: OddityKind(
        "{list}: has a list that its capabilities do not declare",
        "{list}：有这个列表，但 capabilities 中没有声明",
    ),
}
"""kind → its texts. A fact with `:s` is a number whose noun may need a plural s."""


OF_ERA = frozenset({_O.PROBE_UNANSWERED, _O.PROBE_EXIT, _O.PROBE_HANG})
"""The oddities that stay true of the next process, which is not probed again because of them."""


class Tolerated(Struct, frozen=True):
    """An oddity that was tolerated, with its facts."""

    oddity: Oddity
    facts: dict[str, Fact] = {}


class _Counted(int):
    """A number that formats as a plural s with `:s`: `{count} item{count:s}`."""

    def __format__(self, form: str) -> str:
        return ("" if self == 1 else "s") if form == "s" else super().__format__(form)


def told(oddity: Oddity, facts: dict[str, Fact]) -> str:
    """Return the English text of a kind, with its facts filled in."""
    filled = {name: _Counted(fact) if type(fact) is int else fact for name, fact in facts.items()}
    return KINDS[oddity].english.format(**filled)
