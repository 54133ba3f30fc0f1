"""How many requests are under way: climbs while it pays, comes back where it does not, halves where it is asked to."""

from __future__ import annotations

import pytest

from seta_stream.store.concurrency import FIRST, HOLD_S, MOST_PER_MACHINE, Concurrency


def simulate(limits: Concurrency, slots: int, *, begin: float, seconds: float, latency: float = 0.02) -> float:
    """Run a store that serves `slots` requests of 1 MB at once, each in `latency`; return the time at the end."""
    now = begin
    while now < begin + seconds:
        at_once = min(limits.limit, slots)
        now += latency / at_once
        limits.finished(1_000_000, now, is_full=True)
    return now


def test_it_climbs_to_what_the_store_gives_and_not_far_beyond() -> None:
    """A store that serves 64 at once is asked for 64 and a step more, not for 256."""
    limits = Concurrency(MOST_PER_MACHINE)
    assert limits.limit == FIRST
    now = simulate(limits, 64, begin=0.0, seconds=10.0)
    found = []
    for _ in range(60):
        now = simulate(limits, 64, begin=now, seconds=0.5)
        found.append(limits.limit)
    assert min(found) >= 32
    assert sorted(found)[len(found) // 2] <= 128


def test_a_store_that_only_gets_slower_is_asked_for_little() -> None:
    """Where more requests bring nothing, the first number stays but for a look now and then."""
    limits = Concurrency(MOST_PER_MACHINE)
    now, held = 0.0, 0.0
    for _ in range(240):
        now = simulate(limits, 8, begin=now, seconds=0.25)
        held += limits.limit <= FIRST
    assert held >= 160


def test_it_finds_a_store_that_has_become_better() -> None:
    """After a while it looks again."""
    limits = Concurrency(MOST_PER_MACHINE)
    now = simulate(limits, 8, begin=0.0, seconds=HOLD_S)
    highest = 0
    for _ in range(20):
        now = simulate(limits, 200, begin=now, seconds=3.0)
        highest = max(highest, limits.limit)
    assert highest >= 120


def test_a_throttling_store_halves_it_once_a_second() -> None:
    """A burst of 503s is one message; the next second's is another."""
    limits = Concurrency(64, is_fixed=True)
    for _ in range(20):
        limits.throttled(10.0)
    assert limits.limit == 32
    limits.throttled(11.5)
    assert limits.limit == 16
    for second in range(20):
        limits.throttled(13.0 + 2 * second)
    assert limits.limit == 1


def test_a_throttled_limit_recovers() -> None:
    """After the pause it climbs again, fixed or not."""
    limits = Concurrency(64, is_fixed=True)
    limits.throttled(1.0)
    simulate(limits, 64, begin=2.0, seconds=60.0)
    assert limits.limit >= 48


def test_a_slow_consumer_teaches_nothing() -> None:
    """Where fewer requests wait than are allowed, the store is not what limits."""
    limits = Concurrency(MOST_PER_MACHINE)
    for number in range(10_000):
        limits.finished(1_000_000, number * 0.01, is_full=False)
    assert limits.limit == FIRST


@pytest.mark.parametrize(("most", "limit"), [(1, 1), (0, 1), (4, 4), (1000, FIRST)])
def test_the_bounds(most: int, limit: int) -> None:
    """At least one, at most what is given."""
    limits = Concurrency(most)
    assert limits.limit == limit
    simulate(limits, 10_000, begin=0.0, seconds=60.0)
    assert 1 <= limits.limit <= max(most, 1)
