"""Which connections have to go where there are too many: those that keep others out for nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.http.connection_limit import ConnectionLimit


class Plug:
    """A connection; how it was ended."""

    def __init__(self) -> None:
        self.is_cut = False

    def cut(self) -> None:
        self.is_cut = True


def limit_of(number: int) -> tuple[ConnectionLimit, list[str]]:
    said: list[str] = []
    return ConnectionLimit(number, said.append), said


def test_who_shows_no_token_keeps_nobody_out() -> None:
    """A flood of connections without a token cuts its own oldest ones; those with one stay."""
    limit, said = limit_of(8)
    known = [Plug() for _ in range(3)]
    for one in known:
        assert limit.opened(one)
        limit.known(one)
    flood = [Plug() for _ in range(100)]
    assert all(map(limit.opened, flood))
    assert [one.is_cut for one in flood] == [True] * 96 + [False] * 4
    assert not any(one.is_cut for one in known)
    assert said == ["unknown"] * 96


def test_a_connection_that_rests_goes_before_one_is_refused() -> None:
    """The one that rests for longest; one with a request under way never goes."""
    limit, said = limit_of(3)
    plugs = [Plug() for _ in range(3)]
    for one in plugs:
        limit.opened(one)
        limit.known(one)
    limit.rests(plugs[1])
    limit.rests(plugs[2])
    limit.began(plugs[1])
    new = Plug()
    assert limit.opened(new)
    assert [one.is_cut for one in plugs] == [False, False, True]
    limit.known(new)
    assert not limit.opened(Plug())
    assert said == ["idle", "refused"]


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30))))
def test_there_are_never_more_than_the_limit(number: int, steps: list[tuple[int, int]]) -> None:
    """Law 6, whatever happens in whatever order; and only what was open is cut."""
    limit, _ = limit_of(number)
    plugs: list[Plug] = []
    for step, which in steps:
        if step == 0 or not plugs:
            new = Plug()
            if limit.opened(new):
                plugs.append(new)
        else:
            act = (limit.known, limit.began, limit.rests, limit.closed)[step - 1]
            one = plugs[which % len(plugs)]
            act(one)
            if step == 4:
                plugs.remove(one)
        assert len(limit) == sum(not one.is_cut for one in plugs) <= number
        assert not any(one.is_cut for one in plugs[-1:] if step == 0)
        plugs = [one for one in plugs if not one.is_cut]
