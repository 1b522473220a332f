"""Which method goes where: complete for both revisions of the specification."""

from __future__ import annotations

import pytest

from broker.core.mcp.methods import LEGACY_VERSIONS, METHODS, MODERN_VERSION, Era, Route, rule_for
from broker.core.servers.catalogue import LISTS

# The members of `ClientRequest` in the specification's schema.ts, revision 2025-11-25.
LEGACY = [
    "ping",
    "initialize",
    "completion/complete",
    "logging/setLevel",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "tools/call",
    "tools/list",
    "tasks/get",
    "tasks/result",
    "tasks/list",
    "tasks/cancel",
]

# The same of revision 2026-07-28.
MODERN = [
    "server/discover",
    "completion/complete",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "subscriptions/listen",
    "tools/call",
    "tools/list",
]

SPECIFIED = {Era.LEGACY: LEGACY, Era.MODERN: MODERN}
PASSED_ON = {"tools/call", "resources/read", "prompts/get", "completion/complete"}


@pytest.mark.parametrize(
    ("era", "method"), [(era, method) for era, methods in SPECIFIED.items() for method in methods]
)
def test_every_method_of_the_specification_has_a_rule(era: Era, method: str) -> None:
    """Section 2: nothing that a client may say by the specification is unheard of."""
    assert rule_for(method, era, ()) is not None


@pytest.mark.parametrize("method", sorted({*LEGACY, *MODERN}))
def test_every_method_has_a_rule_in_the_other_era_too(method: str) -> None:
    """Law 10: what a revision removed or added is said to be so, rather than unknown."""
    assert all(rule_for(method, era, ()) is not None for era in Era)


@pytest.mark.parametrize("era", list(Era))
def test_only_what_changes_nothing_for_others_is_passed_on(era: Era) -> None:
    """Law 3: a method with an effect on the whole session of a shared server is not passed on."""
    passed = {method for method, rule in METHODS[era].items() if rule.route is Route.SERVER}
    assert passed == PASSED_ON


@pytest.mark.parametrize("era", list(Era))
def test_lists_come_from_the_catalogue(era: Era) -> None:
    """Section 2: what is read once is answered from memory."""
    listed = {method for method, rule in METHODS[era].items() if rule.route is Route.CATALOGUE}
    assert listed == {*LISTS, "server/discover"}


@pytest.mark.parametrize("era", list(Era))
def test_a_refused_method_says_why(era: Era) -> None:
    """Law 10: each refusal has its reason, and what is passed on has none."""
    for rule in METHODS[era].values():
        assert (len(rule.why) > 20) is (rule.route is Route.NOBODY)


def test_ping_is_gone_with_the_new_revision() -> None:
    """Section 5: `ping`, `initialize`, `logging/setLevel` and `resources/subscribe` went with 2026-07-28."""
    for method in ("ping", "initialize", "logging/setLevel", "resources/subscribe"):
        rule = rule_for(method, Era.MODERN, ())
        assert rule is not None
        assert rule.route is Route.NOBODY
        assert MODERN_VERSION in rule.why


@pytest.mark.parametrize("era", list(Era))
def test_another_method_needs_the_config_to_allow_it(era: Era) -> None:
    """Law 8: the broker does not guess that a method it does not know is harmless."""
    assert rule_for("x/y", era, ()) is None
    allowed = rule_for("x/y", era, ("x/y",))
    assert allowed is not None
    assert allowed.route is Route.SERVER


@pytest.mark.parametrize("era", list(Era))
def test_what_is_refused_stays_refused_when_it_is_allowed(era: Era) -> None:
    """Law 3: `allow_methods` adds methods; it does not open what would mix clients up."""
    for method in ("initialize", "resources/subscribe", "tasks/get", "logging/setLevel"):
        rule = rule_for(method, era, (method,))
        assert rule is not None
        assert rule.route is Route.NOBODY


@pytest.mark.parametrize("method", ["notifications/cancelled", "notifications/initialized"])
def test_a_notification_is_no_request_even_if_it_is_allowed(method: str) -> None:
    """Law 2: it would never be answered."""
    assert rule_for(method, Era.LEGACY, (method,)) is None


def test_the_versions_are_those_of_the_specification() -> None:
    """Section 5: the newest handshake revision first; it is the one that is offered."""
    assert MODERN_VERSION == "2026-07-28"
    assert LEGACY_VERSIONS == ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
