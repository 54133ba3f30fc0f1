"""Kakurenbo: stages, flags and what is hidden."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_losses import NAN, SHAPES, assert_drawn_as_expected, counted, expected_of, histograms, holds, keep_of

from seta_stream.errors import LossError, PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.table import LossTable
from seta_stream.policies import BLS, Kakurenbo, Rule
from seta_stream.policies.deciding import apply, columns_of, decide

TEN = counted({float(n): 1 for n in range(1, 11)})


def test_the_lowest_share_is_hidden():
    """Three of ten by default; unseen samples are kept and do not count."""
    histogram = TEN + counted({}, 7)
    rule = Kakurenbo(200).rule(histogram, 1)
    assert rule == Rule([4.0], [0.0, 1.0])
    assert rule.expected_kept(histogram) == 14


def test_a_tie_at_the_cut_is_hidden_in_part():
    """Six of ten share the lowest loss: half of them make three."""
    histogram = counted({0.5: 6} | {1.0 + n: 1 for n in range(4)})
    assert Kakurenbo(200).rule(histogram, 1) == Rule([1.0], [0.5, 1.0])


@pytest.mark.parametrize(
    ("num_epochs", "starts"),
    [
        (200, (0, 60, 120, 160)),
        (100, (0, 30, 60, 80)),
        (90, (0, 27, 54, 72)),
        (30, (0, 9, 18, 24)),
        (5, (0, 2, 3, 4)),  # 1.5, 3, 4
        (1, (0, 1, 1, 1)),  # only the first stage is ever reached
    ],
)
def test_stages_are_scaled_to_the_run(num_epochs, starts):
    """F · (1, 0.8, 0.6, 0.4), from the first epoch that is as far into the run as the published one."""
    policy = Kakurenbo(num_epochs)
    for epoch in range(num_epochs):
        stage = sum(start <= epoch for start in starts) - 1
        assert policy.hidden_share(epoch) == pytest.approx(0.3 * (1, 0.8, 0.6, 0.4)[stage])
    assert policy.hidden_share(num_epochs + 50) == policy.hidden_share(num_epochs)


def test_stages_may_begin_in_given_epochs():
    """Whatever the length of the run; a config's lists become tuples."""
    policy = Kakurenbo(9, fraction=0.5, stages=[1, 0.5], stage_epochs=[0, 3])
    assert [policy.hidden_share(epoch) for epoch in range(5)] == [0.5, 0.5, 0.5, 0.25, 0.25]
    assert policy == Kakurenbo(9, fraction=0.5, stages=(1, 0.5), stage_epochs=(0, 3))


def test_the_learning_rate_makes_up_for_hidden_samples():
    """1 / (1 - 0.3), then 1 / (1 - 0.24); nothing is hidden in epoch 0."""
    policy = Kakurenbo(200)
    assert [policy.learning_rate_factor(epoch) for epoch in (0, 1, 60)] == pytest.approx([1, 1 / 0.7, 1 / 0.76])


def test_flagged_samples_are_moved_back():
    """The cut lies among all ten; of the three below it the one that is flagged stays."""
    flagged = counted({2.0: 1, 9.0: 1})
    plain = counted({float(n): 1 for n in range(1, 11) if n not in (2, 9)})
    rules = Kakurenbo(200).rules({"0": plain, "1": flagged}, 1)
    assert rules.rules["0"] == Rule([4.0], [0.0, 1.0])
    assert rules.rules["1"] == Rule([], [1.0])
    assert rules.expected_kept({"0": plain, "1": flagged}) == 8


@pytest.mark.parametrize("histograms", [{"1": TEN}, {"0": TEN}, {"0": TEN, "7": TEN}])
def test_any_flag_but_0_is_kept(histograms):
    """Groups that do not occur are not there."""
    rules = Kakurenbo(200).rules(histograms, 1).rules
    assert rules.keys() == histograms.keys()
    for flag, rule in rules.items():
        assert rule.expected_kept(TEN) == (7 if flag == "0" else 10)


def test_recorded_flags_decide():
    """From record() to the mask: samples 0 … 9 with losses 1 … 10, of which 1 is flagged and then no longer."""
    policy = Kakurenbo(200)
    table = LossTable([10], columns_of(policy))
    losses = np.arange(1, 11, dtype=np.float32)
    first_id = np.array([0, 10])

    def kept(flags):
        table.record(range(10), losses, flags=flags)
        values = table.remembered()
        decision = decide(policy, values, 1)
        mask, weight = apply(policy, decision.rule, values, first_id, seed=0, epoch=1)
        assert weight is None
        assert mask.sum() == expected_of(decision)
        return np.flatnonzero(mask).tolist()

    assert kept([0, 1] + [0] * 8) == [1, 3, 4, 5, 6, 7, 8, 9]
    assert kept(np.zeros(10, bool)) == [3, 4, 5, 6, 7, 8, 9]


