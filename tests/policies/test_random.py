"""RS2: random samples in turns. (The other random policies are tested in test_policies.py.)"""

from __future__ import annotations

import numpy as np
import pytest
from policy_losses import NAN, SHAPES, assert_drawn_as_expected, counted

from seta_stream.errors import PolicyError
from seta_stream.policies import RS2


def masks(policy, epochs, scores):
    return [policy.rule(None, epoch).apply(scores, seed=3, epoch=epoch, shard=0)[0] for epoch in range(epochs)]


@pytest.mark.parametrize(("prune_ratio", "epochs"), [(0.5, 2), (0.75, 4), (0.9, 10), (2 / 3, 3), (6 / 7, 7), (0.0, 1)])
def test_a_cycle_reads_every_sample_once(prune_ratio, epochs):
    """1 / keep epochs, and as many again."""
    taken = np.sum(masks(RS2(prune_ratio), 2 * epochs, np.zeros(5000, np.float32)), axis=0)
    assert (taken == 2).all()


def test_a_cycle_may_end_inside_an_epoch():
    """With keep 0.7 ten epochs read each sample seven times, and no two samples ever differ by more than one."""
    each = np.cumsum(masks(RS2(0.3), 10, np.zeros(5000, np.float32)), axis=0)
    assert (each[-1] == 7).all()
    assert (each.max(axis=1) - each.min(axis=1) <= 1).all()


def test_turns_need_no_losses():
    """Seen and unseen samples are treated alike, so an epoch's share is known ahead."""
    rule = RS2(0.75).rule(counted({1.0: 3}, 3), 5)
    assert (rule.keep.tolist(), rule.unseen_keep, rule.draw, rule.is_loss_free) == ([0.25], 0.25, "slice", True)
    assert RS2(0.75).expected_share(5) == 0.25
    assert RS2.needs_losses is False


@pytest.mark.parametrize("epoch", [0, 1, 9])
def test_the_share_of_an_epoch_is_the_promised_one(epoch):
    """Within four standard deviations, unseen samples included."""
    assert_drawn_as_expected(RS2(0.7).rule(None, epoch), SHAPES["5 % unseen"], 0.3, epoch)


@pytest.mark.parametrize("wrong", [1.0, -0.1, NAN, "x"])
def test_a_prune_ratio_is_a_share_below_one(wrong):
    """Refused when the policy is made."""
    with pytest.raises(PolicyError, match=r"prune_ratio=.*give the share of samples to leave out"):
        RS2(wrong)
