"""What a hostile or broken client may try, and the laws that hold nevertheless (2 to 6, and 9)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import pytest
import trio
import zmq

from broker.config.loading import load
from broker.core.clients.flow_control import MAX_UNGREETED_BYTES
from broker.core.clients.throttle import AT_ONCE, EVERY_S
from broker.core.engine import Engine
from broker.frontend.address import ListenAddress
from broker.frontend.zmq.router import Router
from broker.hub import Hub
from broker.upstream.starts import lifecycle_of
from client_shim import BrokerClient, wire
from client_shim.wire import Code, Fault, Goodbye, Result
from tests.core.residue import residue
from tests.e2e.harness import PATIENCE_S, RunningBroker, rogue, running, wait_until
from tests.e2e.raw import Peers, RawPeer, process

KIB = 1024
LIMITS = {
    "max_message_bytes": 64 * KIB,
    "credit_bytes": 64 * KIB,
    "outbox_bytes": 64 * KIB,
    "calls_per_channel": 64,
    "connections": 250,
}
SERVERS = {"s": rogue(max_in_flight=8), "odd": rogue(allow_methods=['a"b\n\x01'])}
MESSAGE_BYTES = LIMITS["max_message_bytes"]
MEMORY_BYTES = 24 * KIB * KIB
"""What malloc and libzmq may keep beside what the limits allow."""
MESSAGES_OF_A_LOOK = 2 * 6
"""Two for each that a client sends and is sent which asks for the status."""


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """A broker with small limits."""
    with running(SERVERS, limits=LIMITS) as broker:
        yield broker


@pytest.fixture
def peers(broker: RunningBroker) -> Iterator[Peers]:
    """Raw peers, after whom the broker must be as it was."""
    with unharmed(broker):
        yield from closed(Peers(broker.endpoint))


def closed(peers: Peers) -> Iterator[Peers]:
    """The peers, closed at the end."""
    with closing(peers):
        yield peers


@contextmanager
def unharmed(broker: RunningBroker) -> Iterator[None]:
    """Whatever happens within, in the end the same processes serve, and nobody has left anything."""
    before, descriptors = broker.pids(), count_descriptors(broker)
    yield
    broker.wait(
        lambda status: (
            len(status["clients"]) == 1
            and not any(server["in_flight"] or server["queued"] for server in status["servers"])
        )
    )
    wait_until_given_back(broker, descriptors)
    assert broker.pids() == before
    for server in before:
        assert told(broker, "violations", server) == []


def wait_until_given_back(broker: RunningBroker, descriptors: int) -> None:
    """libzmq keeps a dead peer's descriptor until all is read that it had sent: as long as reading goes on,
    it is waited for."""
    read, moved_at = -1, time.monotonic()
    while count_descriptors(broker) > descriptors:
        if (now_read := frames_refused(broker)) != read:
            read, moved_at = now_read, time.monotonic()
        assert time.monotonic() < moved_at + PATIENCE_S, "descriptors are left"
        time.sleep(0.02)


def frames_refused(broker: RunningBroker) -> int:
    """How many messages the broker has read of those who are no good clients, or none any more."""
    counters = broker.status()["broker"]["counters"]
    return sum(times for name, times in counters.items() if name.startswith(("refused.", "late.")))


def count_descriptors(broker: RunningBroker) -> int:
    """How many the broker has open."""
    return len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))


def told(broker: RunningBroker, tool: str, server: str = "s") -> Any:
    """What an ordinary client gets from a tool of the server's, which is JSON."""
    with broker.client() as client:
        result = client.request(server, "tools/call", {"name": tool})
    return json.loads(result["content"][0]["text"])


def reached(broker: RunningBroker, server: str = "s") -> Counter[str]:
    """What has reached the server, by method; this question counts the next time."""
    return Counter(told(broker, "requests", server))


ONLY_ASKED = Counter({"tools/call": 1})


def refused(answer: tuple[wire.Message, bytes | None], code: Code) -> Fault:
    """The fault that this must be, with what happened and what to do."""
    fault, _ = answer
    assert isinstance(fault, Fault), fault
    assert fault.code == code.value, fault
    assert fault.message.isprintable()
    assert fault.message
    assert fault.data["hint"]
    assert fault.data["blame"] == "caller"
    return fault


# -- params ---------------------------------------------------------------------------------------------

