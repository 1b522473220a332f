"""The reference of the configuration, from the structs of `broker.config.schema`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import get_args, get_type_hints

import msgspec
from msgspec import Struct, inspect

from broker.config.diff import Requires, requires
from broker.config.fields import mend_of, metas
from broker.config.keys import KeyConfig
from broker.config.limits import LimitsConfig
from broker.config.schema import NO_KEYS, BrokerConfig, ServerConfig
from broker.config.server_tables import TABLES, DoctorConfig, FilterConfig
from broker.processes.environment import INHERITED
from docs.blocks.markdown import TEXTS, Block, Language, code, table

SHAPES: dict[str, type[Struct]] = {
    "broker": BrokerConfig,
    "limits": LimitsConfig,
    "keys": KeyConfig,
    "servers": ServerConfig,
    "doctor": DoctorConfig,
    "filters": FilterConfig,
}
"""section → struct; `doctor` and `filters` are tables in a server's table."""

_WITH_MEND = {"endpoint", "socket_mode", "metrics"}
"""Keys whose type and bounds do not describe their form."""

_RELOAD_HEAD = {
    "en": ("key", "what a reload does about a change"),
    "zh": ("键", "有变化时，重新加载会做什么"),
}

HEAD = {"en": ("key", "value", "default", "meaning"), "zh": ("键", "取值", "默认值", "含义")}

_WORDS = {
    "required": ("required", "必填"),
    "none": ("none", "无"),
    "or": (" or ", " 或 "),
    "string": ("string", "字符串"),
    "number": ("number", "数字"),
    "whole": ("whole number", "整数"),
    "list": ("list of strings", "字符串列表"),
    "map": ("table of strings", "字符串表"),
    "table": ("table", "表"),
    "above": (" above {}", "，大于 {}"),
    "from": (" from {}", "，不小于 {}"),
    "to": (" to {}", "，不大于 {}"),
    "reload_process": (
        "The server is restarted. Its calls have `drain_sec` to end; what waits is for the new process.",
        "重启该服务器：执行中的调用有 `drain_sec` 秒可以完成，排队的调用由新进程处理。",
    ),
    "reload_enabled": ("The server is started, or ended.", "启动或结束该服务器。"),
    "reload_server": (
        "It holds at once, or from the next start or stop of the server on. The process stays.",
        "立即生效，或从服务器下次启动、停止时起生效；进程不变。",
    ),
    "reload_broker": ("It holds at once.", "立即生效。"),
    "reload_restart": (
        "Nothing, until the broker is restarted. `reload` and `status` say so.",
        "重启 broker 之前不生效；`reload` 和 `status` 会提示。",
    ),
}
"""word → English, Chinese."""


def _say(language: Language, word: str, *facts: object) -> str:
    return _WORDS[word][language == "zh"].format(*facts)


def keys_of(section: str) -> list[str]:
    """Return the keys of this section."""
    fields = msgspec.structs.fields(SHAPES[section])
    return [field.name for field in fields if (section, field.name) not in NO_KEYS]


def keys(section: str) -> Block:
    """Return the block of one section."""
    shape = SHAPES[section]
    fields = {field.name: field for field in msgspec.structs.fields(shape)}

    def rows(language: Language) -> Iterator[list[str]]:
        for key in keys_of(section):
            default = default_shown(fields[key], language)
            yield [code(key), values_of(shape, key, language), default, _meaning(section, key, language)]

    return lambda language: table(HEAD[language], rows(language))


def description(section: str, key: str) -> str:
    """Return the meaning of a key in the code."""
    return next(meta.description for meta in metas(SHAPES[section], key) if meta.description)


def _meaning(section: str, key: str, language: Language) -> str:
    english = description(section, key)
    if language == "zh":
        known = TEXTS["config"][section].get(key, {})
        if known.get("of") != english:
            where = f"[config.{section}.{key}] of docs/texts.toml"
            raise SystemExit(f"{where}: translate this text, and write it beside as its `of`:\n{english}")
        return str(known["zh"])
    mend = mend_of(SHAPES[section], key)
    return f"{english} {mend[0].upper()}{mend[1:]}." if key in _WITH_MEND else english


def _type(shape: type[Struct], key: str) -> inspect.Type:
    return inspect.type_info(get_type_hints(shape, include_extras=True)[key])


def values_of(shape: type[Struct], key: str, language: Language) -> str:
    """Return what may be written for a key."""
    kind = _type(shape, key)
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):  # with None, which is how a key is left out
        kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    if isinstance(kind, inspect.LiteralType):
        values = get_args(get_type_hints(shape)[key])
        return _say(language, "or").join(code(json.dumps(value)) for value in values)
    return _bounds(kind, language)


def _bounds(kind: inspect.Type, language: Language) -> str:
    match kind:
        case inspect.BoolType():
            return _say(language, "or").join(("`true`", "`false`"))
        case inspect.FloatType(gt=None, ge=least):
            return _say(language, "number") + _say(language, "from", f"{least:g}")
        case inspect.FloatType(gt=above):
            return _say(language, "number") + _say(language, "above", f"{above:g}")
        case inspect.IntType(ge=least, le=most):
            upper = "" if most is None else _say(language, "to", most)
            return _say(language, "whole") + _say(language, "from", least) + upper
        case inspect.VarTupleType():
            return _say(language, "list")
        case inspect.DictType(value_type=inspect.AnyType()):
            return _say(language, "table")
        case inspect.DictType():
            return _say(language, "map")
        case _:
            return _say(language, "string")


def default_shown(field: msgspec.structs.FieldInfo, language: Language) -> str:
    """Return the default of a key as a page shows it."""
    default = default_of(field)
    if default is msgspec.NODEFAULT:
        return _say(language, "required")
    if default is None:
        return _say(language, "none")
    mebibytes = f" ({default // 2**20} MiB)" if isinstance(default, int) and default >= 2**20 else ""
    return code(json.dumps(default)) + mebibytes


def default_of(field: msgspec.structs.FieldInfo) -> object:
    """Return the default of a field, or `msgspec.NODEFAULT`."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def reloads(language: Language) -> str:
    """Return what a reload does about each key."""
    rows = [
        [", ".join(_paths(*sections, taking=need)), _say(language, word)]
        for need, sections, word in (
            (Requires.PROCESS, ("servers",), "reload_process"),
            (Requires.NOTHING, ("servers",), "reload_server"),
            (Requires.NOTHING, ("broker", "limits"), "reload_broker"),
            (Requires.RESTART, ("broker", "limits"), "reload_restart"),
        )
    ]
    rows.insert(1, [code("enabled"), _say(language, "reload_enabled")])
    return table(_RELOAD_HEAD[language], rows)


def _paths(*sections: str, taking: Requires) -> Iterator[str]:
    for section in sections:
        for key in [*keys_of(section), *(TABLES if section == "servers" else [])]:
            if key != "enabled" and requires(section, key) is taking:
                yield code(key)


def inherited(_: Language) -> str:
    """Return the variables that every server inherits."""
    return ", ".join(map(code, INHERITED))
