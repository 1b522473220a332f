"""The metrics: what Prometheus reads is what is so, has bounded labels, and costs nobody else a call."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from broker.config.keys import AuthorizedKeys
from broker.config.loading import ConfigError
from broker.config.schema import BrokerConfig
from broker.core.clients.connections import Peer
from broker.management import metrics_http
from broker.management.context import Context
from broker.management.metrics import CALL_SECONDS, METRICS, STATES, Family, Snapshot
from broker.management.scrape import exposed
from broker.processes.trees import ProcessStat, Tree
from broker.service import config_file
from client_shim.wire import Code
from docs.generate import ROOT, pages
from tests.core.world import World
from tests.e2e.harness import RunningBroker, rogue, running, toml

FAMILIES = [*METRICS, CALL_SECONDS]
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
"""Some of what `prometheus_client` says of the broker's own process."""

Sample = dict[tuple[str, ...], float]


def samples(text: str) -> dict[str, Sample]:
    """name → label values, in the order of their names → value."""
    found: dict[str, Sample] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = tuple(value for _, value in sorted(one.labels.items()))
            assert labels not in found.setdefault(one.name, {}), "a sample is there once"
            found[one.name][labels] = one.value
    return found


def scrape(world: World) -> dict[str, Sample]:
    processes = [ProcessStat(pid, 1, 7, 0.75) for pid in (7, 8)]
    trees = {name: Tree(processes, 4096, 1.5) for name in world.processes}
    return samples(exposed(Snapshot(world.engine, trees), "")[1].decode())


# --- what is said ----------------------------------------------------------------------------------------


def test_a_scrape_says_what_happened() -> None:
    """Servers by state, calls by outcome, what waits, what was refused and why."""
    world = World({"time": {}, "slow": {"max_in_flight": 1}, "off": {"enabled": False}})
    world.start("time")
    world.start("slow")
    client = world.client()
    client.call("time", "echo")
    client.call("nobody", "echo")
    world.processes["time"].reply(world.processes["time"].calls[0], {})
    client.call("slow", "echo")
    client.call("slow", "echo")
    seen = scrape(world)
    assert seen["mcp_broker_servers"] == {
        (state,): {"ready": 2, "disabled": 1}.get(state, 0) for state in STATES
    }
    assert seen["mcp_broker_server_state"]["time", "ready"] == 1
    assert seen["mcp_broker_server_state"]["time", "broken"] == 0
    assert seen["mcp_broker_calls_total"]["result", "time"] == 1
    assert seen["mcp_broker_call_duration_seconds_count"]["time",] == 1
    assert seen["mcp_broker_calls_in_flight"]["slow",] == 1
    assert seen["mcp_broker_calls_queued"]["slow",] == 1
    assert seen["mcp_broker_refused_total"]["unknown-server",] == 1
    assert seen["mcp_broker_connections"] == {(): 1}
    assert seen["mcp_broker_queue_bytes"][()] > 0
    assert seen["mcp_broker_unread_bytes"][()] > 0
    assert seen["mcp_broker_server_processes"] == {("slow",): 2, ("time",): 2}
    assert seen["mcp_broker_server_cpu_seconds_total"]["time",] == 1.5
    assert seen["mcp_broker_limit"]["connections",] == world.config.limits.connections


def test_a_scrape_says_which_leases_are_held_and_what_waits_for_them() -> None:
    """Of the servers that are leased, and of no other."""
    world = World({"time": {}, "browser": {"lease_sec": 60}})
    world.start("browser")
    assert scrape(world)["mcp_broker_lease_held"] == {("browser",): 0}
    for key in (b"a", b"b", b"c"):
        world.client(key).call("browser", "echo")
    seen = scrape(world)
    assert seen["mcp_broker_lease_held"] == {("browser",): 1}
    assert seen["mcp_broker_lease_calls_waiting"] == {("browser",): 2}
    assert seen["mcp_broker_events_total"]["lease.granted",] == 1


