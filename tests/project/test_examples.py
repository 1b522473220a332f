"""The servers of examples/led_screen, each a real process on stdio, driven by the SDK's own client.

Every test of the four that only answer runs in both protocol eras, since the broker speaks whichever a server
answers to; the one that asks runs on both lines of the SDK. The servers run
far from their folder and under the plain C locale, as a systemd unit would have it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import (
    INVALID_PARAMS,
    CallToolResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    TextContent,
    TextResourceContents,
    Tool,
)

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "led_screen"
SERVERS = {
    "laundry": "laundry-assistant",
    "advertisement": "advertisement-server",
    "weather": "weather-server",
    "transit": "fukuoka-transit",
}
ERAS = {"legacy": "2025-11-25", "auto": "2026-07-28"}
"""How the SDK's client opens a connection (`initialize`, `server/discover`) → the protocol it then speaks."""
PLAIN_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}

Json = dict[str, Any]


@dataclass
class Live:
    """One server process with its client, called from synchronous tests."""

    name: str
    portal: BlockingPortal
    client: Client
    progress: list[tuple[float, float | None, str | None]] = field(default_factory=list)

    def tools(self) -> dict[str, Tool]:
        return {tool.name: tool for tool in self.portal.call(self.client.list_tools).tools}

    def call(self, tool: str, **arguments: object) -> CallToolResult:
        self.progress.clear()
        return self.portal.call(partial(self.client.call_tool, tool, arguments, progress_callback=self.note))

    async def note(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, total, message))

    def data(self, tool: str, **arguments: object) -> Json:
        """What a call returns as data, which its text has to repeat."""
        result = self.call(tool, **arguments)
        assert not result.is_error, text_of(result)
        data: Json = json.loads(text_of(result))
        assert data == result.structured_content
        return data

    def error(self, tool: str, **arguments: object) -> str:
        result = self.call(tool, **arguments)
        assert result.is_error, text_of(result)
        return text_of(result)

    def read(self, uri: str) -> TextResourceContents:
        (content,) = self.portal.call(self.client.read_resource, uri).contents
        assert isinstance(content, TextResourceContents)
        return content

    def prompt(self, name: str, arguments: dict[str, str]) -> str:
        (message,) = self.portal.call(self.client.get_prompt, name, arguments).messages
        assert isinstance(message.content, TextContent)
        return message.content.text


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


def stored(file: str) -> Json:
    data: Json = json.loads((FOLDER / file).read_text(encoding="utf-8"))
    return data


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="module", params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serving(name: str) -> Callable[..., Iterator[Live]]:
    """A fixture of one server, whose process lives as long as the tests of an era."""

    @pytest.fixture(scope="module", name=name)
    def serve(portal: BlockingPortal, era: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
        script = str(FOLDER / f"{name}.py")
        cwd = tmp_path_factory.mktemp(name)
        process = StdioServerParameters(command=sys.executable, args=[script], cwd=cwd, env=PLAIN_LOCALE)
        client = Client(process, mode=era, read_timeout_seconds=30)
        with portal.wrap_async_context_manager(client):
            yield Live(name, portal, client)

    return serve


laundry, advertisement, weather, transit = map(serving, SERVERS)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, era: str) -> Live:
    """Each of the four in turn."""
    live: Live = request.getfixturevalue(request.param)
    return live


# --- what the four have in common ---------------------------------------------------------------------


def test_each_speaks_both_eras_under_its_own_name(server: Live, era: str) -> None:
    """The broker uses whichever era a server answers to; the name is the one broker.toml gives it."""
    assert server.client.protocol_version == ERAS[era]
    assert server.client.server_info is not None
    assert server.client.server_info.name == SERVERS[server.name]


def test_each_tool_tells_a_model_what_it_does_and_what_it_wants(server: Live) -> None:
    """A model knows of a tool only its description, and of an argument only its schema."""
    for tool in server.tools().values():
        assert len(tool.description or "") > 40, tool.name
        for name, schema in tool.input_schema["properties"].items():
            explained = "description" in json.dumps(schema) or "enum" in json.dumps(schema)
            assert explained, f"{tool.name}({name})"


