"""The reference of `gateway.toml`, from the structs of `broker.gateway.settings`."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from broker.config.fields import metas
from broker.gateway.settings import AuditConfig, DoorConfig, GatewayLimits, TokenConfig
from docs.blocks import config
from docs.blocks.markdown import TEXTS, Block, Language, code, table

SHAPES: dict[str, type[Struct]] = {
    "gateway": DoorConfig,
    "limits": GatewayLimits,
    "audit": AuditConfig,
    "tokens": TokenConfig,
}
"""table of `gateway.toml` → struct"""


def keys_of(section: str) -> list[str]:
    """Return the keys of a table."""
    return [field.name for field in msgspec.structs.fields(SHAPES[section])]


def keys(section: str) -> Block:
    """Return the block of one table."""
    shape = SHAPES[section]

    def rows(language: Language) -> Iterator[list[str]]:
        for field in msgspec.structs.fields(shape):
            values = config.values_of(shape, field.name, language)
            default = config.default_shown(field, language)
            yield [code(field.name), values, default, _meaning(section, field.name, language)]

    return lambda language: table(config.HEAD[language], rows(language))


def _meaning(section: str, key: str, language: Language) -> str:
    english = next(meta.description for meta in metas(SHAPES[section], key) if meta.description)
    if language == "en":
        return english
    known = TEXTS["gateway"][section].get(key, {})
    if known.get("of") != english:
        where = f"[gateway.{section}.{key}] of docs/texts.toml"
        raise SystemExit(f"{where}: translate this text, and write it beside as its `of`:\n{english}")
    return str(known["zh"])