class Name(str):
    """A name of a client that counts how often names are compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)


def test_a_scrape_looks_at_each_connection_once() -> None:
    """Law 5: with 10,000 keys and 1,000 connections, each against each stopped the loop for 165 ms."""
    names = {f"public{number}": Name(f"client{number}") for number in range(100)}
    world = World()
    authorized = AuthorizedKeys(names=dict(names))
    world.engine.configure(msgspec.structs.replace(world.engine.config, authorized=authorized))
    for public, name in names.items():
        client = world.stranger(public.encode())
        client.peer = Peer(key=Name(name), public=public)
        client.hello()
    Name.compared = 0
    assert scrape(world)["mcp_broker_key_connections"] == {(name,): 1 for name in names.values()}
    assert Name.compared < 1_000


def test_requests_of_each_key_are_told_by_its_name() -> None:
    """A key without a request has 0; a client on the socket has no row, nor has a key that was revoked."""
    names = {"p1": "laptop", "p2": "desk", "p3": "gone"}
    world = World({"time": {}})
    world.start("time")
    _authorize(world, names)
    for public, calls in (("p1", 2), ("p3", 1)):
        client = world.stranger(public.encode())
        client.peer = Peer(key=names[public], public=public, address="10.0.0.5")
        client.hello()
        for _ in range(calls):
            client.call("time", "echo")
    world.client(b"local").call("time", "echo")
    assert scrape(world)["mcp_broker_key_requests_total"] == {("laptop",): 2, ("desk",): 0, ("gone",): 1}
    _authorize(world, {"p1": "laptop", "p2": "desk"})
    assert scrape(world)["mcp_broker_key_requests_total"] == {("laptop",): 2, ("desk",): 0}


def _authorize(world: World, names: dict[str, str]) -> None:
    authorized = AuthorizedKeys(names)
    world.engine.configure(msgspec.structs.replace(world.engine.config, authorized=authorized))
    world.run(world.engine.clients.revoke)


def test_every_counter_of_the_core_is_in_some_metric() -> None:
    """Law 9: what is dropped, late or refused is counted; a new counter needs nobody to think of it here."""
    world = World()
    for name in (
        "refused.busy",
        "dropped.late.line",
        "late.frame",
        "closed.credit",
        "turned-away",
        "new.thing",
    ):
        world.engine.counters.add(name, 3)
    seen = scrape(world)
    assert seen["mcp_broker_refused_total"] == {("busy",): 3}
    assert seen["mcp_broker_dropped_total"] == {("late.line",): 3}
    assert seen["mcp_broker_late_total"] == {("frame",): 3}
    assert seen["mcp_broker_connections_closed_total"] == {("credit",): 3}
    assert seen["mcp_broker_events_total"] == {("new.thing",): 3, ("turned-away",): 3}


def test_a_scrape_that_fails_is_an_error_in_the_log_and_ends_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Law 5: a fault in the metrics takes nobody's calls with it."""

    async def broken(context: Context, accept: str) -> tuple[str, bytes]:
        raise ZeroDivisionError

    async def main() -> None:
        path = tmp_path / "m.sock"
        listening = metrics_http.MetricsServer(f"unix:{path}", BrokerConfig())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening.run, cast(Context, None))
            for _ in range(2):
                client = await trio.open_unix_socket(path)
                await client.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                assert await client.receive_some() == b""
                await client.aclose()
            nursery.cancel_scope.cancel()
        listening.close()

    monkeypatch.setattr(metrics_http, "render", broken)
    monkeypatch.setattr(logging.getLogger("mcp-broker"), "propagate", True)
    trio.run(main)
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == ["metrics.failed"] * 2


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1), st.text(), st.text(min_size=1))
def test_labels_are_never_the_words_of_a_peer(client: str, tool: str, method: str) -> None:
    """Law 6: clients and tools come and go with any name; the lines of a scrape do not grow with them."""
    world = World()
    world.start()
    before = scrape(world)
    page = world.stranger()
    page.hello(client.encode(errors="replace").decode())
    page.call(tool=tool.encode(errors="replace").decode())
    page.request("time", method.encode(errors="replace").decode())
    known = {"", "time", "result", "error", *STATES, *(code.value for code in Code)}
    for name, found in scrape(world).items():
        for labels in found.keys() - before.get(name, {}).keys():
            assert {*labels} <= known, name


