"""SelectiveBackprop and LossProportional."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_losses import SHAPES, assert_drawn_as_expected, counted, histograms, holds, is_unbiased, keep_of

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies import LossProportional, Rule, SelectiveBackprop

FOUR = counted({1.0: 1, 2.0: 1, 4.0: 1, 8.0: 1})


def test_ranks_become_chances():
    """Four samples: the means of u over the quarters; squared, 4 · (b³ - a³) / 3."""
    assert SelectiveBackprop(1).rule(FOUR, 1).keep.tolist() == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8])
    assert SelectiveBackprop(2).rule(FOUR, 1).keep.tolist() == pytest.approx([1 / 48, 7 / 48, 19 / 48, 37 / 48])
    assert SelectiveBackprop(0).rule(FOUR, 1).keep.tolist() == [1, 1, 1, 1]


def test_tied_samples_share_their_ranks():
    """Six of ten have the ranks 0 … 0.6, mean 0.3; the others 0.65, 0.75, 0.85, 0.95."""
    histogram = counted({0.5: 6, 1.0: 1, 2.0: 1, 3.0: 1, 4.0: 1})
    rule = SelectiveBackprop(1).rule(histogram, 1)
    assert keep_of(rule, 0.5, 1, 2, 3, 4) == pytest.approx([0.3, 0.65, 0.75, 0.85, 0.95])
    assert rule.expected_kept(histogram) == pytest.approx(5)


def test_a_heavy_bin_does_not_swallow_its_neighbours():
    """One easier sample before 600 tied ones and 399 others keeps its own rank."""
    histogram = counted({0.1: 1, 0.5: 600} | {1.0 + n: 1 for n in range(399)})
    assert keep_of(SelectiveBackprop(1).rule(histogram, 1), 0.1, 0.5) == pytest.approx([0.0005, 0.301])


@given(histograms(max_unseen=9), st.floats(0, 50))
def test_one_over_beta_plus_one_of_the_seen_is_kept(histogram, beta):
    """Whatever the losses; the harder the likelier."""
    policy = SelectiveBackprop(beta)
    rule = policy.rule(histogram, 1)
    assert holds(rule, histogram, histogram.seen / (beta + 1) + histogram.unseen)
    assert policy.expected_share(1) == 1 / (beta + 1)
    assert (np.diff(rule.keep) >= -1e-12).all()
    assert (rule.weight == 1).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beta", [1, 2, 3])
def test_selective_backprop_keeps_what_it_promises(shape, beta):
    """Drawn from 20,000 samples; 50, 33 and 25 % by at most 256 steps near u^beta."""
    scores = SHAPES[shape]
    unseen = np.isnan(scores).mean()
    rule = SelectiveBackprop(beta).rule(Histogram.of(scores), 1)
    assert rule.steps <= 256
    assert_drawn_as_expected(rule, scores, unseen + (1 - unseen) / (beta + 1))
    seen = np.sort(scores[~np.isnan(scores)])
    lower, upper = (np.searchsorted(seen, seen, side=side) / len(seen) for side in ("left", "right"))
    keep = np.array(keep_of(rule, *seen))
    assert (keep >= np.maximum(lower - 1 / 128, 0) ** beta - 1e-9).all()
    assert (keep <= np.minimum(upper + 1 / 128, 1) ** beta + 1e-9).all()


def test_chances_are_proportional_to_losses():
    """(1 + 2 + 4 + 8) c = 2 of four: c = 2/15 would give 8 c > 1, so 7 c = 1 for the first three."""
    rule = LossProportional(0.5).rule(FOUR, 1)
    assert rule.keep.tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7, 1])
    assert rule.weight.tolist() == pytest.approx([7, 3.5, 1.75, 1])
    quarter = LossProportional(0.75).rule(FOUR, 1)
    assert quarter.keep.tolist() == pytest.approx([1 / 15, 2 / 15, 4 / 15, 8 / 15])


def test_the_floor_keeps_what_has_no_loss():
    """Two of four: losses -1 and 0 on the floor, which leaves 1.8 for 1 and 2. Of 3.2 they share what 1 and 2 leave."""
    histogram = counted({-1.0: 1, 0.0: 1, 1.0: 1, 2.0: 1})
    rule = LossProportional(0.5, floor=0.1).rule(histogram, 1)
    assert keep_of(rule, -1.0, 0.0, 1.0, 2.0) == pytest.approx([0.1, 0.1, 0.8, 1])
    few = LossProportional(0.2, floor=0.1).rule(histogram, 1)
    assert keep_of(few, -1.0, 0.0, 1.0, 2.0) == pytest.approx([0.6, 0.6, 1, 1])


def test_unseen_samples_count_first_and_the_floor_stays():
    """Eight of twelve unseen, a quarter (three) wanted: the seen ones are on the floor, and more are kept."""
    histogram = FOUR + counted({}, 8)
    rule = LossProportional(0.75, floor=0.125).rule(histogram, 1)
    assert rule.keep.tolist() == [0.125] * 4
    assert rule.expected_kept(histogram) == 8.5


@given(histograms(max_unseen=9), st.floats(0, 0.9), st.floats(0.001, 0.1))
@settings(max_examples=200)
def test_loss_proportional_is_unbiased_and_holds_the_share(histogram, prune_ratio, floor):
    """Whatever the losses: keep times weight is 1, and no weight exceeds 1/floor."""
    rule = LossProportional(prune_ratio, floor=floor).rule(histogram, 1)
    least = histogram.unseen + floor * histogram.seen
    assert holds(rule, histogram, max((1 - prune_ratio) * histogram.total, least))
    assert is_unbiased(rule)
    assert rule.weight.max() <= 1 / floor * (1 + 1e-6)
    assert (np.diff(rule.keep) >= -1e-12).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_proportional_keeps_what_it_promises(shape):
    """Drawn from 20,000 samples, and the weights sum up to all of them; at most 512 steps."""
    scores = SHAPES[shape]
    rule = LossProportional(0.5).rule(Histogram.of(scores), 1)
    assert rule.steps <= 512
    assert_drawn_as_expected(rule, scores, 0.5)


def test_the_estimate_of_the_mean_loss_has_less_variance_than_a_random_one():
    """The reason for the method: the variance of sum(w · loss) over the draws, for the same share."""
    scores = SHAPES["exponential"].astype(np.float64)
    rule = LossProportional(0.7).rule(Histogram.of(SHAPES["exponential"]), 1)
    keep = np.array(keep_of(rule, *SHAPES["exponential"]))
    ours, random = scores**2 @ (1 / keep - 1), (scores**2).sum() * (1 / 0.3 - 1)
    assert ours < 0.5 * random


@pytest.mark.parametrize("policy", [SelectiveBackprop(), LossProportional(0.5)])
def test_before_any_loss_everything_is_kept(policy):
    """In any epoch."""
    assert policy.rule(counted({}, 5), 3) == Rule([], [1.0])
    assert policy.expected_share(0) == 1
    assert policy.expected_share(1) == 0.5


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: SelectiveBackprop(-1), "beta=-1: give a finite number, at least 0"),
        (lambda: LossProportional(0.5, floor=0), r"floor=0: give a number in \(0, 1\]"),
        (
            lambda: LossProportional(0.9, floor=0.2),
            r"floor=0.2 keeps more than prune_ratio=0.9 allows: give a floor of at most 0.1",
        ),
    ],
)
def test_impossible_settings_are_refused(make, told):
    """When the policy is made."""
    with pytest.raises(PolicyError, match=told):
        make()


def test_a_floor_may_be_all_that_is_kept():
    """1 - 0.9 is a little less than 0.1 in binary: no reason to refuse."""
    assert LossProportional(0.9, floor=0.1).rule(FOUR, 1).keep.tolist() == pytest.approx([0.1] * 4)