ECHO = b'{"name":"echo","arguments":%b}'
HIDDEN = b'{"jsonrpc":"2.0","id":99,"method":"tools/call","params":{"name":"crash"}}'
PARAMS: dict[str, tuple[bytes, Code]] = {
    "NaN": (ECHO % b'{"x":NaN}', Code.INVALID_BODY),
    "Infinity": (ECHO % b'{"x":-Infinity}', Code.INVALID_BODY),
    "a lone surrogate": (ECHO % rb'{"x":"\ud800"}', Code.INVALID_BODY),
    "a lone surrogate as a key": (ECHO % rb'{"\udc00":1}', Code.INVALID_BODY),
    "a surrogate in UTF-8": (ECHO % b'{"x":"\xed\xa0\x80"}', Code.INVALID_BODY),
    "no UTF-8": (ECHO % b'{"x":"\xff"}', Code.INVALID_BODY),
    "a control character": (ECHO % b'{"x":"\0"}', Code.INVALID_BODY),
    "deep lists": (ECHO % (b"[" * 2000 + b"]" * 2000), Code.INVALID_BODY),
    "deep objects": (ECHO % (b'{"":' * 2000 + b"1" + b"}" * 2000), Code.INVALID_BODY),
    "a call behind a CR": (b'{"name":"x","arguments":[1,\r%b\r,2]}' % HIDDEN, Code.INVALID_BODY),
    "a call behind a LF": (b'{"name":"x","arguments":[1,\n%b\n,2]}' % HIDDEN, Code.INVALID_BODY),
    "a CR at the end": (ECHO % b"{}" + b"\r", Code.INVALID_BODY),
    "text after it": (ECHO % b"{}" + b" x", Code.INVALID_BODY),
    "two objects": (b'{"name":"echo"}{"name":"echo"}', Code.INVALID_BODY),
    "an array": (b'["echo"]', Code.INVALID_BODY),
    "nothing": (b"", Code.INVALID_BODY),
    "null": (b"null", Code.INVALID_BODY),
    "half of it": (ECHO % b"{" + b"", Code.INVALID_BODY),
    "a byte order mark": (b"\xef\xbb\xbf" + ECHO % b"{}", Code.INVALID_BODY),
    "_meta": (b'{"_meta":{},"name":"echo"}', Code.META_IN_BODY),
    "_meta, escaped": (rb'{"name":"echo","\u005f\u006deta":{"progressToken":1}}', Code.META_IN_BODY),
    "one byte too many": (b'{"name":"echo"}'.ljust(MESSAGE_BYTES + 1), Code.TOO_LARGE),
}


@pytest.mark.parametrize("name", PARAMS)
def test_bad_params_never_reach_the_server(broker: RunningBroker, peers: Peers, name: str) -> None:
    """Laws 2 and 7: params that are not one clean object end with a reason, and not a byte is written."""
    params, code = PARAMS[name]
    before = reached(broker)
    peer = peers.hello()
    request = peer.request("s")
    assert refused(peer.ask(request, params), code).id == request.id
    assert reached(broker) - before == ONLY_ASKED


METAS: dict[str, tuple[bytes, Code]] = {
    "bytes": (msgpack.packb({"a": b"\0"}), Code.INVALID_BODY),
    "a timestamp": (msgpack.packb({"a": msgpack.Timestamp(1)}), Code.INVALID_BODY),
    "NaN": (msgpack.packb({"a": float("nan")}), Code.INVALID_BODY),
    "a key of bytes": (msgpack.packb({b"a": 1}), Code.INVALID_BODY),
    "deep enough to pass msgpack": (b"\x81\xa1a" + b"\x91" * 900 + b"\xc0", Code.INVALID_BODY),
    "a key that is a number": (msgpack.packb({1: 1}), Code.MALFORMED),
    "deep": (b"\x81\xa1a" + b"\x91" * 10_000 + b"\xc0", Code.MALFORMED),
    "a list": (b"\x91\x01", Code.MALFORMED),
    "64 KiB": (msgpack.packb({"a": "x" * 64 * KIB}), Code.TOO_LARGE),
}


@pytest.mark.parametrize("name", METAS)
def test_bad_meta_never_reaches_the_server(broker: RunningBroker, peers: Peers, name: str) -> None:
    """Laws 2 and 7: a `_meta` that JSON cannot carry as it is ends the request, and nothing is guessed."""
    meta, code = METAS[name]
    before = reached(broker)
    peer = peers.hello()
    header = wire.encode(peer.request("s"))
    assert header.endswith(b"\xc0")
    peer.send(header[:-1] + meta, ECHO % b"{}")
    refused(peer.receive(), code)
    assert reached(broker) - before == ONLY_ASKED


@pytest.mark.parametrize("method", ["", 'a"b', "a\nb", '","id":1,"x":"', "\0", "‮", "x" * 60_000])
def test_a_strange_method_is_refused_in_plain_words(broker: RunningBroker, peers: Peers, method: str) -> None:
    """Law 10: what nobody knows is named in the fault, shortened and without control characters."""
    before = reached(broker)
    peer = peers.hello()
    fault = refused(peer.ask(peer.request("s", method), b"{}"), Code.UNKNOWN_METHOD)
    assert len(fault.message) < KIB
    assert reached(broker) - before == ONLY_ASKED


def test_an_allowed_method_is_encoded_and_never_pasted(broker: RunningBroker, peers: Peers) -> None:
    """A method with a quote and a line end is one method to the server, too."""
    peer = peers.hello()
    error, _ = peer.ask(peer.request("odd", 'a"b\n\x01'), b"{}")
    assert isinstance(error, wire.Error)
    assert reached(broker, "odd")['a"b\n\x01'] == 1


