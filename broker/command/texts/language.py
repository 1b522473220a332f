"""The language of the reader: as the command line names it, else as the environment says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar

LANGUAGES = ("en", "zh")


def language(environ: Mapping[str, str] = os.environ) -> int:
    """Return 0 for English, 1 for Chinese: as chosen, else by $MCP_BROKER_LANG, else by the POSIX locale."""
    if environ is os.environ and (named := _CHOSEN.get()) is not None:
        return named
    names = ("MCP_BROKER_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    chosen = next((value for name in names if (value := environ.get(name))), "")
    return int(chosen.lower().startswith("zh"))


_CHOSEN: ContextVar[int | None] = ContextVar("language", default=None)


def choose_language(name: str | None) -> None:
    """Speak English ("en") or Chinese ("zh") from here on, whatever the locale is; `None`: as it says."""
    _CHOSEN.set(None if name is None else LANGUAGES.index(name))
