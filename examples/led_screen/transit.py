"""fukuoka-transit: departures and routes on the subway of Fukuoka and the shuttle bus of its airport.

timetable.json beside this file holds the stations, the minutes from stop to stop of each line, and how often
it leaves its two ends. Stations and lines are real; the departures follow from those headways, and so come
near the published timetable without being it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Literal

from mcp.server.caching import CacheHint
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

Names = dict[Literal["ja", "zh", "en"], str]
Stop = dict[Literal["numbers", "ja", "zh", "en"], str]
Station = Annotated[str, Field(description="A station's id (hakata), number (K11) or name (博多, 福冈机场).")]
LineId = Annotated[str, Field(description="kuko, hakozaki, nanakuma or airport-shuttle. Default: all.")]
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="HH:MM, in Japan.")]
DAY_MIN = 24 * 60


class Line(BaseModel):
    name: Names
    stops: list[str]
    hop_min: list[int]
    headway_min: dict[str, int]

    def leaves_at(self) -> list[int]:
        """The minutes of the day at which it leaves both of its ends."""
        bands = pairwise((to_minutes(clock), every) for clock, every in self.headway_min.items())
        return [at for (start, every), (end, _) in bands for at in range(start, end, every)]

    def minutes(self, one: str, other: str) -> int:
        first, last = sorted((self.stops.index(one), self.stops.index(other)))
        return sum(self.hop_min[first:last])


class Timetable(BaseModel):
    change_min: int
    stations: dict[str, Stop]
    lines: dict[str, Line]


class Departure(BaseModel):
    line: Names
    towards: Stop
    time: str
    in_min: int


class Departures(BaseModel):
    station: Stop
    departures: list[Departure]


class Leg(BaseModel):
    by: Names
    start: Stop
    end: Stop
    minutes: int


class Route(BaseModel):
    minutes: int = Field(description="With changes, but without the wait for the first train.")
    legs: list[Leg]


def to_minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


TABLE = Timetable.model_validate_json(Path(__file__).with_name("timetable.json").read_bytes())
READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

server = MCPServer(
    "fukuoka-transit",
    version="0.1.0",
    instructions="Next departures and routes by subway in Fukuoka, and by bus to the international terminal.",
    log_level="WARNING",
    cache_hints={"tools/list": CacheHint(ttl_ms=3_600_000, scope="public")},
)


def now() -> str:
    """The time of day in Japan, wherever the host's own clock is set."""
    return datetime.now(timezone(timedelta(hours=9))).strftime("%H:%M")


def find_station(asked: str) -> str:
    wanted = asked.strip().casefold().removesuffix("駅").removesuffix("站").removesuffix(" station")
    for key, stop in TABLE.stations.items():
        names = (key, *stop["numbers"].split(), *stop.values())
        if wanted and wanted in (name.casefold() for name in names):
            return key
    raise ToolError(f"No station {asked!r}. The stations are {', '.join(TABLE.stations)}.")


def lines_at(station: str, wanted: str | None) -> list[Line]:
    """The lines that leave from a station, or the one of them that is wanted."""
    lines = {key: line for key, line in TABLE.lines.items() if line.headway_min and station in line.stops}
    if wanted and wanted not in lines:
        raise ToolError(f"No line {wanted!r} at {station}. It has {', '.join(lines)}.")
    return [line for key, line in lines.items() if wanted in (None, key)]


def following(line: Line, station: str, after: int) -> Iterator[Departure]:
    """Three departures in each direction, of yesterday too (past midnight), and of tomorrow."""
    for start, end in ((line.stops[0], line.stops[-1]), (line.stops[-1], line.stops[0])):
        ride = line.minutes(start, station)
        times = (day * DAY_MIN + leaves + ride for day in (-1, 0, 1) for leaves in line.leaves_at())
        for time in islice((time for time in times if time >= after and end != station), 3):
            clock = f"{time // 60 % 24:02}:{time % 60:02}"
            yield Departure(line=line.name, towards=TABLE.stations[end], time=clock, in_min=time - after)


def ways(here: str, there: str, used: tuple[str, ...] = ()) -> Iterator[list[Leg]]:
    """Every way from one station to another that takes no line twice."""
    boardable = {key: line for key, line in TABLE.lines.items() if here in line.stops and key not in used}
    for key, line in boardable.items():
        for stop in set(line.stops) - {here}:
            minutes = line.minutes(here, stop)
            leg = Leg(by=line.name, start=TABLE.stations[here], end=TABLE.stations[stop], minutes=minutes)
            rests = [[]] if stop == there else ways(stop, there, (*used, key))
            yield from ([leg, *rest] for rest in rests)


@server.tool(annotations=READS)
def list_stations() -> dict[str, Stop]:
    """All stations by id: names, and the numbers they have on the Kuko, Hakozaki and Nanakuma lines."""
    return TABLE.stations


@server.tool(annotations=READS)
def next_departures(station: Station, line: LineId | None = None, after: Clock | None = None) -> Departures:
    """The next three departures from a station in each direction of each line, from now or another time."""
    here, minute = find_station(station), to_minutes(after or now())
    departures = [each for it in lines_at(here, line) for each in following(it, here, minute)]
    return Departures(station=TABLE.stations[here], departures=departures)


@server.tool(annotations=READS)
def route(origin: Station, destination: Station) -> Route:
    """The fastest way from one station to another: which lines to take, and where to change."""
    here, there = find_station(origin), find_station(destination)
    if here == there:
        raise ToolError(f"{origin!r} and {destination!r} are one station, {here}. Name two.")
    routes = [
        Route(legs=legs, minutes=sum(leg.minutes for leg in legs) + TABLE.change_min * (len(legs) - 1))
        for legs in ways(here, there)
    ]
    return min(routes, key=lambda each: each.minutes)


if __name__ == "__main__":
    server.run()