@pytest.mark.parametrize(
    ("size", "code"), [(60 * KIB, Code.UNKNOWN_SERVER), (100 * KIB, Code.TOO_LARGE), (KIB * KIB, None)]
)
def test_a_long_service_name_is_refused_or_cut_off(peers: Peers, size: int, code: Code | None) -> None:
    """Law 6: a header has a limit, and the transport one above it."""
    peer = peers.hello()
    header = msgpack.packb([1, int(wire.Kind.REQUEST), *peer.request("x" * size)])
    peer.send(header)
    if code is None:
        assert peer.is_cut_off()
    else:
        assert len(refused(peer.receive(), code).message) < KIB


# -- frames ---------------------------------------------------------------------------------------------


def frame(*fields: Any) -> bytes:
    """A header of this version, of whatever there is."""
    return bytes(msgpack.packb([wire.VERSION, *fields]))


DEEP = b"\x91" * 1000 + b"\xc0"
GOODBYE = wire.encode(wire.Goodbye(0, 0, ""))
FRAMES: dict[str, tuple[list[bytes], Code]] = {
    "nothing": ([b""], Code.MALFORMED),
    "no msgpack": ([b"\xc1"], Code.MALFORMED),
    "text": ([b"GET / HTTP/1.1\r\n"], Code.MALFORMED),
    "half of a frame": ([GOODBYE[:-1]], Code.MALFORMED),
    "more than a frame": ([GOODBYE + b"\0"], Code.MALFORMED),
    "a map": ([msgpack.packb({})], Code.MALFORMED),
    "three fields": ([frame(12, 0)], Code.MALFORMED),
    "a length that is not there": ([b"\xdd\xff\xff\xff\xff"], Code.MALFORMED),
    "another version": ([msgpack.packb([2, 12, 0, 0, ""])], Code.WIRE_VERSION),
    "a version that is deep": ([b"\x95" + DEEP + b"\x0c\0\0\xa0"], Code.WIRE_VERSION),
    "a version that is long": ([msgpack.packb(["\1" * 60_000, 12, 0, 0, ""])], Code.WIRE_VERSION),
    "no kind": ([frame(13, 0, 0)], Code.UNKNOWN_KIND),
    "a kind that is true": ([frame(True, 0, 0)], Code.UNKNOWN_KIND),
    "a kind that is deep": ([b"\x95\x01" + DEEP + b"\0\0\xa0"], Code.UNKNOWN_KIND),
    "an id below 0": ([frame(12, 0, -1, "")], Code.MALFORMED),
    "an id of 64 bits": ([frame(12, 0, 2**63, "")], Code.MALFORMED),
    "a channel that is text": ([frame(12, "0", 0, "")], Code.MALFORMED),
    "a field too few": ([frame(12, 0, 0)], Code.MALFORMED),
    "a field too many": ([frame(12, 0, 0, "", 1, 1)], Code.MALFORMED),
    "a field of another type": ([frame(9, 0, 0, "1")], Code.MALFORMED),
    "a goodbye with a body": ([GOODBYE, b"{}"], Code.MALFORMED),
    "a hello with a body": ([frame(1, 0, 0, [1], {}), b""], Code.MALFORMED),
    "an answer without a body": ([frame(11, 1, 1, True)], Code.MALFORMED),
    "three frames": ([GOODBYE, b"{}", b"{}"], Code.MALFORMED),
    "10,000 frames": ([GOODBYE] * 10_000, Code.MALFORMED),
    "a header above its limit": ([frame(12, 0, 0, "x" * 64 * KIB)], Code.TOO_LARGE),
}


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize("name", FRAMES)
def test_a_bad_frame_is_refused(broker: RunningBroker, peers: Peers, name: str, greeted: bool) -> None:
    """Law 9: what is no message is answered, counted and logged, and the connection goes on."""
    frames, code = FRAMES[name]
    counted, logged = broker.counter(f"refused.{code.value}"), broker.log().count("frame.refused")
    peer = peers.hello() if greeted else peers.connect()
    peer.send(*frames)
    if not greeted and sum(map(len, frames[:2])) > MAX_UNGREETED_BYTES - wire.MESSAGE_OVERHEAD_BYTES:
        assert peer.is_cut_off()  # see below
        return
    assert len(refused(peer.receive(), code).message) < KIB
    assert broker.counter(f"refused.{code.value}") == counted + 1
    assert broker.log().count("frame.refused") == logged + 1
    peer.ping() if greeted else peer.hello()


FROM_A_BROKER: list[tuple[wire.Message, bytes | None]] = [
    (wire.Welcome(0, 0, "", "", {}), None),
    (wire.Result(1, 1), b"{}"),
    (wire.Error(1, 1), b"{}"),
    (wire.Fault(1, 1, "", "", {}), None),
    (wire.Notification(1, 0, "s", "notifications/progress"), b"{}"),
    (wire.Question(1, 1, 1, "s", "ping"), b"{}"),
]


@pytest.mark.parametrize(("message", "body"), FROM_A_BROKER, ids=lambda it: type(it).__name__)
def test_only_a_client_s_kinds_are_taken(peers: Peers, message: wire.Message, body: bytes | None) -> None:
    """What only a broker may say is refused, before hello for that."""
    peer = peers.connect()
    refused(peer.ask(message, body), Code.HELLO_FIRST)
    refused(peer.hello().ask(message, body), Code.METHOD_REFUSED)


