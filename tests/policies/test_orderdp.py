"""OrderDP: the top of a random pool."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_losses import SHAPES, assert_drawn_as_expected, counted, histograms, holds

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies import OrderDP, Rule

TEN = counted({float(n): 1 for n in range(1, 11)})


def test_the_top_of_the_pool():
    """Pool 0.5, top 0.6: the six highest of ten with chance 0.5, which are 3."""
    rule = OrderDP(random_len_ratio=0.5, top_q_ratio=0.6).rule(TEN, 1)
    assert rule == Rule([5.0], [0.0, 0.5])
    assert rule.expected_kept(TEN) == 3


def test_a_tie_at_the_cut():
    """Nine tied and one higher: the top half is the one and 4 of the nine, each with chance 0.5."""
    histogram = counted({1.0: 9, 2.0: 1})
    rule = OrderDP(0.5, 0.5).rule(histogram, 1)
    assert rule.keep.tolist() == pytest.approx([0.5 * 4 / 9, 0.5])
    assert rule.expected_kept(histogram) == pytest.approx(2.5)


def test_it_is_what_a_real_pool_keeps():
    """Drawing the pool first, as published, keeps the same share of each fifth of the losses."""
    random = np.random.default_rng(0)
    scores = SHAPES["exponential"]
    fifth = np.searchsorted(np.quantile(scores, [0.2, 0.4, 0.6, 0.8]), scores)
    kept = np.zeros(5)
    for _ in range(20):
        pool = random.choice(len(scores), int(0.5 * len(scores)), replace=False)
        top = pool[np.argsort(scores[pool])[-int(0.7 * len(pool)) :]]
        kept += np.bincount(fifth[top], minlength=5) / 20
    rule = OrderDP(0.5, 0.7).rule(Histogram.of(scores), 1)
    ours = [sum(rule.keep[np.searchsorted(rule.edges, scores[fifth == one], side="right")]) for one in range(5)]
    assert ours == pytest.approx(kept.tolist(), abs=60)


def test_the_whole_pool_and_the_whole_top():
    """A pool of all is the top alone; the top of 1 is DynamicRandom."""
    assert OrderDP(1.0, 0.3).rule(TEN, 1) == Rule([8.0], [0.0, 1.0])
    assert OrderDP(0.3, 1.0).rule(TEN, 1) == Rule([], [0.3])


@given(histograms(max_unseen=20), st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_share_is_held_whatever_the_losses(histogram, pool, top):
    """Unseen samples are kept and count first."""
    rule = OrderDP(pool, top).rule(histogram, 1)
    assert holds(rule, histogram, max(pool * top * histogram.total, histogram.unseen))


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_shares_are_the_promised_ones(shape):
    """Of 20,000 samples, within four standard deviations."""
    policy = OrderDP(0.5, 0.6)
    assert_drawn_as_expected(policy.rule(Histogram.of(SHAPES[shape]), 1), SHAPES[shape], policy.expected_share(1))


def test_before_any_loss_everything_is_kept():
    """In any epoch."""
    assert OrderDP().rule(counted({}, 5), 3) == Rule([], [1.0])
    assert OrderDP().expected_share(0) == 1
    assert OrderDP().expected_share(1) == 0.75 * 0.85


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"random_len_ratio": 0}, r"random_len_ratio=0: give a number in \(0, 1\]"),
        ({"top_q_ratio": 1.1}, r"top_q_ratio=1.1: give a number in \(0, 1\]"),
    ],
)
def test_impossible_settings_are_refused(settings, told):
    """When the policy is made."""
    with pytest.raises(PolicyError, match=told):
        OrderDP(**settings)
