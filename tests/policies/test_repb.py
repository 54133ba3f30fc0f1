"""RePB: windows of a batch, re-entry, and weights by visits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_losses import NAN, counted, expected_of

from seta_stream.errors import PolicyError
from seta_stream.losses.table import LossTable
from seta_stream.policies import RePB, Rule
from seta_stream.policies.deciding import apply, columns_of, decide, scores_of, weights_of
from seta_stream.policies.repb import BELOW, HARD, MISSED


def remembering(policy, samples):
    return LossTable([samples], columns_of(policy))


def test_losses_are_compared_within_their_batch():
    """Two batches of means 2 and 20: 2 and 3 are hard in the first, 10 is easy in the second."""
    policy = RePB()
    table = remembering(policy, 7)
    table.record([0, 1, 2], [1.0, 2.0, 3.0])
    table.record([3, 4], [10.0, 30.0])
    table.record([5], [0.1])  # alone it is its own mean
    scores = scores_of(policy, table.remembered())
    assert scores[:6].tolist() == [BELOW, HARD, HARD, BELOW, HARD, HARD]
    assert np.isnan(scores[6])


def test_what_the_newest_epoch_did_not_visit_is_left_to_chance():
    """However hard it was before; visited again, it is judged again."""
    policy = RePB()
    table = remembering(policy, 3)
    table.record([0, 1, 2], [1.0, 2.0, 9.0])
    table.advance()
    table.record([0, 1], [5.0, 2.0])
    assert scores_of(policy, table.remembered()).tolist() == [HARD, BELOW, MISSED]


def test_a_batch_of_equal_losses_is_hard():
    """None is below the mean, whatever rounding does to it."""
    table = remembering(RePB(), 700)
    table.record(range(700), np.full(700, 0.1, np.float32))
    assert (scores_of(RePB(), table.remembered()) == HARD).all()


@pytest.mark.parametrize("prune_ratio", [0.0, 0.5, 0.8])
def test_hard_samples_are_kept_and_the_others_by_chance(prune_ratio):
    """Of 3 missed, 4 easy, 2 hard and 1 unseen: 1 - prune_ratio of seven, and three."""
    histogram = counted({MISSED: 3, BELOW: 4, HARD: 2}, 1)
    rule = RePB(prune_ratio).rule(histogram, 1)
    assert rule == Rule([2.0], [1 - prune_ratio, 1.0])
    assert rule.expected_kept(histogram) == pytest.approx(7 * (1 - prune_ratio) + 3)


def test_weights_make_up_for_missed_epochs():
    """Epoch 3 is the fourth: a sample in its fourth visit 4/4, in its third 4/3, in its second 4/2; capped at 1.5."""
    values = {"visits": np.array([3, 2, 1], np.uint16)}
    assert RePB().weight(values, 3).tolist() == pytest.approx([1, 4 / 3, 2])
    assert RePB(max_weight=1.5).weight(values, 3).tolist() == pytest.approx([1, 4 / 3, 1.5])
    assert RePB(0.8).weight({"visits": np.zeros(1, np.uint16)}, 99).tolist() == [pytest.approx(10)]
    assert RePB().weight({"visits": np.zeros(1, np.uint16)}, 0).tolist() == [1]


@pytest.mark.parametrize("chance", [0.2, 0.5, 0.9])
def test_a_sample_left_to_chance_weighs_nearly_one_from_the_start(chance):
    """On average over its draws the E-th epoch gives it 1 - (1 - p)^E: derived in the docstring, here simulated."""
    random = np.random.default_rng(0)
    visits = np.zeros(200_000, np.uint16)
    policy = RePB(max_weight=1e6)
    for epoch in range(12):
        drawn = random.random(len(visits)) < chance
        mean = (policy.weight({"visits": visits}, epoch) * drawn).mean()
        assert mean == pytest.approx(1 - (1 - chance) ** (epoch + 1), abs=0.02)
        visits += drawn


def test_visits_are_counted_and_saturate():
    """Once per record; 65,535 stays."""
    table = remembering(RePB(), 2)
    for _ in range(3):
        table.record([0], [1.0])
    table.columns["visits"][1] = 65_535
    table.record([1], [1.0])
    assert table.columns["visits"].tolist() == [3, 65_535]


def test_a_run_keeps_and_weighs_as_decided():
    """Four samples through two epochs, from record() to mask and weights."""
    policy = RePB(prune_ratio=0.0)
    table, first_id = remembering(policy, 4), np.array([0, 4])
    table.record(range(4), [1.0, 1.0, 5.0, NAN])
    values = table.remembered()
    decision = decide(policy, values, 1)
    assert expected_of(decision) == 4
    mask, weight = apply(policy, decision.rule, values, first_id, seed=0, epoch=1)
    assert mask.all()
    assert weight.tolist() == [1, 1, 1, 2]  # the last was never seen: 2 epochs, 1 visit
    assert weights_of(policy, values, 1).tolist() == [1, 1, 1, 2]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 9), st.floats(0, 0.99))
def test_the_share_follows_from_what_happened(missed, below, hard, unseen, prune_ratio):
    """Hard and unseen samples are certain, the others kept with 1 - prune_ratio."""
    histogram = counted({MISSED: missed, BELOW: below, HARD: hard}, unseen)
    kept = RePB(prune_ratio).rule(histogram, 1).expected_kept(histogram)
    assert kept == pytest.approx(hard + unseen + (1 - prune_ratio) * (missed + below))


def test_before_any_loss_everything_is_kept():
    """In any epoch; then the share depends on the losses."""
    assert RePB().rule(counted({}, 5), 3) == Rule([], [1.0])
    assert RePB().expected_share(0) == 1
    assert RePB().expected_share(1) is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prune_ratio": 1.0}, "prune_ratio=1.0: give the share"),
        ({"max_weight": 0.5}, "max_weight=0.5: give a finite number, at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings, told):
    """When the policy is made."""
    with pytest.raises(PolicyError, match=told):
        RePB(**settings)