def test_only_a_report_changes_anything(server: Live) -> None:
    """A host may repeat or pre-approve what is read-only, so the hints have to be true."""
    hints = {name: tool.annotations for name, tool in server.tools().items()}
    assert all(hint and hint.idempotent_hint and hint.open_world_hint is False for hint in hints.values())
    changing = {name for name, hint in hints.items() if hint and not hint.read_only_hint}
    assert changing == ({"report_problem"} if server.name == "laundry" else set())


def test_each_tool_without_required_arguments_answers_by_the_clock(server: Live) -> None:
    """Where the time matters the clock is the default, and at no time of day is that an error."""
    bare = [name for name, tool in server.tools().items() if not tool.input_schema.get("required")]
    assert bare
    for name in bare:
        result = server.call(name)
        assert not result.is_error, text_of(result)
        assert result.structured_content, name


# --- laundry-assistant --------------------------------------------------------------------------------


def test_names_arrive_as_they_are_stored(laundry: Live) -> None:
    """Japanese and Chinese text passes unchanged, whatever the locale of the server's process."""
    machines = {key: machine["name"] for key, machine in laundry.data("list_machines").items()}
    assert machines == {key: machine["name"] for key, machine in stored("laundry.json")["machines"].items()}
    assert machines["W1"]["zh"] == "1号洗衣机"


def test_a_machine_is_taken_from_the_first_minute_of_a_run_to_its_end(laundry: Live) -> None:
    """W1 runs `standard`, of 35 minutes, from 18:30: free again at 19:05 sharp."""
    seen = {
        at: laundry.data("machine_status", machine_id="W1", at=at)
        for at in ("18:29", "18:30", "19:04", "19:05")
    }
    assert {at: (status["state"], status["free_at"]) for at, status in seen.items()} == {
        "18:29": ("free", None),
        "18:30": ("running", "19:05"),
        "19:04": ("running", "19:05"),
        "19:05": ("free", None),
    }


def test_no_run_of_the_day_overlaps_another_or_midnight() -> None:
    """The laundry compares times of day as text, which holds only as long as no run ends tomorrow."""
    data = stored("laundry.json")
    for machine in data["machines"].values():
        free_from = "00:00"
        for start, cycle in machine["runs"].items():
            assert start >= free_from
            end = datetime.strptime(start, "%H:%M") + timedelta(minutes=data["cycles"][cycle]["minutes"])
            free_from = end.strftime("%H:%M")
            assert free_from > start


def test_an_estimate_waits_for_the_machine(laundry: Live) -> None:
    """A cycle starts when the one before it ends, and costs what the machine's size asks."""
    estimate = laundry.data("estimate_finish", machine_id="W1", cycle_id="heavy", at="18:50")
    assert estimate == {"starts_at": "19:05", "finishes_at": "19:55", "price_yen": 400}


def test_every_fabric_and_soil_has_a_cycle_that_exists(laundry: Live) -> None:
    """Whatever the schema offers has an answer, and the answer can be given to estimate_finish."""
    schema = laundry.tools()["recommend_cycle"].input_schema["properties"]
    kinds = {key: cycle["kind"] for key, cycle in laundry.data("list_cycles").items()} | {None: "dryer"}
    for fabric in schema["fabric"]["enum"]:
        for soil in schema["soil"]["enum"]:
            advice = laundry.data("recommend_cycle", fabric=fabric, soil=soil)
            assert (kinds[advice["wash"]], kinds[advice["dry"]]) == ("washer", "dryer")


def test_a_reported_problem_is_known_to_the_next_visitor(laundry: Live) -> None:
    """One process serves every page, so what one visitor reports the next one hears."""
    laundry.data("report_problem", machine_id="D3", problem="ドアが閉まらない / 门关不上")
    status = laundry.data("list_machines", kind="dryer", at="11:45")["D3"]
    assert (status["state"], status["problem"]) == ("out of order", "ドアが閉まらない / 门关不上")
    assert "out of order" in laundry.error("estimate_finish", machine_id="D3", cycle_id="dry_low")


def test_an_unknown_machine_or_cycle_is_answered_with_the_known_ones(laundry: Live) -> None:
    """An error tells the reader what to do next: which ids there are, of the right kind."""
    assert "'W9'. There are W1, W2, W3, W4, D1, D2, D3." in laundry.error("machine_status", machine_id="W9")
    wrong_kind = laundry.error("estimate_finish", machine_id="D1", cycle_id="quick")
    assert "dryer cycle 'quick'. There are dry_low, dry_high, dry_bulky." in wrong_kind
    assert "24:00" in laundry.error("list_machines", at="24:00")