def test_both_formats_are_valid_and_say_the_same() -> None:
    """Prometheus's own parsers take them, the strict one of OpenMetrics too."""
    world = World()
    world.start()
    world.client().call()
    world.processes["time"].reply(world.processes["time"].calls[0], {})
    (plain_type, plain), (open_type, opened) = (
        exposed(Snapshot(world.engine, {}), accept)
        for accept in ("text/plain", "application/openmetrics-text; version=1.0.0")
    )
    assert plain_type.startswith("text/plain; version=")
    assert open_type.startswith("application/openmetrics-text; version=1.0.0")
    strict = openmetrics.text_string_to_metric_families(opened.decode())  # type: ignore[no-untyped-call]
    families = {family.name: family for family in strict}
    assert {family.name for family in FAMILIES} <= families.keys()
    assert set(samples(plain.decode())) >= {*PROCESS, "mcp_broker_calls_total"}
    histogram = families[CALL_SECONDS.name]
    buckets = [one.value for one in histogram.samples if one.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == next(one.value for one in histogram.samples if one.name.endswith("_count")) == 1


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_are_as_prometheus_has_them(family: Family) -> None:
    """prometheus.io/docs/practices/naming: a prefix, base units, `_total` for counters only."""
    assert re.fullmatch(r"mcp_broker_[a-z_]+", family.name)
    assert not family.name.endswith(("_total", "_ms", "_count", "_sum", "_bucket"))
    assert family.help.endswith(".")


# --- where it is shown -------------------------------------------------------------------------------------

_NAME = re.compile(r"\b(?:mcp_broker|process)_\w+")
EXPOSED = {family.exposed for family in FAMILIES} | PROCESS
EXPOSED |= {f"{CALL_SECONDS.name}_{part}" for part in ("bucket", "sum", "count")}


def texts(node: Any) -> Iterator[str]:
    """Every string in a document."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)


DASHBOARDS = sorted((ROOT / "examples/grafana").glob("*.json"))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_every_metric_of_the_dashboard_exists(file: Path) -> None:
    """examples/grafana: a panel without data looks like a broker without problems."""
    dashboard = json.loads(file.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    named = {name for expression in expressions for name in _NAME.findall(expression)}
    assert named <= EXPOSED
    assert len(named) > 12
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]


def test_the_dashboards_are_in_one_language_each() -> None:
    """The Chinese one is made from the other: the same panels and queries, and no English sentence."""
    english, chinese = (json.loads(file.read_text(encoding="utf-8")) for file in DASHBOARDS)
    assert english["uid"] != chinese["uid"]
    assert not any(re.search("[\u4e00-\u9fff]", text) for text in texts(english))
    for one, other in zip(english["panels"], chinese["panels"], strict=True):
        assert [target["expr"] for target in one["targets"]] == [
            target["expr"] for target in other["targets"]
        ]
        assert re.search("[\u4e00-\u9fff]", other["title"])
        assert re.search("[\u4e00-\u9fff]", other["description"])
        assert re.search("[a-z]{4} [a-z]{2}", one["description"])


@pytest.mark.parametrize(
    "page", [page for page in pages() if "metrics" in page.name], ids=lambda page: page.name
)
def test_every_metric_of_the_pages_exists(page: Path) -> None:
    """docs/metrics.md: the alerts are YAML, and about what there is."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    alerts = [
        rule
        for block in blocks
        for group in yaml.safe_load(block).get("groups", [])
        for rule in group["rules"]
    ]
    assert len(alerts) >= 5
    for rule in alerts:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys()
    assert {*_NAME.findall(text)} <= EXPOSED | {family.name for family in FAMILIES}


# --- where it is read ------------------------------------------------------------------------------------


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        """As `socket(7)` has it."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A broker whose metrics are at a Unix socket; an earlier one was killed and left its socket there."""
    path = tmp_path_factory.mktemp("m") / "m.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    sections = {"metrics": f"unix:{path}", "socket_mode": "0660"}
    with running({"one": rogue(), "off": rogue(enabled=False)}, broker=sections) as broker:
        broker.wait_log("metrics.listening")
        yield broker


