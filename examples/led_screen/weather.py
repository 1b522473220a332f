"""weather-server: the forecast of the coming seven days, from a file, so that it needs no network and no key.

forecast.json beside this file holds one week per city, Monday first, which is taken to repeat for ever:
the forecast for a date is that of its weekday.
"""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Literal

from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

Language = Literal["ja", "zh", "en"]
City = Annotated[str, Field(description="An id of list_cities, or a name in Japanese, Chinese or English.")]
Day = Annotated[str, Field(description="today, tomorrow, or a date YYYY-MM-DD within the coming seven days.")]
PACE_S = 0.1
"""How long a day of the weekly report takes, as with a service behind it: its progress can be watched."""

Sky = dict[Literal["icon", "ja", "zh", "en"], str]


class Weather(BaseModel):
    sky: str
    high_c: int
    low_c: int
    rain_pct: int


class Place(BaseModel):
    name: dict[Language, str]
    week: list[Weather] = Field(min_length=7, max_length=7)

    def on(self, day: date) -> Weather:
        return self.week[day.weekday()]


class Book(BaseModel):
    skies: dict[str, Sky]
    cities: dict[str, Place]


class Forecast(Weather):
    city: dict[Language, str]
    day: date
    sky_name: Sky


BOOK = Book.model_validate_json(Path(__file__).with_name("forecast.json").read_bytes())
BY_NAME = {
    name.casefold(): place for key, place in BOOK.cities.items() for name in (key, *place.name.values())
}

READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

server = MCPServer(
    "weather-server",
    version="0.1.0",
    instructions="The weather of the coming seven days in some cities of Japan.",
    log_level="WARNING",
    cache_hints={"tools/list": CacheHint(ttl_ms=3_600_000, scope="public")},
)


def coming_days() -> list[date]:
    """Today and the six days after it, in Japan, wherever the host's own clock is set."""
    today = datetime.now(timezone(timedelta(hours=9))).date()
    return [today + timedelta(days=ahead) for ahead in range(7)]


def find_place(city: str) -> Place:
    if place := BY_NAME.get(city.strip().casefold()):
        return place
    raise ToolError(f"No forecast for {city!r}. The cities are {', '.join(BOOK.cities)}.")


def find_day(day: str) -> date:
    days = coming_days()
    named = {"today": days[0], "tomorrow": days[1]} | {each.isoformat(): each for each in days}
    if found := named.get(day.strip().casefold()):
        return found
    raise ToolError(f"No forecast for {day!r}. Say today, tomorrow, or a date from {days[0]} to {days[-1]}.")


def forecast(place: Place, day: date) -> Forecast:
    weather = place.on(day)
    return Forecast(**weather.model_dump(), city=place.name, day=day, sky_name=BOOK.skies[weather.sky])


def in_words(place: Place, day: date, language: Language) -> str:
    """One line of a report, for example `11-23 ☀️ 晴 9~17℃ ☔0%`."""
    it = place.on(day)
    sky = BOOK.skies[it.sky]
    return f"{day:%m-%d} {sky['icon']} {sky[language]} {it.low_c}~{it.high_c}℃ ☔{it.rain_pct}%"


@server.tool(annotations=READS)
def list_cities() -> dict[str, dict[Language, str]]:
    """The cities that have a forecast, by id, with their names in Japanese, Chinese and English."""
    return {key: place.name for key, place in BOOK.cities.items()}


@server.tool(annotations=READS)
def get_forecast(city: City = "fukuoka", day: Day = "today") -> Forecast:
    """The weather of one day in one city: sky, highest and lowest temperature, chance of rain."""
    return forecast(find_place(city), find_day(day))


@server.tool(annotations=READS)
async def weekly_report(ctx: Context, city: City = "fukuoka", language: Language = "zh") -> str:
    """The coming seven days in one city, a line for each, in the visitor's language. Reports its progress."""
    place, days = find_place(city), coming_days()
    lines = [place.name[language]]
    for done, day in enumerate(days, start=1):
        await asyncio.sleep(PACE_S)
        lines.append(in_words(place, day, language))
        await ctx.report_progress(done, len(days), lines[-1])
    return "\n".join(lines)


@server.tool(annotations=READS)
def best_drying_day(city: City = "fukuoka") -> Forecast:
    """The day of the coming seven to hang the laundry out: least chance of rain, then warmest."""
    place = find_place(city)
    best = min(coming_days(), key=lambda day: (place.on(day).rain_pct, -place.on(day).high_c))
    return forecast(place, best)


if __name__ == "__main__":
    server.run()
