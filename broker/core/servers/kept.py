"""The kept catalogue of a server: what a broker writes down, so that the next one answers lists at once.

Kept are the lists that were read to their end and have items, as one page each, and the result of the
handshake. A list that was cut off, failed or is empty is not kept: it is read from the process.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, structs

from broker.base.backlog import result_of
from broker.core.mcp.agreement import Agreed
from broker.core.mcp.methods import Era
from broker.core.servers.catalogue import LISTS, Catalogue, Listing
from broker.core.servers.reading import Reading
from broker.core.servers.visibility import Visibility

FORMAT = 1
"""The version of the format. A broker reads its own version only."""


class UnusableError(Exception):
    """The content is no kept catalogue; the message says why."""


class KeptCatalogue(Struct, frozen=True):
    """What is kept of a server: `lists` as they were read, and the `lacking` ones.

    `era` is the era by which the next process is greeted; `None` if that of this one failed since.
    """

    agreed: Agreed
    era: Era | None
    lists: dict[str, Listing]
    lacking: frozenset[str]

    def catalogue(self, visible: Visibility | None) -> Catalogue:
        """Return a catalogue with these lists."""
        catalogue = Catalogue(self.agreed, visible)
        for method in self.lacking:
            catalogue.lacks(method)
        for method, listing in self.lists.items():
            sifted = result_of(visible.sift(method, listing.items)) if visible is not None else None
            catalogue.put(method, listing, sifted)
        return catalogue


class _Handshake(Struct, frozen=True, forbid_unknown_fields=True):
    era: Era
    version: str
    capabilities: dict[str, Any]
    server_info: dict[str, Any]
    instructions: str | None


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    agreed: _Handshake
    era: Era | None
    lists: dict[str, Raw]
    lacking: list[str]


class _Page(Struct, frozen=True, omit_defaults=True):
    """The hints of a list, beside its items."""

    ttl_ms: float | None = msgspec.field(default=None, name="ttlMs")
    scope: Literal["public", "private"] = msgspec.field(default="private", name="cacheScope")


def keep(catalogue: Catalogue, era: Era | None) -> KeptCatalogue:
    """Return what is kept of a catalogue. The lists are shared, and never change."""
    whole = {
        method: listing
        for method, listing in catalogue.whole.items()
        if listing.items and not listing.partial
    }
    lacking = frozenset(method for method in LISTS if catalogue.is_lacking(method))
    return KeptCatalogue(catalogue.agreed, era, whole, lacking - {"tools/list"})


def encode(kept: KeptCatalogue) -> bytes:
    """Return the content of a file.

    Raises:
        ValueError, OverflowError, RecursionError, msgspec.MsgspecError: it cannot be written as JSON.
    """
    agreed = kept.agreed
    handshake = _Handshake(
        agreed.era, agreed.version, agreed.capabilities, agreed.server_info, agreed.instructions
    )
    lists = {method: Raw(_page(listing)) for method, listing in kept.lists.items()}
    return msgspec.json.encode(_File(handshake, kept.era, lists, sorted(kept.lacking)))


def _page(listing: Listing) -> bytes:
    hints = _Page(None if listing.ttl_s is None else listing.ttl_s * 1000, listing.scope)
    items = b'"%b":[%b]' % (listing.member.encode(), b",".join(listing.items.values()))
    begun = msgspec.json.encode(hints)[:-1]
    return begun + (b"," if len(begun) > 1 else b"") + items + b"}"


def decode(content: bytes, max_bytes: int) -> KeptCatalogue:
    """Read the content of a file; each list as a page of a server is read.

    Args:
        max_bytes: the limit of one list.

    Raises:
        UnusableError: it is no kept catalogue.
    """
    try:
        file = msgspec.json.decode(content, type=_File)
        agreed = Agreed(**structs.asdict(file.agreed))
        lists = {method: _listing(method, page, agreed.era, max_bytes) for method, page in file.lists.items()}
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UnusableError(f"its content is no kept catalogue: {error}") from None
    return KeptCatalogue(agreed, file.era, lists, frozenset(file.lacking) & (LISTS.keys() - lists.keys()))


def _listing(method: str, page: Raw, era: Era, max_bytes: int) -> Listing:
    """Return a list. The time of its `ttlMs` is over."""
    if method not in LISTS:
        raise ValueError(f"there is no list {method!r:.40}")
    reading = Reading(method, max_bytes)
    if reading.page(memoryview(page), 0.0) is not None or reading.odd or reading.is_empty:
        raise ValueError(f"the list of {method} is not whole")
    return structs.replace(reading.listing(era), fresh_until=0.0)
