"""What holds for every policy that comes with the package."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from policy_losses import SHAPES, counted, expected_of

from seta_stream.losses.columns import Column
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.table import LossTable
from seta_stream.policies import (
    BLS,
    RS2,
    UCB,
    DynamicRandom,
    EpsilonGreedy,
    Full,
    InfoBatch,
    InfoBatchQuantile,
    Kakurenbo,
    LossProportional,
    OrderDP,
    PerGroup,
    Policy,
    RePB,
    Rule,
    SelectiveBackprop,
    SeTa,
    StaticRandom,
    describe,
)
from seta_stream.policies.deciding import apply, columns_of, decide
from seta_stream.policies.names import POLICIES
from seta_stream.policies.policy import expected_share_of

LOSS_FREE = [Full(), StaticRandom(0.5), DynamicRandom(0.5), RS2(0.5)]
BY_LOSS = [
    EpsilonGreedy(0.5),
    UCB(),
    InfoBatch(9),
    InfoBatchQuantile(9),
    SeTa(9),
    SeTa(9, target=0.5),
    Kakurenbo(9),
    SelectiveBackprop(),
    LossProportional(0.5),
    OrderDP(),
    RePB(),
]
SMOOTHED = [
    kind(*settings, smooth=BLS(0.5))
    for kind, *settings in (
        (EpsilonGreedy, 0.5),
        (UCB,),
        (InfoBatch, 9),
        (InfoBatchQuantile, 9),
        (Kakurenbo, 9),
        (SelectiveBackprop,),
        (LossProportional, 0.5),
        (OrderDP,),
    )
]
EVERY = [*LOSS_FREE, *BY_LOSS, *SMOOTHED]


def named(policy):
    return type(policy).__name__ + (" smoothed" if getattr(policy, "smooth", None) else "")


def test_every_policy_is_tested_here():
    """PerGroup apart, which is another policy's."""
    assert {type(policy) for policy in EVERY} == set(POLICIES) - {PerGroup}


@pytest.mark.parametrize("policy", EVERY, ids=named)
def test_a_policy_is_a_small_value(policy):
    """Frozen, comparable, and alive after pickling, its columns included; described by plain values."""
    assert isinstance(policy, Policy)
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert hash(policy) == hash(pickle.loads(pickle.dumps(policy)))
    for column in columns_of(policy):
        again = pickle.loads(pickle.dumps(column))
        assert isinstance(again, Column)
        assert (again.name, again.dtype, again.source) == (column.name, column.dtype, column.source)
    assert describe(policy)["name"] == type(policy).__name__


@pytest.mark.parametrize("policy", BY_LOSS, ids=named)
@pytest.mark.parametrize("epoch", [0, 1, 5, 8, 99])
def test_before_any_loss_everything_is_taken_alike(policy, epoch):
    """SeTa with its own keep, the others all; also from an empty corpus."""
    rule = policy.rule(counted({}, 9), epoch)
    assert rule.is_loss_free
    assert rule.unseen_keep == (0.9 if policy == SeTa(9) else 1.0)
    assert rule.unseen_weight == 1
    assert isinstance(policy.rule(counted({}), epoch), Rule)


@pytest.mark.parametrize("policy", EVERY, ids=named)
@pytest.mark.parametrize("loss", [0.0, 1.0, -1.0, 3e38, -3e38, 1e-40])
def test_a_single_loss_can_be_kept(policy, loss):
    """One seen sample, and a thousand of the same loss: some chance of being read in every epoch."""
    for count in (1, 1000):
        for epoch in range(9):
            histogram = counted({loss: count})
            assert policy.rule(histogram, epoch).expected_kept(histogram) > 0.05 * count


@pytest.mark.parametrize("policy", BY_LOSS, ids=named)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_epoch_selects_nothing(policy, shape):
    """Whatever the losses; expected shares lie in (0, 1], and unseen samples come back."""
    histogram = Histogram.of(SHAPES[shape])
    for epoch in range(9):
        rule = policy.rule(histogram, epoch)
        # A window over groups, without a target, may hold a few samples only.
        least = 0 if policy == SeTa(9) else 0.05
        assert least < rule.expected_kept(histogram) / histogram.total <= 1 + 1e-9
        assert rule.unseen_keep >= 0.9
        assert (rule.weight > 0).all()


@pytest.mark.parametrize("policy", EVERY, ids=named)
def test_a_share_that_is_known_ahead_is_kept(policy):
    """From the recorded losses of five epochs, of 4,000 samples each: what is decided is what was expected."""
    random = np.random.default_rng(1)
    table = LossTable([1500, 2500], columns_of(policy))
    first_id = np.array([0, 1500, 4000])
    ids = np.arange(4000)
    for epoch in range(5):
        decision = decide(policy, table.remembered(), epoch)
        mask, weight = apply(policy, decision.rule, table.remembered(), first_id, seed=0, epoch=epoch)
        share = expected_share_of(policy, epoch)
        if share is not None:
            assert expected_of(decision) == pytest.approx(share * 4000, rel=1e-9)
        assert abs(mask.sum() - expected_of(decision)) <= 4 * np.sqrt(4000) / 2
        assert weight is None or (weight[mask] > 0).all()
        table.advance()
        losses = random.exponential(size=4000) * (random.random(4000) > 0.3)  # 30 % share the loss 0
        for batch in np.array_split(ids[mask], 8):
            table.record(batch, losses[batch])


@pytest.mark.parametrize("policy", [policy for policy in SMOOTHED if not isinstance(policy, Kakurenbo)], ids=named)
def test_smoothed_policies_need_no_loss_per_sample(policy):
    """The mean of each batch alone is recorded, and yet the harder half has the higher scores in the end."""
    random = np.random.default_rng(0)
    table = LossTable([400], columns_of(policy), takes_means=True)
    hardness = np.repeat([0.1, 1.9], 200)
    for _ in range(60):
        for batch in np.array_split(random.permutation(400), 50):
            table.record(batch, [hardness[batch].mean()])
        table.advance()
    scores = decide(policy, table.remembered(), 5).judgement.scores
    assert scores[200:].mean() > scores[:200].mean()
