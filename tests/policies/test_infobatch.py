"""InfoBatch by the mean, and by percentiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_losses import SHAPES, assert_drawn_as_expected, counted, histograms, holds, is_unbiased, keep_of

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram, codes
from seta_stream.policies import InfoBatch, InfoBatchQuantile, Rule

# 1, 1, 2, 8: the mean is 3, so the first three lie below it.
FOUR = counted({1.0: 2, 2.0: 1, 8.0: 1})


def test_below_the_mean_half_is_kept_with_twice_the_weight():
    """Of four samples 0.5 + 0.5 + 0.5 + 1 = 2.5 in expectation."""
    rule = InfoBatch(num_epochs=90).rule(FOUR, 1)
    assert rule == Rule([3.0], [0.5, 1.0], [2.0, 1.0])
    assert rule.expected_kept(FOUR) == 2.5


def test_another_ratio_has_another_weight():
    """A quarter kept counts four times; unseen samples are kept with weight 1 and leave the mean alone."""
    rule = InfoBatch(9, prune_ratio=0.75).rule(FOUR + counted({}, 5), 1)
    assert rule == Rule([3.0], [0.25, 1.0], [4.0, 1.0])
    assert (rule.unseen_keep, rule.unseen_weight) == (1, 1)


@pytest.mark.parametrize("kind", [InfoBatch, InfoBatchQuantile])
def test_weights_are_reset_whatever_the_length_of_the_run(kind):
    """From epoch floor(7 E / 8) on all is kept with weight 1; also for 30, 50, 90, 100 and 300 epochs."""
    for num_epochs in range(2, 401):
        policy = kind(num_epochs)
        first = 7 * num_epochs // 8
        for epoch in (0, first - 1, first, num_epochs - 1, num_epochs):
            everything = policy.rule(FOUR, epoch) == Rule([], [1.0])
            assert everything == (epoch >= first), (num_epochs, epoch)
            assert (policy.expected_share(epoch) == 1) == (epoch >= first or epoch == 0), (num_epochs, epoch)


def test_without_annealing_the_last_epoch_prunes():
    """delta=1; and with delta=0 none does."""
    assert InfoBatch(9, delta=1.0).rule(FOUR, 8).steps == 2
    assert InfoBatch(9, delta=0.0).rule(FOUR, 1) == Rule([], [1.0])


def test_the_mean_is_snapped_down_to_its_bin():
    """1 and 1.001 (rounded to 1.0009766) have the mean 1.00049: both lie in bins not below it or below by one."""
    near = counted({1.0: 1, 1.0009765625: 1})
    assert near.mean == 1.00048828125
    assert keep_of(InfoBatch(9).rule(near, 1), 0.99, 1.0, 1.0009765625) == [0.5, 0.5, 1.0]
    # Where the mean falls between a bin's own loss and its end, that loss counts as not below the mean.
    inside = counted({1.0: 9, 1.0009765625: 1})
    assert keep_of(InfoBatch(9).rule(inside, 1), 0.99, 1.0, 1.0009765625) == [0.5, 1.0, 1.0]


@given(histograms(max_unseen=5), st.floats(0, 0.99))
def test_infobatch_is_unbiased_and_loses_only_easy_samples(histogram, prune_ratio):
    """Keep times weight is 1 on every step; all that is not below the mean's bin stays."""
    rule = InfoBatch(9, prune_ratio=prune_ratio).rule(histogram, 1)
    assert is_unbiased(rule)
    below = int(histogram.counts[: codes(histogram.mean)[0]].sum())
    assert holds(rule, histogram, histogram.total - prune_ratio * below)
    assert keep_of(rule, histogram.maximum) == [1.0]


def test_equal_losses_are_all_kept():
    """None lies below the mean."""
    for loss in (0.1, -3.3, 0.0, 1e30):
        histogram = counted({float(np.float32(loss)): 1000})
        assert InfoBatch(9).rule(histogram, 1).expected_kept(histogram) == 1000


@pytest.mark.parametrize("shape", SHAPES)
def test_infobatch_keeps_what_it_promises(shape):
    """Drawn from 20,000 samples: the share, and the weights, which sum up to all samples."""
    scores = SHAPES[shape]
    rule = InfoBatch(9).rule(Histogram.of(scores), 1)
    below = np.nanmean(scores, dtype=np.float64)
    share = 1 - 0.5 * (scores < rule.edges[0]).mean()
    assert rule.edges[0] == pytest.approx(below, rel=2**-11, abs=1e-6)
    assert_drawn_as_expected(rule, scores, share)


