"""Full, the random policies, and callables as policies."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies import DynamicRandom, Full, Policy, Rule, SeTa, StaticRandom, as_policy, describe
from seta_stream.policies.policy import expected_share_of, rule_of

HISTOGRAM = Histogram.of(np.array([1, 2, float("nan")], np.float32))
SCORES = np.random.default_rng(0).exponential(size=20_000).astype(np.float32)


def below_the_mean(histogram, epoch):
    """A user's own policy: the harder part after the first epoch."""
    return Rule([histogram.mean], [0.0 if epoch else 1.0, 1.0])


class OnlyRule:
    """An object with nothing but `rule`."""

    def rule(self, histogram, epoch):
        return below_the_mean(histogram, epoch)


@pytest.mark.parametrize(
    ("policy", "keep", "draw"),
    [(Full(), 1.0, "epoch"), (StaticRandom(0.3), 0.7, "fixed"), (DynamicRandom(prune_ratio=0.3), 0.7, "epoch")],
)
def test_loss_free_policies_have_one_step(policy, keep, draw):
    """Unseen samples are treated alike, and the share is known ahead."""
    rule = policy.rule(HISTOGRAM, 3)
    assert (rule.keep.tolist(), rule.unseen_keep, rule.draw, rule.is_loss_free) == ([keep], keep, draw, True)
    assert policy.expected_share(3) == keep
    assert isinstance(policy, Policy)


def test_a_static_subset_stays_and_a_dynamic_one_changes():
    """Both keep the share asked for, within four standard deviations."""
    static, dynamic = (
        [policy.rule(HISTOGRAM, epoch).apply(SCORES, seed=0, epoch=epoch, shard=0)[0] for epoch in range(2)]
        for policy in (StaticRandom(0.3), DynamicRandom(0.3))
    )
    assert np.array_equal(static[0], static[1])
    assert not np.array_equal(dynamic[0], dynamic[1])
    for mask in (*static, *dynamic):
        assert abs(mask.mean() - 0.7) < 4 * np.sqrt(0.21 / len(SCORES))


@pytest.mark.parametrize("kind", [StaticRandom, DynamicRandom])
@pytest.mark.parametrize("wrong", [1.0, -0.1, "x", True, float("nan")])
def test_a_prune_ratio_is_a_share_below_one(kind, wrong):
    """Refused when the policy is made."""
    with pytest.raises(PolicyError, match=r"prune_ratio=.*give the share of samples to leave out"):
        kind(wrong)


@pytest.mark.parametrize("given", [below_the_mean, OnlyRule(), partial(below_the_mean)])
def test_a_callable_is_a_policy(given):
    """So is an object with `rule` alone."""
    policy = as_policy(given)
    assert policy.rule(HISTOGRAM, 1) == Rule([1.5], [0.0, 1.0])
    assert expected_share_of(policy, 1) is None


def test_a_policy_stays_itself():
    """Nothing is wrapped twice."""
    policy = SeTa(9)
    assert as_policy(policy) is policy
    wrapped = as_policy(below_the_mean)
    assert as_policy(wrapped) is wrapped


@pytest.mark.parametrize(
    ("given", "told"), [(3, "3 is no policy: give Full"), (Full, r"Full is a class: .* Full\(…\)")]
)
def test_what_is_no_policy_is_refused(given, told):
    """A value, and a class in place of its value."""
    with pytest.raises(PolicyError, match=told):
        as_policy(given)


def test_a_callable_must_return_a_rule():
    """The message names the callable and what came."""
    with pytest.raises(PolicyError, match="policy max returned a int for epoch 2"):
        rule_of(as_policy(max), 1, 2)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (Full(), {"name": "Full"}),
        (StaticRandom(0.5), {"name": "StaticRandom", "prune_ratio": 0.5}),
        (as_policy(below_the_mean), {"name": "below_the_mean"}),
        (as_policy(OnlyRule()), {"name": "OnlyRule"}),
    ],
)
def test_a_policy_is_described_by_plain_values(policy, told):
    """For checkpoints and the history."""
    assert describe(policy) == told


def test_seta_describes_all_its_settings():
    """A checkpoint notices any that differs."""
    assert describe(SeTa(9, target=0.5))["target"] == 0.5
    assert describe(SeTa(9)) != describe(SeTa(9, delta=0.5))
