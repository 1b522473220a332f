"""The status page: what it tells, to whom, and how it is kept inert (laws 6 and 9, and the guard)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.http.page.history import History
from broker.gateway.http.page.view import HISTORY, SHOWN, STATUS, StatusPage
from tests.gateway.http.page.site import page_of, server, status


def everything(_: str) -> bool:
    return True


async def _read(page: StatusPage, path: str, may_see: Any = everything) -> Any:
    return json.loads((await page.data(path, may_see)).body)


def read(page: StatusPage, path: str, may_see: Any = everything) -> Any:
    """What `page` answers; its coroutine waits for nothing."""
    coroutine = _read(page, path, may_see)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def test_the_file_holds_no_data_and_runs_no_script_but_its_own() -> None:
    reply = page_of(status(server("secret-name"))).file()
    policy = reply.headers["content-security-policy"]
    assert b"secret-name" not in reply.body
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", policy)) == 2  # the style and the script
    assert reply.headers["cache-control"] == "no-store"


def test_nothing_is_put_into_the_page_as_markup() -> None:
    script = page_of(status()).file().body.decode()
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert sink not in script


def test_every_word_exists_in_both_languages() -> None:
    script = page_of(status()).file().body.decode()
    words = script[script.index("const WORDS = {") : script.index("};", script.index("const WORDS = {"))]
    said = set(re.findall(r'say\("(\w+)"', script)) | set(re.findall(r'data-say="(\w+)"', script))
    keys = set(re.findall(r"\b(\w+): \[", words))
    assert said - {"broker"} <= keys
    assert len(re.findall(r"[一-鿿]", words)) > 150


def test_the_page_gets_the_fields_that_it_shows_and_no_other() -> None:
    told = read(page_of(status(server("time"))), STATUS)
    assert set(told) == {"broker", "servers"}
    assert set(told["broker"]) == {"version", "uptime_s", "rss_bytes", "clients"}
    assert tuple(told["servers"][0]) == SHOWN
    assert "a line of stderr" not in json.dumps(told)


def test_a_token_sees_its_servers_only() -> None:
    page = page_of(status(server("time"), server("salary")), samples=3)

    def may_see(name: str) -> bool:
        return name == "time"

    assert [one["name"] for one in read(page, STATUS, may_see)["servers"]] == ["time"]
    assert read(page, HISTORY, may_see)["processes"] == [2, 2, 2]
    assert read(page, HISTORY)["processes"] == [4, 4, 4]


def test_a_broker_that_does_not_answer_leaves_a_gap() -> None:
    history = History()

    async def fail() -> dict[str, Any]:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        StatusPage(fail, history).sample(lambda: 5.0).send(None)
    assert history.series(everything) == {"at_s": [5.0], "processes": [None], "rss_bytes": [None]}


@given(st.integers(0, 3 * 20), st.integers(0, 2 * 5))
def test_the_history_is_bounded_and_keeps_the_newest(samples: int, servers: int) -> None:
    """Law 6."""
    history = History(20, 5)
    row = [server(f"s{number}", processes=1) for number in range(servers)]
    for number in range(samples):
        history.add(float(number), row)
    series = history.series(everything)
    kept = min(samples, 20)
    assert series["at_s"] == [float(number) for number in range(samples - kept, samples)]
    assert series["processes"] == [min(servers, 5)] * kept