def test_an_answer_to_no_question_is_late(peers: Peers, broker: RunningBroker) -> None:
    """It is counted, and nothing comes back (law 9)."""
    late = broker.counter("late.answer")
    peer = peers.connect().hello()
    peer.send(wire.encode(wire.Answer(1, 1, True)), b"{}")
    peer.ping()
    assert broker.counter("late.answer") == late + 1


def test_hello_comes_first_and_once(peers: Peers) -> None:
    """A request before hello is refused, as is a second hello; neither ends the connection."""
    peer = peers.connect()
    refused(peer.ask(peer.request("s", "ping")), Code.HELLO_FIRST)
    refused(peer.hello().ask(wire.Hello(0, 0, [1], {})), Code.METHOD_REFUSED)
    peer.ping()


@pytest.mark.parametrize("versions", [b"\x90", b"\x91\x02", b"\x93\x00\xa1x\xc2", b"\x91" + DEEP])
def test_a_hello_of_another_version_is_refused(peers: Peers, versions: bytes) -> None:
    """Law 10: it says which version it is that the broker speaks, whatever the other end does."""
    peer = peers.connect()
    peer.send(b"\x96\x01\x01\0\0" + versions + b"\x80")
    assert str(wire.VERSION) in refused(peer.receive(), Code.WIRE_VERSION).message
    peer.hello()


def test_who_is_welcome_after_a_refusal_is_known_all_the_same(broker: RunningBroker, peers: Peers) -> None:
    """Section 3: a connection has the kernel's credentials, whatever its first message was."""
    peer = peers.connect()
    refused(peer.ask(wire.Hello(0, 0, [99], {})), Code.WIRE_VERSION)
    peer.hello()
    seen = [client for client in broker.status()["clients"] if client["name"] == "raw"]
    assert {(client["pid"], client["uid"]) for client in seen} == {(os.getpid(), os.getuid())}


def test_requests_that_are_none(peers: Peers) -> None:
    """Id 0, channel 0 and another instance are refused, with the id where there is one."""
    peer = peers.hello()
    refused(peer.ask(peer.request("s", id=0)), Code.MALFORMED)
    refused(peer.ask(peer.request("s", channel=0)), Code.MALFORMED)
    fault = refused(peer.ask(peer.request("s", id=7, instance="earlier")), Code.WRONG_INSTANCE)
    assert fault.id == 7


def test_no_frame_ends_an_open_request_but_its_own_ending(peers: Peers) -> None:
    """Law 2: a duplicate, or a bad frame with the id of an open request, is not an ending of that one."""
    peer = peers.hello()
    peer.call("s", b'{"name":"hang"}', id=7)
    assert refused(peer.ask(peer.request("s", id=7), b"{}"), Code.DUPLICATE_ID).id == 0
    assert refused(peer.ask(wire.Result(1, 7), b"{}"), Code.METHOD_REFUSED).id == 0
    assert refused(peer.ask(wire.Cancel(1, 7, None), b"{}"), Code.MALFORMED).id == 0
    assert refused(peer.ask(wire.Cancel(1, 7, None)), Code.CANCELLED).id == 7
    assert isinstance(peer.ask(peer.request("s", id=7), b'{"name":"empty"}')[0], Result)


def test_what_is_about_nothing_is_counted(broker: RunningBroker, peers: Peers) -> None:
    """Law 9: a cancel of no request and a goodbye of no channel need no answer; lies about credit get one."""
    late = broker.counter("late.cancel")
    peer = peers.hello()
    peer.say(wire.Cancel(1, 99, "no such request"))
    peer.say(wire.Goodbye(99, 0, "no such channel"))
    peer.say(wire.Credit(0, 0, 0))
    peer.ping()
    assert broker.counter("late.cancel") == late + 1
    for lie in (2**62, -1):
        refused(peer.ask(wire.Credit(0, 0, lie)), Code.MALFORMED)
    peer.ping()


def test_a_routing_id_is_not_for_clients_to_choose(peers: Peers) -> None:
    """Law 3: who chooses what the ROUTER calls it could choose what it called another."""
    peer = peers.connect(routing_id=b"chosen")
    refused(peer.ask(wire.Hello(0, 0, [1], {})), Code.MALFORMED)


def test_what_is_above_the_transport_s_limit_is_cut_off(broker: RunningBroker, peers: Peers) -> None:
    """Law 6: a frame of more than twice the limit is not even read."""
    peer = peers.hello()
    peer.send(wire.encode(peer.request("s")), bytes(2 * MESSAGE_BYTES + 1))
    assert peer.is_cut_off()


def test_who_sends_much_before_its_hello_is_cut_off(broker: RunningBroker, peers: Peers) -> None:
    """Laws 6 and 9: 60 MiB of a stranger were taken in, and refused one by one."""
    cut = broker.counter("closed.ungreeted")
    peer = peers.connect()
    for _ in range(100):
        peer.send(bytes(MESSAGE_BYTES))
    assert peer.is_cut_off()
    assert broker.counter("closed.ungreeted") == cut + 1


