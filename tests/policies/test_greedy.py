"""EpsilonGreedy and UCB: averages, variances, and who is at the top."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_losses import NAN, SHAPES, assert_drawn_as_expected, counted, histograms, holds, keep_of

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.table import LossTable
from seta_stream.policies import BLS, UCB, EpsilonGreedy, Rule
from seta_stream.policies.deciding import columns_of, scores_of

TEN = counted({float(n): 1 for n in range(1, 11)})


def scores_after(policy, *losses):
    """The scores of two samples, the second never seen, after the first had these losses."""
    table = LossTable([2], columns_of(policy))
    for loss in losses:
        table.record([0], [loss])
        table.advance()
    scores = scores_of(policy, table.remembered())
    assert np.isnan(scores[1])
    return float(scores[0])


def test_the_greedy_part_and_the_rest():
    """K = 5 of ten: the 4 highest, and 1 of the other 6."""
    rule = EpsilonGreedy(0.5, epsilon=0.2).rule(TEN, 1)
    assert rule.edges.tolist() == [7]
    assert rule.keep.tolist() == pytest.approx([1 / 6, 1])
    assert rule.expected_kept(TEN) == pytest.approx(5)


def test_a_tie_at_the_cut_is_kept_in_part():
    """2 + 6 tied samples, K = 4 of which 2 at random: 2 of the 6 are greedy, 2 of the other 6 by chance 1/3."""
    histogram = counted({1.0: 2, 2.0: 6})
    rule = EpsilonGreedy(0.5, epsilon=0.5).rule(histogram, 1)
    assert rule.edges.tolist() == [2]
    assert rule.keep.tolist() == pytest.approx([1 / 3, (2 + 4 / 3) / 6])


@pytest.mark.parametrize(("epsilon", "keep"), [(0, [0, 1]), (1, [0.5])])
def test_the_ends_of_epsilon(epsilon, keep):
    """None at random is the top half; all at random is DynamicRandom."""
    assert EpsilonGreedy(0.5, epsilon=epsilon).rule(TEN, 1).keep.tolist() == keep


@pytest.mark.parametrize(
    ("unseen", "kept", "keep"),
    [
        (2, 6, [0.6 / 6.6, 1]),  # K = 6: the two unseen ones, the 5.4 - 2 = 3.4 highest, 0.6 of the other 6.6
        (10, 10, [0]),  # K = 10: the unseen ones alone
        (30, 30, [0]),  # more unseen than K
    ],
)
def test_unseen_samples_are_kept_and_count_first(unseen, kept, keep):
    """The number is held unless more are unseen."""
    histogram = TEN + counted({}, unseen)
    rule = EpsilonGreedy(0.5, epsilon=0.1).rule(histogram, 1)
    assert rule.unseen_keep == 1
    assert holds(rule, histogram, kept)
    assert keep_of(rule, 1.0) == pytest.approx(keep[:1])
    assert keep_of(rule, 10.0) == pytest.approx(keep[-1:])


def test_an_average_follows_new_losses():
    """1, then 3: 0.2 · 1 + 0.8 · 3 = 2.6, as float16; the first loss is the first average."""
    assert scores_after(EpsilonGreedy(0.5), 1.0) == 1
    assert scores_after(EpsilonGreedy(0.5), 1.0, 3.0) == np.float16(2.6)
    assert scores_after(EpsilonGreedy(0.5, new_weight=0.25), 1.0, 3.0) == 1.5


def test_a_variance_is_around_the_old_average():
    """1: variance 0. Then 3: 0.8 · (3 - 1)² = 3.2. Then 2.6: average stays 2.6, variance 0.2 · 3.2 = 0.64."""
    assert scores_after(UCB(), 1.0) == 1
    assert scores_after(UCB(), 1.0, 3.0) == np.float16(2.6 + 3.2)
    assert scores_after(UCB(c=2), 1.0, 3.0) == np.float16(2.6 + 6.4)
    assert scores_after(UCB(c=0), 1.0, 3.0) == np.float16(2.6)
    assert scores_after(UCB(), 1.0, 3.0, 2.6) == pytest.approx(2.6 + 0.64, rel=1e-3)


def test_smoothing_brings_its_own_average():
    """BLS(0.75): 1, then 3 is 1.5, the variance around it 0.8 · 4 = 3.2; no second average is remembered."""
    assert scores_after(EpsilonGreedy(0.5, smooth=BLS(0.75)), 1.0, 3.0) == 1.5
    assert scores_after(UCB(smooth=BLS(0.75)), 1.0, 3.0) == np.float16(4.7)
    assert [column.name for column in columns_of(EpsilonGreedy(0.5, smooth=BLS()))] == ["smoothed"]
    assert sorted(column.name for column in columns_of(UCB(smooth=BLS()))) == ["smoothed", "var"]
    assert sorted(column.name for column in columns_of(UCB())) == ["ema", "var"]


def test_a_score_beyond_float32_stays_the_highest():
    """It would count as unseen if it became infinite."""
    values = {"loss": np.ones(2), "ema": np.array([3e38, NAN], np.float32), "var": np.array([3e38, 0], np.float32)}
    scores = UCB().score(values)
    assert scores[0] == np.finfo(np.float32).max
    assert np.isnan(scores[1])
    moved = UCB().columns[1].update({"ema": np.array([-3e38], np.float32), "var": np.array([1.0])}, np.array([3e38]))
    assert moved.tolist() == [np.finfo(np.float32).max]


def test_ucb_drops_the_lowest():
    """41 % by default: of ten 4.1, so the fifth is kept with 0.9."""
    rule = UCB().rule(TEN, 1)
    assert rule.edges.tolist() == [5, 6]
    assert rule.keep.tolist() == pytest.approx([0, 0.9, 1])


@pytest.mark.parametrize("policy", [EpsilonGreedy(0.5), UCB()])
def test_before_any_loss_everything_is_kept(policy):
    """In any epoch; the share of epoch 0 says so."""
    assert policy.rule(counted({}, 5), 3) == Rule([], [1.0])
    assert policy.expected_share(0) == 1


@given(histograms(max_unseen=20), st.floats(0, 0.99), st.floats(0, 1))
def test_the_share_is_held_whatever_the_losses(histogram, prune_ratio, epsilon):
    """By both, ties and unseen samples included; what is harder is never kept less."""
    kept = max((1 - prune_ratio) * histogram.total, histogram.unseen)
    for policy in (EpsilonGreedy(prune_ratio, epsilon=epsilon), UCB(prune_ratio)):
        rule = policy.rule(histogram, 1)
        assert holds(rule, histogram, kept)
        assert (np.diff(rule.keep) >= 0).all()
        assert policy.expected_share(1) == 1 - prune_ratio


@pytest.mark.parametrize("policy", [EpsilonGreedy(0.6, epsilon=0.3), UCB(0.7)])
@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_shares_are_the_promised_ones(policy, shape):
    """Of 20,000 samples, within four standard deviations."""
    assert_drawn_as_expected(policy.rule(Histogram.of(SHAPES[shape]), 1), SHAPES[shape], policy.expected_share(1))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: EpsilonGreedy(1.0), "prune_ratio=1.0: give the share"),
        (lambda: EpsilonGreedy(0.5, epsilon=2), r"epsilon=2: give a number in \[0, 1\]"),
        (lambda: EpsilonGreedy(0.5, new_weight=0), r"new_weight=0: give a number in \(0, 1\]"),
        (lambda: UCB(c=-1), "c=-1: give a finite number, at least 0"),
        (lambda: UCB(new_weight=2), "new_weight=2: give a number"),
        (lambda: UCB(smooth=0.9), "smooth=0.9: give BLS"),
    ],
)
def test_impossible_settings_are_refused(make, told):
    """When the policy is made."""
    with pytest.raises(PolicyError, match=told):
        make()
