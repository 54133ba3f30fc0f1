"""Pauses between attempts: they double, are drawn, honour what the server asks for, and end."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from seta_stream.store.retrying import FIRST_DELAY_S, LONGEST_DELAY_S, LONGEST_WISH_S, STALL_S, STRANGER_S, Patience


def test_pauses_double_up_to_a_bound() -> None:
    """The longest possible pause: 0.1, 0.2, 0.4, … 20 s."""
    patience = Patience(give_up_s=math.inf)
    pauses = [patience.delay_s(attempt, 0.0, 1.0) for attempt in range(1, 11)]
    assert pauses[:4] == [FIRST_DELAY_S * factor for factor in (1, 2, 4, 8)]
    assert pauses[-1] == LONGEST_DELAY_S


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(-10, 1e9))
def test_a_wish_is_waited_for(attempt: int, jitter: float, wish: float) -> None:
    """Retry-After is the least that is waited, within reason; the draw comes on top of it."""
    pause = Patience(give_up_s=math.inf).delay_s(attempt, 0.0, jitter, wish)
    assert pause is not None
    assert min(max(wish, 0), LONGEST_WISH_S) <= pause <= LONGEST_WISH_S + LONGEST_DELAY_S


def test_patience_ends() -> None:
    """No attempt begins after the time is up; without patience none at all."""
    assert Patience(give_up_s=10.0).delay_s(1, 10.0, 1.0) is None
    assert Patience(give_up_s=10.0).delay_s(1, 9.0, 1.0) == FIRST_DELAY_S
    assert Patience(give_up_s=0.0).delay_s(1, 0.0, 1.0) is None
    assert Patience(give_up_s=10.0).delay_s(1, 1.0, 0.0, wish_s=30.0) is None


def test_an_attempt_may_take_longer_for_more_bytes() -> None:
    """A large span on a slow line is no stall; a small one that takes half a minute is."""
    patience = Patience()
    assert patience.attempt_s(0) == STALL_S
    assert patience.attempt_s(8 << 20) == STALL_S + 64
    assert Patience(give_up_s=1.0).attempt_s(0) == 0.5


def test_a_store_that_never_answered_gets_less() -> None:
    """A wrong address is told within half a minute; who has less patience than that keeps it."""
    assert Patience().with_stranger() == Patience(STRANGER_S)
    assert Patience(give_up_s=1.0).with_stranger() == Patience(1.0)