def test_bands_between_percentiles():
    """Of 100 distinct losses: 20 · 0.25 + 65 · 0.5 + 15 = 52.5."""
    histogram = Histogram.of(np.arange(1, 101, dtype=np.float32))
    rule = InfoBatchQuantile(90).rule(histogram, 1)
    assert rule == Rule([21.0, 86.0], [0.25, 0.5, 1.0], [4.0, 2.0, 1.0])
    assert rule.expected_kept(histogram) == 52.5
    assert InfoBatchQuantile(90).expected_share(1) == 0.525


def test_a_percentile_inside_a_bin_is_mixed_and_stays_unbiased():
    """60 of 100 share one loss: 20 · 0.25 + 40 · 0.5 = 25 of them, so keep 25/60 with weight 2.4."""
    histogram = counted({0.5: 60} | {1.0 + n: 1 for n in range(40)})
    rule = InfoBatchQuantile(90).rule(histogram, 1)
    assert rule.keep.tolist() == pytest.approx([25 / 60, 0.5, 1.0])
    assert rule.weight.tolist() == pytest.approx([2.4, 2.0, 1.0])
    assert rule.expected_kept(histogram) == pytest.approx(52.5)


@given(histograms(), st.floats(0.001, 0.99), st.booleans())
def test_quantiles_hold_any_ratio(histogram, prune_ratio, other_bands):
    """Whatever the losses, whatever shares a bin; keep times weight is 1 on every step."""
    bands = {"percentiles": (10, 50, 99.5), "keep": (0.1, 0.3, 0.9, 0.2)} if other_bands else {}
    policy = InfoBatchQuantile.at(9, prune_ratio, **bands)
    rule = policy.rule(histogram, 1)
    assert policy.expected_share(1) == pytest.approx(1 - prune_ratio)
    assert holds(rule, histogram, (1 - prune_ratio) * histogram.seen)
    assert is_unbiased(rule)


@pytest.mark.parametrize(
    ("prune_ratio", "keep"),
    [
        (0.475, (0.25, 0.5, 1.0)),
        (0.7375, (0.125, 0.25, 0.5)),  # half of what the defaults keep
        (0.1, (0.5, 1.0, 1.0)),  # 0.2 · 0.5 + 0.65 + 0.15
        (0.0, (1.0, 1.0, 1.0)),
        (0.9, (0.1 / 2.1, 0.2 / 2.1, 0.4 / 2.1)),
    ],
)
def test_keeps_are_scaled_by_one_factor(prune_ratio, keep):
    """Up to 1 each."""
    assert InfoBatchQuantile.at(9, prune_ratio).keep == pytest.approx(keep)


@pytest.mark.parametrize("shape", SHAPES)
def test_quantiles_keep_what_they_promise(shape):
    """Drawn from 20,000 samples."""
    scores = SHAPES[shape]
    unseen = np.isnan(scores).mean()
    rule = InfoBatchQuantile.at(9, 0.6).rule(Histogram.of(scores), 1)
    assert_drawn_as_expected(rule, scores, unseen + 0.4 * (1 - unseen))


def test_lists_of_a_config_become_tuples():
    """So that the policy stays a value."""
    assert InfoBatchQuantile(9, [20, 85], [0.25, 0.5, 1.0]) == InfoBatchQuantile(9)
    assert hash(InfoBatchQuantile(9, [20, 85], [0.25, 0.5, 1.0])) == hash(InfoBatchQuantile(9))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"percentiles": (85, 20)}, r"percentiles=\(85, 20\): give ascending numbers between 0 and 100"),
        ({"percentiles": (0, 20)}, "ascending numbers between 0 and 100"),
        ({"keep": (0.5, 1)}, r"2 percentiles make 3 bands; give a keep probability for each"),
        ({"keep": (0, 0.5, 1)}, r"keep\[0\]=0: give a number in \(0, 1\]"),
        ({"keep": 0.5}, "keep=0.5: give a tuple of numbers"),
        ({"delta": 2}, "delta=2: give a number"),
    ],
)
def test_impossible_bands_are_refused(settings, told):
    """When the policy is made."""
    with pytest.raises(PolicyError, match=told):
        InfoBatchQuantile(9, **settings)


def test_an_impossible_ratio_is_refused():
    """Also where keeps are scaled to it."""
    with pytest.raises(PolicyError, match=r"prune_ratio=1.0: give the share"):
        InfoBatchQuantile.at(9, 1.0)