def socket_of(broker: RunningBroker) -> str:
    found = re.search(r'metrics = "unix:(.*)"', broker.config.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def ask(
    broker: RunningBroker, method: str = "GET", path: str = "/metrics", **headers: str
) -> tuple[int, str, str]:
    connection = UnixConnection(socket_of(broker))
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.getheader("content-type", ""), answer.read().decode()


def test_a_scrape_of_a_running_broker(broker: RunningBroker) -> None:
    """The endpoint, as Prometheus asks; the trees of real processes are in it."""
    with broker.client() as client:
        client.request("one", "tools/call", {"name": "echo", "arguments": {"text": "x"}})
        status, content_type, text = ask(broker, Accept="text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert (status, content_type.split(";")[0]) == (200, "text/plain")
    seen = samples(text)
    assert seen["mcp_broker_connections"] == {(): 1}
    assert seen["mcp_broker_calls_total"]["result", "one"] == 1
    assert seen["mcp_broker_server_processes"] == {("one",): 1}
    assert seen["mcp_broker_server_resident_bytes"]["one",] > 1_000_000
    assert seen["process_resident_memory_bytes"][()] > 10_000_000


def test_the_socket_has_the_mode_of_the_brokers_own(broker: RunningBroker) -> None:
    """Who may not use the broker may not look at it either."""
    assert stat.S_IMODE(os.stat(socket_of(broker)).st_mode) == 0o660


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 405), ("GET", "/metrics?x=1", 200)],
)
def test_nothing_else_is_there(broker: RunningBroker, method: str, path: str, status: int) -> None:
    """One path, read only."""
    assert ask(broker, method, path)[0] == status


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n\r\n",
        b"\x16\x03\x01nonsense\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 9000,
    ],
    ids=["nothing", "empty", "tls", "http09", "long"],
)
def test_what_is_no_http_gets_an_error_and_ends(broker: RunningBroker, sent: bytes) -> None:
    """Law 6: a head of 8 KiB at most; the connection is over at once, and the broker goes on."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(60)
        raw.connect(socket_of(broker))
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        answer = raw.recv(1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert ask(broker)[0] == 200


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTT", b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: "])
def test_who_asks_for_nothing_delays_nobody(broker: RunningBroker, said: bytes) -> None:
    """Law 6: few connections at once, each for a short time; the oldest makes room for the next."""
    silent = [socket.socket(socket.AF_UNIX) for _ in range(2 * metrics_http.MAX_CONNECTIONS)]
    for one in silent:
        one.settimeout(60)
        one.connect(socket_of(broker))
        one.sendall(said)
    began = time.monotonic()
    status, _, text = ask(broker)
    assert status == 200
    assert time.monotonic() - began < metrics_http.PATIENCE_S / 2
    assert samples(text)["mcp_broker_events_total"]["scrape-made-room",] >= metrics_http.MAX_CONNECTIONS
    for one in silent:
        with suppress(ConnectionResetError):
            assert one.recv(1) == b"", "their time is up, or their place was wanted"
        one.close()


def test_an_address_that_is_taken_is_an_error_with_its_key(broker: RunningBroker, tmp_path: Path) -> None:
    """Exit status 1, the key and the address; a live socket of somebody else's is left alone."""
    taken = {"metrics": f"unix:{socket_of(broker)}"}
    with (
        pytest.raises(AssertionError, match=r"broker\.metrics: .* something listens there already"),
        running({"one": rogue()}, broker=taken),
    ):
        pass
    assert ask(broker)[0] == 200


def test_a_loopback_port(tmp_path: Path) -> None:
    """The other form of the address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running({"one": rogue()}, broker={"metrics": f"127.0.0.1:{port}"}) as broker:
        broker.wait_log("metrics.listening")
        assert "mcp_broker_build_info" in curl(f"http://127.0.0.1:{port}/metrics")
        for host, status in HOSTS.items():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.putrequest("GET", "/metrics", skip_host=True)
            connection.putheader("Host", host)
            connection.endheaders()
            assert connection.getresponse().status == status, host
            connection.close()


HOSTS = {
    **dict.fromkeys(("127.0.0.1:9464", "127.0.0.1", "localhost:1", "LocalHost", "[::1]:9464"), 200),
    **dict.fromkeys(("evil.example", "evil.example:9464", "127.0.0.1.evil.example", "", "x@localhost"), 421),
    **dict.fromkeys(("localhost:9464:1", "[::1", "192.0.2.1", "localhost.", "127.1"), 421),
}
"""A page of the web whose name was pointed at this machine (DNS rebinding) names itself."""


def test_curl_reads_the_socket(broker: RunningBroker) -> None:
    """As docs/metrics.md has it."""
    text = curl("--unix-socket", socket_of(broker), "http://localhost/metrics")
    assert samples(text)["mcp_broker_servers"]["ready",] == 1


def curl(*arguments: str) -> str:
    """What curl prints."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    return subprocess.run(
        ["curl", "--silent", *arguments], check=True, text=True, stdout=subprocess.PIPE
    ).stdout


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9464", ":9464", "9464", "localhost:9464", "unix:relative", "[::]:1"]
)
def test_it_is_never_shown_to_the_network(address: str, tmp_path: Path) -> None:
    """Loopback or a Unix socket: the metrics have no password."""
    path = tmp_path / "broker.toml"
    path.write_text(toml({"broker": {"metrics": address}, "servers.one": {"command": "x"}}))
    with pytest.raises(ConfigError, match=r"broker\.metrics: this value does not fit; write a loopback port"):
        config_file.read(path, {})


def test_without_the_extra_the_config_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`prometheus-client` is optional; who asks for metrics without it gets the pip command."""
    path = tmp_path / "broker.toml"
    monkeypatch.setattr(
        config_file, "find_spec", lambda name: None if name == "prometheus_client" else object()
    )
    path.write_text(toml({"servers.one": {"command": "x"}}))
    assert config_file.read(path, {}).broker.metrics is None
    path.write_text(toml({"broker": {"metrics": "127.0.0.1:9464"}, "servers.one": {"command": "x"}}))
    with pytest.raises(
        ConfigError, match=r"no prometheus_client; run pip install 'mcp-shared-broker\[metrics\]'"
    ):
        config_file.read(path, {})
