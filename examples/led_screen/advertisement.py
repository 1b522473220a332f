"""advertisement-server: the playlist of an LED screen, and which advertisement it shows at a given moment.

playlist.json beside this file lists the advertisements and the hours of each. Those whose hours it is run
in a loop counted from midnight, so the clock alone says which one is on.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta, timezone
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

from mcp.server.caching import CacheHint
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, ToolAnnotations
from pydantic import BaseModel, Field

Language = Literal["ja", "zh", "en"]
CLOCK = r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$"
REQUEST: dict[Language, str] = {
    "ja": "次の広告を、来店のお客様に二文で紹介してください。",
    "zh": "请用两句话向来店的客人介绍下面的广告。",
    "en": "Introduce this advertisement to a visitor in two sentences.",
}


class Advertisement(BaseModel):
    id: str
    advertiser: str
    seconds: int
    starts: str
    ends: str
    tags: list[str]
    title: dict[Language, str]
    text: dict[Language, str]

    def mentions(self, word: str) -> bool:
        texts = (self.advertiser, *self.tags, *self.title.values(), *self.text.values())
        return any(word.casefold() in text.casefold() for text in texts)


class Playlist(BaseModel):
    advertisements: list[Advertisement]


class OnScreen(BaseModel):
    at: str
    advertisement: Advertisement
    remaining_s: int
    next_id: str


PLAYLIST = Playlist.model_validate_json(Path(__file__).with_name("playlist.json").read_bytes())
BY_ID = {ad.id: ad for ad in PLAYLIST.advertisements}

READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
FIXED = CacheHint(ttl_ms=3_600_000, scope="public")

server = MCPServer(
    "advertisement-server",
    version="0.1.0",
    instructions="What the LED screen advertises: now, at another hour, or on what a visitor asks about.",
    log_level="WARNING",
    cache_hints={"tools/list": FIXED, "prompts/list": FIXED, "resources/list": FIXED},
)


def now() -> str:
    """The time of day in Japan, wherever the host's own clock is set."""
    return datetime.now(timezone(timedelta(hours=9))).strftime("%H:%M:%S")


def seconds_since_midnight(clock: str) -> int:
    hours, minutes, seconds, *_ = (int(part) for part in f"{clock}:00".split(":"))
    return hours * 3600 + minutes * 60 + seconds


def unknown(ad_id: str) -> str:
    return f"No advertisement {ad_id!r}. There are {', '.join(BY_ID)}."


@server.tool(annotations=READS)
def current_advertisement(
    at: Annotated[str | None, Field(pattern=CLOCK, description="HH:MM or HH:MM:SS, in Japan.")] = None,
) -> OnScreen:
    """What the screen shows now, or at another time of day, for how many seconds more, and what is next."""
    at = at or now()
    loop = [ad for ad in PLAYLIST.advertisements if ad.starts <= at < ad.ends]
    ends = list(accumulate(ad.seconds for ad in loop))
    position = seconds_since_midnight(at) % ends[-1]
    index = bisect_right(ends, position)
    following = loop[(index + 1) % len(loop)]
    return OnScreen(
        at=at, advertisement=loop[index], remaining_s=ends[index] - position, next_id=following.id
    )


@server.tool(annotations=READS)
def list_playlist() -> Playlist:
    """Every advertisement of the screen in the order they run, and the hours in which each one runs."""
    return PLAYLIST


@server.tool(annotations=READS)
def find_advertisements(
    query: Annotated[str, Field(min_length=1, description="One word, in Japanese, Chinese or English.")],
) -> Playlist:
    """The advertisements whose title, text, advertiser or tags contain a word such as ramen, 免税 or 早餐."""
    return Playlist(advertisements=[ad for ad in PLAYLIST.advertisements if ad.mentions(query)])


@server.resource("playlist://today", mime_type="text/markdown")
def playlist() -> str:
    """The playlist as a table for people."""
    rows = (f"| {ad.id} | {ad.starts}-{ad.ends} | {' / '.join(ad.title.values())} |" for ad in BY_ID.values())
    return "\n".join(["| id | hours | title |", "|---|---|---|", *rows])


@server.resource("ad://{ad_id}", mime_type="application/json")
def advertisement(ad_id: str) -> Advertisement:
    """One advertisement in its three languages."""
    if ad := BY_ID.get(ad_id):
        return ad
    raise ResourceNotFoundError(unknown(ad_id))


@server.prompt()
def introduce_advertisement(ad_id: str, language: Language = "zh") -> str:
    """Has the model introduce one advertisement to a visitor, aloud, in the visitor's language."""
    if ad := BY_ID.get(ad_id):
        return f"{REQUEST[language]}\n\n{ad.title[language]}\n{ad.text[language]}"
    raise MCPError(INVALID_PARAMS, unknown(ad_id))


if __name__ == "__main__":
    server.run()