def test_who_sends_more_than_its_credit_is_cut_off(broker: RunningBroker, peers: Peers) -> None:
    """Laws 6 and 9: 150 requests of 31 MiB took 3.77 GiB, which stayed."""
    cut = broker.counter("closed.overdrawn")
    peer = peers.hello()
    peer.flood([wire.encode(peer.request("s")), bytes(MESSAGE_BYTES + 1)] for _ in range(1000))
    assert peer.is_cut_off()
    assert broker.counter("closed.overdrawn") == cut + 1


def test_who_waits_for_credit_may_send_as_much_as_it_likes(broker: RunningBroker) -> None:
    """Law 2: every call of a client that has far more to send than its window is answered."""
    words = "x" * (MESSAGE_BYTES - KIB)

    async def main() -> list[Any]:
        async with BrokerClient("large", endpoint=broker.endpoint) as client:
            calls = [client.request("s", "ping", {"words": words}, timeout=PATIENCE_S) for _ in range(50)]
            return await asyncio.gather(*calls)

    cut = broker.counter("closed.overdrawn")
    assert asyncio.run(main()) == [{}] * 50
    assert broker.counter("closed.overdrawn") == cut


# -- fuzz -----------------------------------------------------------------------------------------------


def mutated(dice: random.Random, data: bytes) -> bytes:
    """The same with a few bytes changed, lost, doubled or put in."""
    mutant = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(mutant) + 1)
        end = at + dice.choice((0, 1, 1, 1, 2, 8))
        mutant[at:end] = dice.choice((b"", dice.randbytes(1), dice.randbytes(4), mutant[at:end] * 2))
    return bytes(mutant)


def valid(peer: RawPeer) -> list[list[bytes]]:
    """Messages that a client may send."""
    echo = peer.request("s", timeout_ms=1000, flags=wire.WANTS_PROGRESS, meta={"progressToken": "t"})
    return [
        [wire.encode(wire.Hello(0, 0, [1], {"name": "fuzz", "pid": 1}))],
        [wire.encode(echo), ECHO % '{"x":["é",1.5e3,true,null,"\\u00e9\\n"]}'.encode()],
        [wire.encode(peer.request("s", "ping")), b" { } "],
        [wire.encode(peer.request("$broker", "ping"))],
        [wire.encode(wire.Cancel(1, 1, "why"))],
        [wire.encode(wire.Credit(0, 0, 100))],
        [wire.encode(wire.Answer(1, 1, True)), b"{}"],
        [wire.encode(wire.Goodbye(0, 0, "bye"))],
    ]


def garbage(dice: random.Random, peer: RawPeer) -> list[bytes]:
    """Frames of noise."""
    return [dice.randbytes(dice.choice((0, 1, 3, 20, 300))) for _ in range(dice.choice((1, 1, 2, 3)))]


def mutants(dice: random.Random, peer: RawPeer) -> list[bytes]:
    """A valid message, one of whose frames is not any more what it was."""
    frames = dice.choice(valid(peer))
    spoiled = dice.randrange(len(frames))
    return [mutated(dice, frame) if n == spoiled else frame for n, frame in enumerate(frames)]


@pytest.mark.parametrize("make", [garbage, mutants])
@pytest.mark.parametrize("seed", range(4))
def test_noise_harms_nobody(broker: RunningBroker, peers: Peers, make: Any, seed: int) -> None:
    """Laws 2, 5 and 9: nothing that four peers make up ends the broker, or reaches a server broken."""
    dice = random.Random(seed)
    some = [peers.hello(), peers.hello(), peers.hello(), peers.connect()]
    some[3].instance = some[0].instance
    for number in range(500):
        peer = some[number % 4]
        peer.send(*make(dice, peer))
        for _ in peer.waiting():
            peer.give_credit()
    for peer in some:  # whatever has become of it, this is answered
        peer.send(frame(99, 0, 4321))
        while (answer := peer.receive()[0]).id != 4321:
            pass
        refused((answer, None), Code.UNKNOWN_KIND)


# -- floods ---------------------------------------------------------------------------------------------


def flood(peer: RawPeer, kind: str) -> Iterator[list[bytes]]:
    """20,000 messages, of which none need be answered before the next."""
    for number in range(20_000):
        if kind == "requests":
            yield [wire.encode(peer.request("s")), b'{"name":"hang"}']
        else:
            yield [wire.encode(wire.Notification(1, 0, "s", f"notifications/{number}")), b"{}"]


@pytest.mark.parametrize("kind", ["requests", "notifications"])
def test_who_floods_and_does_not_read_is_cut_off(broker: RunningBroker, peers: Peers, kind: str) -> None:
    """Law 6: a flooder is told which limit, is held to its credit, and is cut off when it does not read."""
    counted, memory = broker.counter("closed.credit"), broker.status()["broker"]["rss_bytes"]
    for _ in range(4):
        peer = peers.hello()
        peer.read_bytes = 0
        peer.flood(flood(peer, kind))
        assert peer.is_cut_off()
        answers = [answer for answer in peer.waiting() if not isinstance(answer[0], wire.Goodbye)]
        limits = {refused(answer, Code.BUSY).data["limit"] for answer in answers if kind == "requests"}
        assert limits <= {"calls_per_channel"}
        assert len(answers) > 50
        assert peer.read_bytes <= LIMITS["credit_bytes"] + KIB
    status = broker.wait(lambda status: count(status, "closed.credit") == counted + 4)
    assert broker.log().count("client.closed client=raw") >= 4
    assert "reason=credit" in broker.log()
    assert status["broker"]["rss_bytes"] - memory < 4 * (2 * LIMITS["outbox_bytes"]) + MEMORY_BYTES