# --- advertisement-server -----------------------------------------------------------------------------


def test_the_clock_alone_says_what_is_on(advertisement: Live) -> None:
    """Those whose hours it is run in a loop from midnight: at six it is `welcome` and `laundry-awa`."""
    for at, expected in {
        "00:00": ("welcome", 15, "welcome"),
        "06:00:14": ("welcome", 1, "laundry-awa"),
        "06:00:15": ("laundry-awa", 15, "welcome"),
        "06:00:30": ("welcome", 15, "laundry-awa"),
    }.items():
        on = advertisement.data("current_advertisement", at=at)
        assert (on["advertisement"]["id"], on["remaining_s"], on["next_id"]) == expected, at


def test_something_is_on_at_every_hour(advertisement: Live) -> None:
    """The screen is never dark, so no time of day is an error."""
    for hour in range(24):
        assert advertisement.data("current_advertisement", at=f"{hour:02}:59:59")["remaining_s"] > 0


def test_an_advertisement_is_found_in_any_language(advertisement: Live) -> None:
    """A visitor asks in Chinese, Japanese or English; nothing found is an empty list and no error."""
    found = {
        "免税": ["drugstore-hikari"],
        "焼き": ["yatai-night"],
        "CAFÉ": ["welcome", "cafe-ohori"],
        "🦉": [],
    }
    for query, expected in found.items():
        matches = advertisement.data("find_advertisements", query=query)["advertisements"]
        assert [match["id"] for match in matches] == expected, query


def test_an_advertisement_is_a_resource(advertisement: Live) -> None:
    """`ad://{ad_id}` reads as the entry of the playlist, unchanged; the playlist is a resource too."""
    (template,) = advertisement.portal.call(advertisement.client.list_resource_templates).resource_templates
    (resource,) = advertisement.portal.call(advertisement.client.list_resources).resources
    assert (template.uri_template, resource.uri) == ("ad://{ad_id}", "playlist://today")
    for entry in stored("playlist.json")["advertisements"]:
        assert json.loads(advertisement.read(f"ad://{entry['id']}").text) == entry
        assert entry["title"]["zh"] in advertisement.read("playlist://today").text


@pytest.mark.parametrize("language", ["ja", "zh", "en"])
def test_a_prompt_introduces_an_advertisement(advertisement: Live, language: str) -> None:
    """The prompt carries the title in the visitor's language, and in no other."""
    entry = stored("playlist.json")["advertisements"][1]
    text = advertisement.prompt("introduce_advertisement", {"ad_id": entry["id"], "language": language})
    assert [each for each, title in entry["title"].items() if title in text] == [language]


def test_an_unknown_advertisement_is_answered_with_the_known_ones(advertisement: Live) -> None:
    """Resource and prompt alike refuse an unknown id as invalid, and name the valid ones."""
    with pytest.raises(MCPError, match=r"'no-such'\. There are welcome, ramen-ichibanboshi") as resource:
        advertisement.read("ad://no-such")
    with pytest.raises(MCPError, match=r"'no-such'\. There are welcome, ramen-ichibanboshi") as prompt:
        advertisement.prompt("introduce_advertisement", {"ad_id": "no-such"})
    assert resource.value.error.code == prompt.value.error.code == INVALID_PARAMS


# --- weather-server -----------------------------------------------------------------------------------


def in_days(days: int) -> str:
    """A date seen from Japan, where the forecast is counted from."""
    return (datetime.now(timezone(timedelta(hours=9))) + timedelta(days=days)).date().isoformat()


@pytest.mark.parametrize("city", ["nagasaki", "長崎", "长崎", "Nagasaki"])
def test_a_city_goes_by_all_its_names(weather: Live, city: str) -> None:
    """The forecast of a date is that of its weekday in the file."""
    day = in_days(2)
    place = stored("forecast.json")["cities"]["nagasaki"]
    expected = place["week"][datetime.fromisoformat(day).weekday()] | {"day": day, "city": place["name"]}
    assert expected.items() <= weather.data("get_forecast", city=city, day=day).items()


