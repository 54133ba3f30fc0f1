"""Rounding, bins and histograms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seta_stream.errors import LossError
from seta_stream.losses.histogram import (
    BINS,
    FIRST_FINITE,
    STOP_FINITE,
    Histogram,
    bin_floors,
    bin_values,
    codes,
    merge_starts,
    round_losses,
)

NAN = float("nan")
any_floats = hnp.arrays(np.uint32, st.integers(1, 40)).map(lambda bits: bits.view(np.float32))
finite_floats = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**127), 2.0**127, width=32))


@pytest.mark.parametrize(
    ("given_loss", "kept"),
    [
        (1.0, 1.0),
        (1 + 2**-11, 1.0),  # a tie goes to even
        (1 + 3 * 2**-11, 1 + 2**-9),
        (2**-14, 2**-14),
        (2**-14 * (1 - 2**-12), 2**-14 * (1 - 2**-12)),  # below float16's normal range 11 bits stay
        (65519.99, 65504.0),
        (65520.0, 65520.0),  # float16 would overflow
        (65536 + 16, 65536.0),
        (65536 + 48, 65536.0 + 64),
        (-1.5003, -1.5),
        (-0.0, 0.0),
        (0.0, 0.0),
        (-1e-45, 0.0),
        (1e-40, None),
    ],
)
def test_a_loss_rounds_to_float16_where_that_is_normal_and_else_to_11_bits(given_loss, kept):
    """Each row was worked out by hand; None stands for "within 2^-12 of it"."""
    (found,) = round_losses(np.float32(given_loss))
    if kept is None:
        assert abs(found - np.float32(given_loss)) <= 2**-138
    else:
        assert found == np.float32(kept)
        assert not np.signbit(found) or kept < 0


@given(any_floats)
def test_rounding_twice_changes_nothing_and_keeps_what_is_not_finite(losses):
    """Any bit pattern, NaN with payloads included."""
    once = round_losses(losses)
    kept = np.isfinite(once)
    assert np.array_equal(round_losses(once)[kept].view(np.uint32), once[kept].view(np.uint32))
    assert not np.isfinite(once[~np.isfinite(losses)]).any()
    small = np.isfinite(losses) & (np.abs(losses) < 3e38)
    assert (np.abs(once[small] - losses[small]) <= np.abs(losses[small]) * 2**-11 + 1e-41).all()


@given(finite_floats)
def test_codes_and_rounding_keep_the_order(losses):
    """Sorted losses have sorted codes and stay sorted when rounded."""
    ordered = np.sort(losses)
    assert (np.diff(codes(ordered)) >= 0).all()
    assert (np.diff(round_losses(ordered)) >= 0).all()


@given(finite_floats)
def test_a_bin_holds_one_rounded_loss_and_begins_at_its_floor(losses):
    """bin_values inverts codes for rounded losses; bin_floors says where a bin begins."""
    rounded = round_losses(losses)
    assert np.array_equal(bin_values(codes(rounded)).view(np.uint32), rounded.view(np.uint32))
    floors = bin_floors(codes(losses))
    assert (floors <= losses).all()
    assert np.array_equal(codes(floors), codes(losses))
    below = np.nextafter(floors, np.float32(-np.inf))
    assert (codes(below) == codes(losses) - 1).all()


def test_codes_put_everything_that_is_not_finite_outside():
    """Infinities and NaN of both signs have codes that no finite score has."""
    extremes = np.array([np.finfo(np.float32).min, -0.0, 0.0, np.finfo(np.float32).max], np.float32)
    assert codes(extremes).tolist() == [FIRST_FINITE, BINS // 2, BINS // 2, STOP_FINITE - 1]
    odd = np.array([0xFF800000, 0xFFC00000, 0x7F800001, 0x7F800000, 0x7FFFFFFF], np.uint32).view(np.float32)
    assert all(code < FIRST_FINITE or code >= STOP_FINITE for code in codes(odd).tolist())


def test_a_histogram_counts_by_hand():
    """Five scores, one of them unseen and one infinite."""
    histogram = Histogram.of(np.array([0.5, NAN, 0.5, -2.0, np.inf], np.float32))
    assert (histogram.seen, histogram.unseen, histogram.total) == (3, 2, 5)
    assert (histogram.minimum, histogram.maximum) == (-2.0, 0.5)
    assert histogram.values().tolist() == [-2.0, 0.5]
    assert histogram.weights().tolist() == [1, 2]
    assert histogram.mean == pytest.approx(-1 / 3)
    assert histogram.quantiles([0, 1 / 3, 0.34, 1]).tolist() == [-2.0, -2.0, 0.5, 0.5]


@pytest.mark.parametrize("scores", [[], [NAN], [np.inf, -np.inf]])
def test_a_histogram_of_nothing_is_empty(scores):
    """No seen score: NaN extremes, no bins, no groups to merge."""
    histogram = Histogram.of(np.array(scores, np.float32))
    assert histogram.seen == 0
    assert histogram.unseen == len(scores)
    assert np.isnan([histogram.minimum, histogram.maximum, histogram.mean]).all()
    assert len(histogram.merged().counts) == 0
    with pytest.raises(LossError, match="no sample has one yet"):
        histogram.quantiles([0.5])


@given(finite_floats, finite_floats)
@settings(max_examples=20)
def test_histograms_of_parts_add_up(one, other):
    """The histogram of the whole is the sum, extremes included."""
    parts, whole = Histogram.of(one) + Histogram.of(other), Histogram.of(np.concatenate([one, other]))
    assert np.array_equal(parts.counts, whole.counts)
    assert (parts.unseen, parts.minimum, parts.maximum) == (whole.unseen, whole.minimum, whole.maximum)


def test_a_histogram_spans_chunks():
    """More scores than a chunk holds, the extremes in different chunks."""
    scores = np.linspace(1, 2, 200_000, dtype=np.float32)
    scores[3], scores[-3], scores[70_000] = 9, -9, NAN
    histogram = Histogram.of(scores)
    assert (histogram.minimum, histogram.maximum, histogram.unseen) == (-9, 9, 1)
    assert histogram.seen == 199_999


def test_unseen_samples_can_be_given_a_score():
    """with_scores moves a number of unseen samples to one bin."""
    histogram = Histogram.of(np.array([1.0, NAN, NAN], np.float32)).with_scores(3.0, 2)
    assert histogram.values().tolist() == [1.0, 3.0]
    assert histogram.weights().tolist() == [1, 2]
    assert (histogram.unseen, histogram.maximum) == (0, 3.0)
    assert histogram.with_scores(5.0, 0) is histogram


@pytest.mark.parametrize("limit", [1, 2, 64, 512])
def test_merged_bins_keep_every_count(limit):
    """At most `limit` bins, ascending edges from lowest to highest."""
    losses = round_losses(np.random.default_rng(0).gamma(2, 1, 50_000).astype(np.float32))
    merged = Histogram.of(losses).merged(limit)
    assert len(merged.counts) <= limit
    assert merged.counts.sum() == 50_000
    assert (np.diff(merged.edges) >= 0).all()
    assert (merged.edges[0], merged.edges[-1]) == (losses.min(), losses.max())


@pytest.mark.parametrize("outlier", [1e3, 1e9, 1e30])
def test_an_outlier_takes_one_cut_and_leaves_the_others_to_the_body(outlier):
    """However far away it is."""
    values = np.append(np.linspace(0, 1, 5000), outlier)
    starts = merge_starts(values, np.ones(5001, np.int64), 100)
    assert 95 <= len(starts) <= 100
    assert starts[-1] == 5000
