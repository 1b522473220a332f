"""Which errors of an attempt to connect a call waits out, and which it raises at once (law 10)."""

from __future__ import annotations

import pytest

from client_shim import errors
from client_shim.protocol.reasons import is_hopeless


@pytest.mark.parametrize(
    ("kind", "at_first", "later"),
    [
        (errors.NoBroker, False, False),
        (errors.BrokerSilent, False, False),
        (errors.NotAllowed, True, False),  # a process keeps its groups; but a new socket opens in two steps
        (errors.WrongWireVersion, True, True),
        (errors.InvalidEndpoint, True, True),
        (errors.NotABroker, True, True),
        (errors.KeyMissing, True, True),
        (errors.KeyRefused, True, True),  # the broker has said so: the key was revoked
        (errors.InvalidKeys, True, False),  # the file may be about to be replaced
        (errors.WrongBrokerKey, True, False),
    ],
)
def test_only_what_may_pass_is_waited_out(
    kind: type[errors.Unavailable], at_first: bool, later: bool
) -> None:
    error = kind("what happened", hint="what to do")
    assert is_hopeless(error, was_reached=False) is at_first
    assert is_hopeless(error, was_reached=True) is later