def test_others_are_served_during_a_flood(broker: RunningBroker, peers: Peers) -> None:
    """Law 5: while one client calls as fast as it can, each call of another one is answered."""
    with process(broker.endpoint, "flood", 200), broker.client() as client:
        start = broker.wait(lambda status: count(status, "refused.busy") > 0)
        for number in range(100):
            arguments = {"name": "echo", "arguments": {"number": number}}
            result = client.request("s", "tools/call", arguments)
            assert json.loads(result["content"][0]["text"]) == {"number": number}
        broker.wait(lambda status: calls_of("raw", status) > calls_of("raw", start) + 2_000)


def test_who_is_refused_without_an_end_is_slowed(broker: RunningBroker, peers: Peers) -> None:
    """Law 5: beyond a burst a refusal has its pace, whatever the client does; a slow machine is below it."""
    with process(broker.endpoint, "flood", 200):
        before = broker.wait(lambda status: count(status, "slowed") > 0)
        begin = time.monotonic() - AT_ONCE * EVERY_S  # what it owes may be as much as that
        asked = itertools.count(1)
        after = broker.wait(lambda status: next(asked) == 20)
        refusals = count(after, "refused.busy") - count(before, "refused.busy")
        # Each message of another client may let one come of it, or two.
        assert refusals <= (time.monotonic() - begin) / EVERY_S + 20 * MESSAGES_OF_A_LOOK
    assert broker.log().count("client.slowed client=raw") == count(after, "slowed")


def test_who_dies_while_it_is_slowed_is_missed(broker: RunningBroker, peers: Peers) -> None:
    """Law 4: who waits is missed too, although libzmq tells of a loss only when all is read that was sent."""
    before = broker.status()
    with process(broker.endpoint, "cancels", 100_000):
        broker.wait(lambda status: count(status, "slowed") > count(before, "slowed"))
    broker.wait(lambda status: len(status["clients"]) == 1)


def count(status: dict[str, Any], name: str) -> int:
    """How often something has been counted."""
    return int(status["broker"]["counters"].get(name, 0))


def calls_of(name: str, status: dict[str, Any]) -> int:
    """How many requests a client has made."""
    return sum(client["calls"] for client in status["clients"] if client["name"] == name)


def test_a_connection_cannot_keep_the_others_from_asking_the_broker(
    broker: RunningBroker, peers: Peers
) -> None:
    """Law 5: the limit on management requests is per connection before it is one for all.

    A fast broker throttles the connection, or cuts it off, before it meets that limit.
    """
    greedy, slowed = peers.hello(), broker.counter("slowed")
    greedy.socket.setsockopt(zmq.SNDTIMEO, 1000)
    with broker.client() as client:
        for _ in range(100):
            with suppress(zmq.Again):
                for _ in range(100):
                    greedy.call(wire.MANAGEMENT, None, "status")
            assert "servers" in client.request(wire.MANAGEMENT, "servers")
            is_refused = any(isinstance(answer, (Fault, Goodbye)) for answer, _ in greedy.waiting())
            if is_refused or broker.counter("slowed") > slowed:
                return
    raise AssertionError("the limit was never met")


def test_a_broker_ends_in_order_during_a_flood() -> None:
    """Law 5: no client can keep the broker from ending, nor its servers from being ended."""
    with running(SERVERS, limits=LIMITS) as broker, process(broker.endpoint, "flood", 200):
        broker.wait(lambda status: count(status, "refused.busy") > 0)
        assert broker.stop() == 0


# -- clients that stop or die -----------------------------------------------------------------------------


@pytest.mark.parametrize("last", [signal.SIGCONT, signal.SIGKILL])
def test_who_stops_under_results_is_cut_off(
    broker: RunningBroker, peers: Peers, last: signal.Signals
) -> None:
    """Laws 4 and 6: results that nobody reads are held up to the credit and the outbox, and no further."""
    counted, memory = broker.counter("closed.credit"), broker.status()["broker"]["rss_bytes"]
    with process(broker.endpoint, "results", 60) as child:
        broker.wait(lambda status: calls_of("raw", status) > 8 or count(status, "closed.credit") > counted)
        child.send_signal(signal.SIGSTOP)
        status = broker.wait(lambda status: count(status, "closed.credit") > counted)
        assert status["broker"]["rss_bytes"] - memory < 2 * LIMITS["outbox_bytes"] + MEMORY_BYTES
        broker.wait(lambda status: not calls_of("raw", status))
        child.send_signal(last)


