"""What clients have set in their sessions is kept, in bounds, and what is not kept is not silently lost."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.http import session_preferences
from broker.gateway.http.session_ids import SealedSession
from broker.gateway.http.session_preferences import LARGEST_BYTES, KeptPreferences
from broker.gateway.http.state import PREFERENCES, StateFolder

DAY = 86_400.0
SET = b'{"level":"error"}'


def session(number: int = 1, issued_s: int = 1000) -> SealedSession:
    return SealedSession(number.to_bytes(16, "big"), issued_s, b"")


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.text(max_size=20))))
def test_a_file_of_appended_lines_says_what_is_held(changes: list[tuple[int, str | None]]) -> None:
    """After a kill the next gateway knows what this one knew; whatever characters a uri has."""
    held, lines = KeptPreferences(), ""
    for number, uri in changes:
        said = b"" if uri is None else msgspec.json.encode({"uris": [uri]})
        lines += held.put(session(number), said)[0]
    again = KeptPreferences()
    again.load(lines.split("\n"))
    assert [again.get(session(n)) for n in range(4)] == [held.get(session(n)) for n in range(4)]
    assert sorted(again.lines()) == sorted(held.lines())


def test_it_is_bounded_by_count_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 6; law 9: the caller is told whose preferences are not kept."""
    monkeypatch.setattr(session_preferences, "MOST", 3)
    monkeypatch.setattr(session_preferences, "MOST_BYTES", 4 * len(SET))
    held = KeptPreferences()
    for number in range(3):
        assert held.put(session(number), SET)[1] == []
    assert held.put(session(3), SET)[1] == [session(0)]
    assert held.put(session(4), SET * 2)[1] == [session(1)]
    assert held.put(session(5), b"x" * (LARGEST_BYTES + 1))[1] == [session(5)]
    assert [held.get(session(n)) is not None for n in range(6)] == [False, False, True, True, True, False]


def test_damage_in_the_file_is_skipped() -> None:
    held = KeptPreferences()
    held.load(["", "rubbish", "zz 1 {}", f"{session().number.hex()} 1000 {SET.decode()}"])
    assert (len(held), held.get(session())) == (1, SET)


def test_a_session_whose_preferences_are_not_kept_is_over(tmp_path: Path) -> None:
    """Law 8: once out of memory it is unknown, so its client starts anew and sets them again."""
    state = StateFolder.open(tmp_path / "gateway", DAY, 1000)
    state.prefer(session(1), SET, 1000)
    state.prefer(session(2), b"x" * (LARGEST_BYTES + 1), 1000)
    state.close()
    again = StateFolder.open(tmp_path / "gateway", DAY, 1000)
    assert again.preferences.get(session(1)) == SET
    assert [again.revocations.is_over(session(n), 1000) for n in (1, 2)] == [False, True]
    assert (tmp_path / "gateway" / PREFERENCES).stat().st_mode & 0o777 == 0o600
    again.revoke(session(1), 1000)  # a DELETE leaves nothing
    again.close()
    assert len(StateFolder.open(tmp_path / "gateway", DAY, 1000).preferences) == 0


def test_the_file_stays_below_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.gateway.http.state.MOST_BYTES", 2000)
    state = StateFolder.open(tmp_path / "gateway", DAY, 1000)
    for turn in range(500):
        state.prefer(session(), b'{"level":"%d"}' % turn, 1000)
        assert (tmp_path / "gateway" / PREFERENCES).stat().st_size <= 4000
    assert state.preferences.get(session()) == b'{"level":"499"}'
    state.close()