def test_a_weekly_report_tells_how_far_it_is(weather: Live) -> None:
    """Seven steps in order, each with its line of the report, all before the result."""
    city, *days = text_of(weather.call("weekly_report", city="福岡", language="ja")).splitlines()
    assert (city, len(days)) == ("福岡", 7)
    assert weather.progress == [(done, 7, line) for done, line in enumerate(days, start=1)]


def test_the_best_drying_day_is_the_driest_of_the_week(weather: Live) -> None:
    """Fukuoka has one day without a chance of rain, wherever the week begins."""
    best = weather.data("best_drying_day", city="fukuoka")
    assert (best["rain_pct"], best["sky_name"]["icon"]) == (0, "☀️")


def test_what_has_no_forecast_is_answered_with_what_has(weather: Live) -> None:
    """An unknown city is answered with the cities, a day too far with the days."""
    assert "'Atlantis'. The cities are fukuoka, kitakyushu" in weather.error("get_forecast", city="Atlantis")
    assert "today, tomorrow, or a date from" in weather.error("get_forecast", day=in_days(30))


# --- fukuoka-transit ----------------------------------------------------------------------------------


def departures(transit: Live, station: str, after: str) -> list[tuple[str, str, int]]:
    """The departures of the Kuko Line: where to, when, in how many minutes."""
    found = transit.data("next_departures", station=station, line="kuko", after=after)["departures"]
    return [(each["towards"]["ja"], each["time"], each["in_min"]) for each in found]


def test_departures_follow_from_the_headway(transit: Live) -> None:
    """Both ends are left every 8 minutes from 09:00; Hakata is 19 minutes from one and 5 from the other."""
    assert departures(transit, "博多駅", "09:10") == [
        ("福岡空港", "09:11", 1),
        ("福岡空港", "09:15", 5),
        ("福岡空港", "09:19", 9),
        ("姪浜", "09:13", 3),
        ("姪浜", "09:21", 11),
        ("姪浜", "09:29", 19),
    ]


def test_the_night_joins_the_last_train_to_the_first(transit: Live) -> None:
    """The last train of yesterday still comes after midnight; then the next is the first of the morning."""
    assert departures(transit, "K11", "00:05")[:2] == [("福岡空港", "00:13", 8), ("福岡空港", "05:49", 344)]
    assert departures(transit, "K13", "23:59")[0] == ("姪浜", "05:30", 331)


def test_the_timetable_is_complete() -> None:
    """A ride between any two stops of a line, each stop among the stations, and no name given twice."""
    data = stored("timetable.json")
    for line in data["lines"].values():
        assert len(line["hop_min"]) == len(line["stops"]) - 1
        assert set(line["stops"]) <= set(data["stations"])
    for language in ("ja", "zh", "en"):
        assert len({station[language] for station in data["stations"].values()}) == len(data["stations"])


def test_a_route_changes_where_it_is_fastest(transit: Live) -> None:
    """From the airport's international terminal to Ropponmatsu: bus, Kuko Line, change at Hakata."""
    route = transit.data("route", origin="福冈机场国际线航站楼", destination="六本松")
    assert [(leg["by"]["ja"], leg["end"]["ja"], leg["minutes"]) for leg in route["legs"]] == [
        ("国内線・国際線連絡バス", "福岡空港", 10),
        ("空港線", "博多", 5),
        ("七隈線", "六本松", 12),
    ]
    assert route["minutes"] == 10 + 4 + 5 + 4 + 12


def test_every_station_can_be_reached(transit: Live) -> None:
    """A route's legs join up from the one station to the other, for every station seen from Tenjin."""
    stations = transit.data("list_stations")
    tenjin = stations.pop("tenjin")
    for key, stop in stations.items():
        legs = transit.data("route", origin="tenjin", destination=key)["legs"]
        assert (legs[0]["start"], legs[-1]["end"]) == (tenjin, stop)
        assert all(leg["end"] == following["start"] for leg, following in pairwise(legs))


