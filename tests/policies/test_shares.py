"""Bands of sorted scores, keeps that hold a share, annealing, and checks of settings."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from policy_losses import counted, histograms

from seta_stream.errors import PolicyError
from seta_stream.policies import BLS, DynamicRandom, InfoBatch, Rule
from seta_stream.policies.shares import (
    anneals,
    bands,
    check_amount,
    check_count,
    check_portion,
    check_share,
    check_smooth,
    numbers_of,
    scaled_keeps,
    top,
    wanted,
)


@pytest.mark.parametrize(
    ("counts", "cuts", "keeps", "edges", "keep"),
    [
        ({1.0: 4, 2.0: 6}, [4], [0.25, 1], [2], [0.25, 1]),  # between two bins: no more steps than bands
        ({1.0: 4, 2.0: 6}, [5], [0, 1], [2], [0, 5 / 6]),  # one of the six lies below
        ({1.0: 4, 2.0: 6, 3.0: 1}, [5], [0, 1], [2, 3], [0, 5 / 6, 1]),
        ({1.0: 10}, [2, 5], [0.25, 0.5, 1], [], [0.7]),  # 0.2 · 0.25 + 0.3 · 0.5 + 0.5 · 1
        ({1.0: 1, 2.0: 9}, [2, 5], [0.25, 0.5, 1], [2], [0.25, (1 * 0.25 + 3 * 0.5 + 5 * 1) / 9]),
        ({1.0: 4, 2.0: 6}, [0], [0, 1], [], [1]),
        ({1.0: 4, 2.0: 6}, [10], [0, 1], [], [0]),
        ({1.0: 4, 2.0: 6}, [99], [0, 1], [], [0]),
        ({1.0: 4, 2.0: 6}, [2.5], [0, 1], [2], [1.5 / 4, 1]),
        ({-2.0: 5, 0.0: 5}, [5], [0, 1], [0], [0, 1]),
        ({1.0: 2, 2.0: 2, 3.0: 2}, [2, 4], [0.5, 0.5, 1], [3], [0.5, 1]),  # alike: one step
    ],
)
def test_a_cut_inside_a_bin_is_a_step_of_its_own(counts, cuts, keeps, edges, keep):
    """Kept with the mean of the bands that the bin lies in."""
    found_edges, found_keep = bands(counted(counts), cuts, keeps)
    assert found_edges.tolist() == edges
    assert found_keep.tolist() == pytest.approx(keep, abs=1e-12)


def test_a_share_of_a_count_is_not_off_by_a_rounding():
    """0.57 · 100 is 56.99999999999999 in binary: the 57 are dropped, none by a chance of 1e-16."""
    assert top(counted({1.0: 57, 2.0: 43}), 100 - 0.57 * 100).keep.tolist() == [0, 1]


@given(histograms(), st.lists(st.floats(0, 1), max_size=4), st.data())
def test_bands_keep_exactly_what_they_say(histogram, shares, data):
    """The expected number is that of the bands, whatever shares a bin."""
    cuts = np.sort(np.array(shares)) * histogram.seen
    keeps = data.draw(st.lists(st.floats(0, 1), min_size=len(cuts) + 1, max_size=len(cuts) + 1))
    rule = Rule(*bands(histogram, cuts, keeps))
    sizes = np.diff(np.concatenate([[0], cuts, [histogram.seen]]))
    assert rule.expected_kept(histogram) == pytest.approx(sizes @ keeps, abs=1e-7)
    assert rule.steps <= 2 * len(cuts) + 1


@given(histograms(), st.floats(0, 1))
def test_the_top_is_kept_and_nothing_easier(histogram, share):
    """All steps above the cut are whole, all below empty, and one may be kept in part."""
    rule = top(histogram, share * histogram.seen)
    assert rule.expected_kept(histogram) == pytest.approx(share * histogram.seen, abs=1e-7)
    assert (np.diff(rule.keep) > 0).all()
    assert ((rule.keep > 0) & (rule.keep < 1)).sum() <= 1


@pytest.mark.parametrize(
    ("masses", "sizes", "count", "floor", "keeps"),
    [
        ([1, 1, 2], [1, 2, 4], 2, 0.0, [2 / 11, 4 / 11, 8 / 11]),  # (1 + 2 + 2 · 4) c = 2
        ([1, 1, 2], [1, 2, 4], 3, 0.0, [1 / 3, 2 / 3, 1]),  # the last is full: (1 + 2) c = 1
        ([1, 1, 2], [1, 2, 4], 2.5, 0.5, [0.5, 0.5, 0.75]),  # the first two on the floor
        ([1, 1, 2], [1, 2, 4], 2, 0.5, [0.5, 0.5, 0.5]),
        ([1, 1, 2], [1, 2, 4], 1, 0.5, [0.5, 0.5, 0.5]),  # the floor alone keeps more
        ([1, 1, 2], [1, 2, 4], 4, 0.1, [1, 1, 1]),
        ([2, 1], [0, 3], 2, 0.1, [0.5, 1]),  # what the positive ones cannot give
        ([2, 1], [0, 3], 1, 0.1, [0.1, 0.8]),
        ([3], [0], 1.5, 0.1, [0.5]),
        ([3, 1], [5, 5], 2, 0.1, [0.5, 0.5]),
        ([1, 1], [1, 2], 0, 0.0, [0, 0]),
    ],
)
def test_keeps_follow_the_sizes_between_floor_and_one(masses, sizes, count, floor, keeps):
    """One factor for all, so that the count is held."""
    assert scaled_keeps(masses, sizes, count, floor).tolist() == pytest.approx(keeps, abs=1e-12)


@given(
    st.lists(
        st.tuples(st.integers(1, 10**6), st.one_of(st.just(0.0), st.floats(1e-38, 1e38))), min_size=1, max_size=40
    ),
    st.floats(0, 1),
    st.floats(0, 0.5),
)
@example([(415, 0.0)], 0.3624369023242912, 0.3624369023242912)  # share · mass / mass lies one bit below the floor
def test_scaled_keeps_hold_the_count(steps, share, floor):
    """Whatever the sizes, in their order, from the floor to 1."""
    masses, sizes = np.array(steps).T
    keeps = scaled_keeps(masses, sizes, share * masses.sum(), floor)
    assert masses @ keeps == pytest.approx(max(share, floor) * masses.sum(), rel=1e-9, abs=1e-6)
    assert (keeps >= floor).all()
    assert (keeps <= 1).all()
    assert (np.diff(keeps[np.argsort(sizes)]) >= -1e-12).all()


def test_annealing_begins_after_seven_eighths_of_any_run():
    """Epoch e prunes while e + 1 <= 0.875 E: the first that does not is floor(7 E / 8), in integers."""
    for num_epochs in range(2, 401):
        first = [anneals(epoch, num_epochs, 0.875) for epoch in range(num_epochs)].index(True)
        assert first == 7 * num_epochs // 8, num_epochs


@pytest.mark.parametrize("delta", ["0", "0.1", "0.3", "0.7", "0.9", "1"])
def test_annealing_is_not_off_by_one_where_binary_fractions_are(delta):
    """0.7 · 10 epochs are 7, though 0.7 is no binary number."""
    for num_epochs in range(1, 301):
        first = int(Fraction(delta) * num_epochs)
        assert anneals(first, num_epochs, float(delta))
        assert first == 0 or not anneals(first - 1, num_epochs, float(delta))


@pytest.mark.parametrize(
    ("unseen", "share", "count"), [(0, 0.5, 50), (20, 0.5, 40), (100, 0.5, 0), (150, 0.5, 0), (20, 1.0, 100)]
)
def test_unseen_samples_count_first(unseen, share, count):
    """100 are seen: what the unseen ones leave of the share of all."""
    assert wanted(counted({1.0: 100}, unseen), share) == count


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (lambda: check_share("prune_ratio", 1.0), r"prune_ratio=1.0: give the share of samples to leave out"),
        (lambda: check_share("prune_ratio", True), "prune_ratio=True: give the share"),
        (lambda: check_count("num_epochs", 0), "num_epochs=0: give a whole number, at least 1"),
        (lambda: check_count("num_epochs", 2.0), r"num_epochs=2.0: give a whole number"),
        (lambda: check_portion("delta", 1.5, zero=True), r"delta=1.5: give a number in \[0, 1\]"),
        (lambda: check_portion("floor", 0, zero=False), r"floor=0: give a number in \(0, 1\]"),
        (lambda: check_amount("beta", -1), "beta=-1: give a finite number, at least 0"),
        (lambda: check_amount("beta", float("inf")), "beta=inf: give a finite number"),
        (lambda: check_amount("beta", float("nan")), "beta=nan: give a finite number"),
        (lambda: check_amount("max_weight", 0.5, least=1), "max_weight=0.5: give a finite number, at least 1"),
        (lambda: check_smooth(0.9), r"smooth=0.9: give BLS\(alpha=0.9\), or None"),
        (lambda: numbers_of("keep", 0.5), r"keep=0.5: give a tuple of numbers, as keep=\(1, 2\)"),
        (lambda: numbers_of("keep", ("a",)), r"keep=\('a',\): give a tuple of numbers"),
        (lambda: InfoBatch(9, prune_ratio=-1), "prune_ratio=-1: give the share"),
        (lambda: InfoBatch(9, delta="x"), r"delta='x': give a number in \[0, 1\]"),
        (lambda: InfoBatch(9, smooth=DynamicRandom(0.5)), r"smooth=DynamicRandom.*give BLS"),
    ],
)
def test_impossible_settings_are_refused_by_name(check, told):
    """When the policy is made."""
    with pytest.raises(PolicyError, match=told):
        check()


def test_possible_settings_pass():
    """At the ends of their ranges."""
    check_share("a", 0)
    check_count("a", 1)
    check_portion("a", 0, zero=True)
    check_portion("a", 1, zero=False)
    check_amount("a", 0)
    check_smooth(None)
    check_smooth(BLS())
    assert numbers_of("a", [1, 2.5]) == (1, 2.5)
