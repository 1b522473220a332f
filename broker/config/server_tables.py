"""The tables in a server's table: the doctor's call, and what clients see of the server."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any

from msgspec import Meta, Struct

from broker.config.fields import about

TABLES = ("doctor", "tools", "prompts", "resources")
"""The tables in a server's table."""

_PATTERNS = 'write a list of at most 128 patterns, such as ["get_*", "list_*"]'

Patterns = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\0]*\Z")], ...], Meta(max_length=128)
]


class DoctorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[servers.NAME.doctor]` table: the harmless call by which `mcp-broker doctor` tries the server."""

    tool: Annotated[
        str,
        Meta(min_length=1),
        about(
            "The tool to call; it should change nothing.", 'write its name, such as tool = "list_machines"'
        ),
    ]
    arguments: Annotated[
        dict[str, Any],
        about("Its arguments.", 'write a table, such as arguments = { city = "fukuoka" }'),
    ] = {}


class FilterConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[servers.NAME.tools]`, `.prompts` or `.resources` table: what clients may see and use."""

    only: Annotated[
        Patterns | None,
        about(
            "Patterns of what clients may see and use; the rest is hidden. An empty list hides everything.",
            _PATTERNS,
        ),
    ] = None
    hide: Annotated[Patterns, about("Patterns of what is hidden, even if `only` has it.", _PATTERNS)] = ()

    def shows(self, name: str) -> bool:
        """Return whether clients see a tool or prompt of this name."""
        is_in = self.only is None or any(fnmatchcase(name, one) for one in self.only)
        return is_in and not any(fnmatchcase(name, one) for one in self.hide)
