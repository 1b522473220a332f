"""What the fields of config structs are made of: bounds, explanations, and mends for mistakes."""

from __future__ import annotations

from typing import Annotated, get_type_hints

from msgspec import Meta, Struct

SECONDS = "write a number of seconds above 0, such as 30 or 0.5"
WHOLE = "write a whole number from 1 to 1000000000"
WORDS = 'write a list of strings, such as ["one", "two"]'
SIZE = "write a number of bytes from 65536 up"
SWITCH = "write true or false, without quotes"

Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
Bytes = Annotated[int, Meta(ge=65_536, le=17_179_869_184)]
Memory = Annotated[int, Meta(ge=65_536, le=1_125_899_906_842_624)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]


def about(text: str, mend: str) -> Meta:
    """Return the annotation of a field: its explanation, and what to write instead of a bad value."""
    return Meta(description=text, extra={"mend": mend})


ServerPatterns = Annotated[tuple[str, ...], about("The servers it may use, as patterns.", WORDS)]
"""What the holder of a token or a key may use (`base.name_patterns`)."""


def metas(shape: type[Struct], key: str) -> list[Meta]:
    """Return the annotations of a field: its bounds, and its description with the mend."""
    hint = get_type_hints(shape, include_extras=True)[key]
    return [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]


def mend_of(shape: type[Struct], key: str) -> str:
    """Return what to write for this key instead."""
    return next(str(meta.extra["mend"]) for meta in metas(shape, key) if meta.extra)
