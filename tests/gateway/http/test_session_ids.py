"""Session ids that outlive a restart, and those that are over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.http.session_ids import Revocations, Seal, SealedSession
from broker.gateway.http.state import KEY, OVER, TOKEN, StateFolder
from broker.service.claims import ClaimError

SEAL = Seal(b"k" * 32)
DAY = 86_400.0


def session(number: int = 1, issued_s: int = 1000, state: bytes = b"{}") -> SealedSession:
    return SealedSession(number.to_bytes(16, "big"), issued_s, state)


@given(st.binary(max_size=2000), st.text(max_size=20), st.text(max_size=20))
def test_an_id_says_what_was_put_in(state: bytes, server: str, owner: str) -> None:
    """claude-code#55970, mcp-proxy#149, python-sdk#3556, supergateway#123: a restart loses no session."""
    made = SEAL.id_of(session(state=state), server, owner)
    assert all(0x21 <= byte <= 0x7E for byte in made.encode())
    assert Seal(b"k" * 32).read(made, server, owner) == session(state=state)


def test_an_id_is_bound_to_server_token_and_key() -> None:
    """Law 3: an id that another client learned opens nothing."""
    made = SEAL.id_of(session(), "time", "phone")
    assert SEAL.read(made, "shell", "phone") is None
    assert SEAL.read(made, "time", "laptop") is None
    assert Seal(b"x" * 32).read(made, "time", "phone") is None
    assert SEAL.read(SEAL.id_of(session(), "ab", "c"), "a", "bc") is None


@given(st.data())
def test_an_id_that_was_changed_is_unknown(data: st.DataObject) -> None:
    made = SEAL.id_of(session(), "time", "phone")
    at = data.draw(st.integers(0, len(made) - 1))
    other = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/="))
    changed = made[:at] + other + made[at + 1 :]
    assert changed == made or SEAL.read(changed, "time", "phone") is None


def test_an_id_has_one_spelling() -> None:
    """With another one the session would outlive its DELETE."""
    for state in (b"{}", b"{ }", b"{  }"):  # the last character has 0, 2 or 4 bits without a meaning
        made = SEAL.id_of(session(state=state), "time", "phone")
        others = [made + "=", made.replace("-", "+").replace("_", "/") + "=="]
        others += [
            made[:-1] + char for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        ]
        assert [one for one in others if SEAL.read(one, "time", "phone")] == [made]


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=200))
def test_any_other_text_is_unknown(text: str) -> None:
    assert SEAL.read(text, "time", "phone") is None


def test_a_state_that_fits_in_no_header_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        SEAL.id_of(session(state=os.urandom(8000)), "time", "phone")


def test_a_session_that_was_deleted_is_over() -> None:
    over = Revocations(10, DAY)
    assert not over.is_over(session(), 1000)
    over.add(session(), 1000)
    assert over.is_over(session(), 1000)
    assert not over.is_over(session(2), 1000)


def test_sessions_expire() -> None:
    """python-sdk#2455: sessions that never expire."""
    over = Revocations(10, DAY)
    assert not over.is_over(session(), 1000 + DAY)
    assert over.is_over(session(), 1001 + DAY)


def test_the_list_is_bounded() -> None:
    """Law 6; what has expired goes first, and what is forgotten is counted."""
    over = Revocations(10, DAY)
    for number in range(5):
        over.add(session(number, 1000), 1000)
    for number in range(100, 120):
        over.add(session(number, 200_000), 200_000)
    assert len(over) == 10
    assert over.forgotten == 10
    assert over.is_over(session(119, 200_000), 200_000)


def test_a_list_with_damage_is_read_as_far_as_it_goes() -> None:
    over = Revocations(10, DAY)
    over.load([*Revocations.lines(_one()), "rubbish", "zz 1", ""], 1000)
    assert len(over) == 1


def _one() -> Revocations:
    over = Revocations(10, DAY)
    over.add(session(), 1000)
    return over


def test_the_state_directory_is_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "gateway"
    with_new = StateFolder.open(path, DAY, 1000)
    with_new.revoke(session(), 1000)
    with_new.close()
    again = StateFolder.open(path, DAY, 1000)
    assert (with_new.is_new_token, again.is_new_token) == (True, False)
    assert (again.token, again.key) == (with_new.token, with_new.key)
    assert again.revocations.is_over(session(), 1000)
    assert {name: (path / name).stat().st_mode & 0o777 for name in (TOKEN, KEY, OVER)} == {
        TOKEN: 0o600,
        KEY: 0o600,
        OVER: 0o600,
    }
    again.close()


def test_the_state_directory_is_made_on_a_fresh_account(tmp_path: Path) -> None:
    """XDG Base Directory: a missing destination is created, with mode 0700; `~/.local` is often missing."""
    path = tmp_path / ".local" / "state" / "mcp-broker" / "gateway"
    StateFolder.open(path, DAY, 1000).close()
    assert {folder.stat().st_mode & 0o777 for folder in (path, *path.parents[:3])} == {0o700}


@pytest.mark.parametrize("name", [TOKEN, KEY])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    StateFolder.open(tmp_path / "gateway", DAY, 1000).close()
    (tmp_path / "gateway" / name).chmod(0o644)
    with pytest.raises(ClaimError, match="others may read"):
        StateFolder.open(tmp_path / "gateway", DAY, 1000)