def test_without_recorded_flags_the_lowest_are_hidden():
    """Losses alone are recorded: no sample has a flag."""
    policy = Kakurenbo(200, smooth=BLS(0.5))
    table = LossTable([10], columns_of(policy))
    table.record(range(10), np.arange(1, 11, dtype=np.float32))
    assert expected_of(decide(policy, table.remembered(), 1)) == 7


def test_flags_tell_wrong_and_unsure_predictions():
    """Two classes: a confidence of 0.7 is a difference of log(7/3) = 0.847 between the logits."""
    logits = np.array([[0.85, 0], [0.84, 0], [5, 0], [1000, 0], [NAN, 0]])
    assert Kakurenbo(9).flags(logits, [0, 0, 1, 0, 0]).tolist() == [0, 1, 1, 0, 1]
    assert Kakurenbo(9, threshold=0.5).flags(logits, [0, 0, 1, 0, 0]).tolist() == [0, 0, 1, 0, 1]
    assert Kakurenbo(9).flags(logits, [0] * 5).dtype == np.uint8
    assert Kakurenbo(9).flags(np.zeros((0, 3)), np.zeros(0)).tolist() == []


@pytest.mark.parametrize(("logits", "targets"), [(np.zeros(3), np.zeros(3)), (np.zeros((3, 2)), np.zeros((3, 1)))])
def test_flags_need_a_row_of_logits_per_target(logits, targets):
    """Both shapes are named."""
    with pytest.raises(
        LossError, match=r"Cannot tell flags: logits are .* and targets .*Give \[n, classes\] and \[n\]"
    ):
        Kakurenbo(9).flags(logits, targets)


@given(histograms(max_unseen=9), st.floats(0, 0.99), st.integers(0, 250))
def test_exactly_the_share_is_hidden_whatever_the_losses(histogram, fraction, epoch):
    """Of the seen samples, where none is flagged."""
    policy = Kakurenbo(200, fraction=fraction)
    hidden = policy.hidden_share(epoch) * histogram.seen
    assert holds(policy.rule(histogram, epoch), histogram, histogram.total - hidden)


@given(histograms(), histograms(max_unseen=5), st.floats(0, 0.99))
def test_fewer_are_hidden_where_some_are_flagged(plain, flagged, fraction):
    """By the flagged ones among the lowest: as drawn sample by sample from the sorted losses."""
    policy = Kakurenbo(200, fraction=fraction)
    whole = plain + flagged
    kept = policy.rules({"0": plain, "1": flagged}, 1).expected_kept({"0": plain, "1": flagged})
    hidden = policy.hidden_share(1) * whole.seen
    moved_back = 0.0
    below = 0
    for code in whole.bins:
        inside = min(max(hidden - below, 0), whole.counts[code]) / whole.counts[code]
        moved_back += inside * flagged.counts[code]
        below += whole.counts[code]
    assert kept == pytest.approx(whole.total - hidden + moved_back, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_shares_are_the_promised_ones(shape):
    """Of 20,000 samples, within four standard deviations."""
    scores = SHAPES[shape]
    share = 1 - 0.3 * (1 - np.isnan(scores).mean())
    assert_drawn_as_expected(Kakurenbo(200).rule(Histogram.of(scores), 1), scores, share)


def test_before_any_loss_everything_is_kept():
    """With flags or without; then the share depends on the flags."""
    nothing = counted({}, 5)
    assert Kakurenbo(9).rule(nothing, 3) == Rule([], [1.0])
    assert Kakurenbo(9).rules({"0": nothing}, 3).rules == {"0": Rule([], [1.0])}
    assert keep_of(Kakurenbo(9, fraction=0).rule(TEN, 1), 1.0) == [1]
    assert Kakurenbo(9).expected_share(0) == 1
    assert Kakurenbo(9).expected_share(1) is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"fraction": 1}, "fraction=1: give the share of samples to leave out"),
        ({"threshold": 7}, r"threshold=7: give a number in \[0, 1\]"),
        ({"stages": (1, 2)}, r"stages\[1\]=2: give a number in \[0, 1\]"),
        ({"stages": 0.5}, "stages=0.5: give a tuple of numbers"),
        ({"stages": (1, 0.5)}, r"stages=\(1, 0.5\) are 2 and begin in 4 epochs, .*give as many stage_epochs as stages"),
        ({"stage_epochs": (0, 1)}, r"are 4 and begin in 2 epochs, \(0, 1\)"),
        ({"stage_epochs": (1, 2, 3, 4)}, r"stage_epochs=\(1, 2, 3, 4\): give whole numbers that ascend from 0"),
        ({"stage_epochs": (0, 2, 2, 4)}, "whole numbers that ascend from 0"),
        ({"stage_epochs": (0, 1.5, 2, 3)}, "whole numbers that ascend from 0"),
    ],
)
def test_impossible_settings_are_refused(settings, told):
    """When the policy is made."""
    with pytest.raises(PolicyError, match=told):
        Kakurenbo(200, **settings)