def test_an_unknown_station_or_line_is_answered_with_the_known_ones(transit: Live) -> None:
    """An error names the stations, or the lines of the station; and a route needs two."""
    for station in ("Shinjuku", "駅"):
        wrong = transit.error("next_departures", station=station)
        assert f"No station {station!r}. The stations are meinohama, muromi" in wrong
    wrong = transit.error("next_departures", station="天神", line="nanakuma")
    assert "'nanakuma' at tenjin. It has kuko." in wrong
    assert "one station, tenjin" in transit.error("route", origin="天神", destination="K08")


# --- washing-machine ----------------------------------------------------------------------------------

PYTHONS = {"2.x": Path(sys.executable), "1.x": ROOT / ".venv-mcp1" / "bin" / "python"}
"""The lines of the SDK, and a Python that has each."""

Answer = ElicitResult | ErrorData


@dataclass
class Person:
    """Who is asked: notes the questions, and gives this answer."""

    answer: Answer
    asked: list[ElicitRequestFormParams] = field(default_factory=list)

    async def __call__(self, context: object, params: ElicitRequestParams) -> Answer:
        assert isinstance(params, ElicitRequestFormParams)
        self.asked.append(params)
        return self.answer


@pytest.fixture(params=PYTHONS)
def wash(request: pytest.FixtureRequest, portal: BlockingPortal) -> Callable[..., CallToolResult]:
    """Starts a washer in front of a person, on one line of the SDK."""
    python = PYTHONS[request.param]
    if not python.exists():
        pytest.skip("`make test` installs the 1.x SDK into .venv-mcp1")

    def wash(person: Person | None, machine_id: str = "W1") -> CallToolResult:
        process = StdioServerParameters(
            command=str(python), args=[str(FOLDER / "washing.py")], env=PLAIN_LOCALE
        )
        client = Client(process, mode="legacy", read_timeout_seconds=30, elicitation_callback=person)
        with portal.wrap_async_context_manager(client):
            result: CallToolResult = portal.call(client.call_tool, "start_wash", {"machine_id": machine_id})
        return result

    return wash


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"action": "accept", "content": {"programme": "quick"}}, "started: quick, 20 minutes, 200 yen."),
        ({"action": "accept", "content": {}}, "started: standard, 35 minutes, 300 yen."),
        ({"action": "decline"}, "not started: the person declined."),
        ({"action": "cancel"}, "not started: the person closed the question without an answer."),
    ],
    ids=["accept", "default", "decline", "cancel"],
)
def test_the_washer_does_what_the_person_says(
    wash: Callable[..., CallToolResult], answer: Json, said: str
) -> None:
    """Each way to answer a form; without a word of which programme, it is the default of the form."""
    person = Person(ElicitResult(**answer))
    result = wash(person)
    assert not result.is_error
    assert text_of(result) == f"W1 was {said}"
    assert len(person.asked) == 1


def test_the_question_is_a_form_that_any_client_can_show(wash: Callable[..., CallToolResult]) -> None:
    """2025-11-25: a flat schema with choices, title and default; the prices are those of the washer."""
    person = Person(ElicitResult(action="decline"))
    wash(person, "W4")
    (question,) = person.asked
    programme = question.requested_schema["properties"]["programme"]
    cycles = stored("laundry.json")["cycles"]
    washes = {key: each for key, each in cycles.items() if each["kind"] == "washer"}
    assert programme["enum"] == [*washes]
    assert (programme["title"], programme["default"]) == ("Programme", "standard")
    assert "Which programme shall W4 run?" in question.message
    for each in washes.values():
        assert f"{each['name']['zh']} / {each['name']['ja']}" in question.message
        assert f"{each['minutes']} min, {each['price_yen']['L']} yen" in question.message


def test_nothing_is_started_without_an_answer_that_can_be_used(wash: Callable[..., CallToolResult]) -> None:
    """A client may send what is in no form, refuse the question, or name no washer: the result says so."""
    boil = wash(Person(ElicitResult(action="accept", content={"programme": "boil"})))
    refused = wash(Person(ErrorData(code=-32601, message="this client shows no forms")))
    dryer = wash(None, "D1")
    assert boil.is_error
    assert "W1 was not started: there is no programme 'boil'." in text_of(boil)
    assert refused.is_error
    assert "nobody could be asked: this client shows no forms" in text_of(refused)
    assert dryer.is_error
    assert "No washer 'D1'. There are W1, W2, W3, W4." in text_of(dryer)