@pytest.mark.parametrize("last", [signal.SIGCONT, signal.SIGKILL])
def test_who_stops_under_progress_holds_nobody_up(
    broker: RunningBroker, peers: Peers, last: signal.Signals
) -> None:
    """Laws 4 to 6: of progress that nobody reads the latest is kept, and the others are served meanwhile."""
    memory, cancelled = broker.status()["broker"]["rss_bytes"], len(told(broker, "cancelled"))
    with process(broker.endpoint, "steps", 4) as child:
        broker.wait(lambda status: calls_of("raw", status) == 4)
        child.send_signal(signal.SIGSTOP)
        for _ in range(50):
            told(broker, "requests")
        assert broker.status()["broker"]["rss_bytes"] - memory < 2 * LIMITS["outbox_bytes"] + MEMORY_BYTES
        assert broker.server("s")["in_flight"] == 4
        child.send_signal(last)
    wait_until(lambda: len(told(broker, "cancelled")) == cancelled + 4)


def test_the_calls_of_a_killed_client_are_cancelled(broker: RunningBroker, peers: Peers) -> None:
    """Law 4: what it had at the server is cancelled there, what waited never gets there."""
    before, cancelled = reached(broker), told(broker, "cancelled")
    with process(broker.endpoint, "hang", 40) as child:
        status = broker.status()
        server = next(server for server in status["servers"] if server["name"] == "s")
        assert (server["in_flight"], server["queued"]) == (8, 32)
        child.kill()
        broker.wait(lambda status: not any(s["in_flight"] or s["queued"] for s in status["servers"]))
    wait_until(lambda: len(told(broker, "cancelled")) == len(cancelled) + 8)
    assert len(set(told(broker, "cancelled"))) == len(cancelled) + 8
    asked = broker.counter("closed.goodbye")
    assert asked
    assert (reached(broker) - before)["notifications/cancelled"] == 8


@pytest.mark.timeout(300)  # a hundred thousand frames are read to the last, by as fast a machine as it is
def test_who_dies_in_a_flood_takes_nobody_along(broker: RunningBroker, peers: Peers) -> None:
    """Law 5: libzmq aborts when a heartbeat is due to a peer that died while nothing more was read of it."""
    refused = broker.counter("refused.malformed-frame")
    with process(broker.endpoint, "noise", 100):
        broker.wait(lambda status: count(status, "refused.malformed-frame") > refused + 1000)


def test_two_hundred_that_vanish_leave_nothing(broker: RunningBroker, peers: Peers) -> None:
    """Law 4: killed or closed, before hello or after it, each gives back its session and its descriptor."""
    with ExitStack() as children:
        for role in ("silent", "idle"):
            children.enter_context(process(broker.endpoint, role, 50))
        mine = [peers.connect() for _ in range(50)] + [peers.hello() for _ in range(50)]
        broker.wait(lambda status: status["broker"]["clients"] == 50 + 50 + 1)
        wait_until(lambda: count_descriptors(broker) >= 200)
    for peer in mine:
        peer.close()
    broker.wait(lambda status: status["broker"]["clients"] == 1)


def test_hundreds_that_vanish_at_once_take_nobody_along(broker: RunningBroker, peers: Peers) -> None:
    """Laws 4 and 5: the end of each is seen while that of another is being dealt with."""
    mine = peers.hello()
    with process(broker.endpoint, "idle", 230):
        broker.wait(lambda status: status["broker"]["clients"] == 230 + 1 + 1)
    broker.wait(lambda status: status["broker"]["clients"] == 1 + 1)
    mine.ping()


def test_a_hello_of_who_is_gone_already_opens_no_session(broker: RunningBroker, peers: Peers) -> None:
    """Law 4: libzmq hands out what the dead have sent after it has told of their death."""
    for _ in range(300):
        peer = peers.connect()
        peer.say(wire.Hello(0, 0, [1], {"name": "raw"}))
        peer.socket.poll(1)
        peer.close()
    broker.wait(lambda status: status["broker"]["clients"] == 1)


def test_the_endpoint_keeps_nothing_of_who_is_gone() -> None:
    """Laws 4 and 6: of a connection, with or without hello or goodbye, no row is left in the endpoint."""
    config = load({"servers": {"s": {"command": "none", "enabled": False}}}, {})
    engine = Engine(config, {"s": lifecycle_of(config.servers["s"])}, instance="i", version="v")
    hub = Hub(engine)

    def come_and_go(address: str) -> None:
        with closing(Peers(address)) as peers:
            for _ in range(20):
                refused(peers.connect().ask(wire.Cancel(1, 1, None), b""), Code.MALFORMED)
                peers.hello()
                peers.hello().say(wire.Goodbye(0, 0, "done"))

    async def main(address: str) -> None:
        endpoint = Router(config.limits, hub, [ListenAddress(address)])
        hub.attach(endpoint, lambda request: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.run)
            await trio.to_thread.run_sync(come_and_go, address)
            with trio.fail_after(PATIENCE_S):
                while len(endpoint._descriptors):
                    await trio.sleep(0.01)
            assert not residue(endpoint._descriptors)
            assert not len(engine.connections)
            nursery.cancel_scope.cancel()
        endpoint.close()

    with TemporaryDirectory(prefix="mb-") as folder:
        trio.run(main, f"ipc://{folder}/b.sock")


def test_what_is_sent_to_the_dead_lets_nothing_lie(peers: Peers) -> None:
    """Law 5: a send that fails takes the edge of the ROUTER's descriptor; what came in then is not lost."""
    dice, living = random.Random(0), peers.hello()
    steps = b'{"name":"progress","arguments":{"steps":40,"delay":0.0002}}'
    for _ in range(200):
        dying = [peers.hello() for _ in range(2)]
        for peer in dying:
            for _ in range(4):
                peer.call("s", steps, flags=wire.WANTS_PROGRESS)
        for _ in range(dice.randrange(6)):
            living.ping()
        for peer in dying:
            peer.close()
            living.ping()
            living.ping()


def test_the_dead_do_not_take_the_living_with_them(broker: RunningBroker, peers: Peers) -> None:
    """Law 5: what the dead have sent is read when their descriptors are those of others already."""
    for _ in range(4):
        dying = [peers.hello() for _ in range(20)]
        for _, peer in itertools.product(range(60), dying):
            peer.call("s", None, "ping")
        for peer in dying:
            peer.close()
        born = [peers.connect() for _ in range(20)]
        for peer in born:
            peer.instance = dying[0].instance
            peer.say(wire.Hello(0, 0, [1], {}))
            peer.call("s", None, "ping")
        for peer in born:
            assert isinstance(peer.receive()[0], wire.Welcome)
            assert isinstance(peer.receive()[0], Result)
            peer.ping()


def test_connections_have_a_limit_even_without_hello() -> None:
    """Laws 5 and 6: libzmq would abort without descriptors; so some are turned away, and the rest served."""
    with running(SERVERS, limits={**LIMITS, "connections": 10}) as broker, unharmed(broker):
        with broker.client() as client, closing(Peers(broker.endpoint)) as peers:
            greeted = [peers.hello() for _ in range(9)]
            refused(peers.connect().ask(wire.Hello(0, 0, [1], {})), Code.BUSY)
            silent = [peers.connect() for _ in range(30)]

            def turned_away() -> int:
                return count(client.request(wire.MANAGEMENT, "status"), "turned-away")

            wait_until(lambda: turned_away() == 1 + 9 + 1 + 30 - 2 * 10)
            wait_until(lambda: sum(peer.is_cut_off(0) for peer in silent) == 21)
            for peer in greeted:
                peer.ping()
        assert "connection.turned_away" in broker.log()


# -- below ZeroMQ -----------------------------------------------------------------------------------------

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\0NULL".ljust(24, b"\0") + bytes(31)
"""Of ZMTP 3.0: signature, version, mechanism, as-server, filler."""

NOISES = {
    "nothing": b"",
    "noise": random.Random(1).randbytes(4096),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half a greeting": GREETING[:20],
    "a greeting and noise": GREETING + random.Random(2).randbytes(4096),
    "a command of 2**63 bytes": GREETING + b"\x06\x7f" + b"\xff" * 7,
    "another kind of socket": GREETING + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB",
    "a message before READY": GREETING + b"\0\x01x",
    "an old version": b"\x01\0" + b"\x02\0\xc1" * 100,
}


def command(name: bytes, data: bytes) -> bytes:
    """A command frame of ZMTP 3."""
    return bytes([4, 1 + len(name) + len(data), len(name)]) + name + data


def test_who_falls_silent_loses_the_lease_it_asked_for(broker: RunningBroker, peers: Peers) -> None:
    """Law 4: a client that is stopped or unplugged ends by the time that its last heartbeat gave."""
    lost = broker.counter("closed.lost")
    hello = wire.encode(wire.Hello(0, 0, [wire.VERSION], {"name": "silent"}))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(PATIENCE_S)
        silent.connect(broker.endpoint.removeprefix("ipc://"))
        silent.sendall(GREETING + command(b"READY", b"\x0bSocket-Type\0\0\0\x06DEALER"))
        greeted = b""
        while b"READY" not in greeted:  # what comes before it is taken for a part of the handshake
            greeted += silent.recv(4096)
        silent.sendall(bytes([0, len(hello)]) + hello)
        broker.wait_log("client.connected client=silent")
        silent.sendall(command(b"PING", b"\0\1"))  # for a tenth of a second
        broker.wait(lambda status: count(status, "closed.lost") > lost)


@pytest.mark.parametrize("name", NOISES)
def test_noise_on_the_socket_harms_nobody(broker: RunningBroker, peers: Peers, name: str) -> None:
    """Law 5: what is no ZeroMQ, or stops in the middle of it, is nobody else's affair."""
    connections = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    for number, connection in enumerate(connections):
        connection.connect(broker.endpoint.removeprefix("ipc://"))
        # libzmq reads no second peer of ZMTP 1 with the same name, and sees no end behind RECEIVE_HWM.
        connection.sendall(random.Random(number).randbytes(4096) if name == "noise" else NOISES[name])
    peers.hello().ping()
    for connection in connections:
        connection.close()


def test_who_greets_a_byte_at_a_time_holds_nobody_up(broker: RunningBroker, peers: Peers) -> None:
    """Law 5: between any two bytes of a slow greeting another client is served."""
    other = peers.hello()
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(broker.endpoint.removeprefix("ipc://"))
        for byte in GREETING:
            slow.send(bytes([byte]))
            other.ping()
