"""Decisions within groups: labels, histograms, rules and selections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.errors import PolicyError
from seta_stream.losses.columns import Column, latest
from seta_stream.losses.histogram import Histogram, round_losses
from seta_stream.losses.table import LossTable
from seta_stream.policies import DynamicRandom, Full, Rule, SeTa
from seta_stream.policies.deciding import apply, columns_of, decide, scores_of, takes_means, weights_of
from seta_stream.policies.groups import (
    WITHIN,
    GroupHistograms,
    Grouping,
    GroupRules,
    Labels,
    rule_from_plain,
    select_groups,
)
from seta_stream.policies.per_group import PerGroup
from seta_stream.policies.rule import select
from seta_stream.policies.smoothing import BLS

NAN = np.nan
SCORES = st.lists(st.one_of(st.just(NAN), st.floats(-50, 50, width=32)), max_size=40)


def labels_by(*names):
    order = tuple(dict.fromkeys(names))
    return Labels(order, np.array([order.index(name) for name in names], np.uint8))


def harder_half(histogram, epoch):
    return Rule(histogram.quantiles([0.5]), [0.0, 1.0]) if histogram.seen else Rule([], [1.0])


@pytest.mark.parametrize("by", ["folders", None, 3])
def test_a_grouping_must_be_one_that_is_known(by):
    """Naming what is possible."""
    with pytest.raises(PolicyError, match=r"by=.* does not say how samples fall into groups: give one of 'folder'"):
        Grouping(by)


def test_recorded_groups_are_a_column():
    """`by="recorded"` reads what record(group=) told."""
    assert Grouping("recorded") == Grouping(column="group")


def test_labels_of_a_column_by_hand():
    """Distinct values ascending; in a wide column 65535 is no group."""
    labels = Labels.of_column(np.array([7, 65535, 0, 7], np.uint16))
    assert labels.names == ("0", "7", "")
    assert labels.codes.tolist() == [1, 2, 0, 1]
    assert Labels.of_column(np.array([255, 1], np.uint8)).names == ("1", "255")


def test_labels_within_labels_by_hand():
    """Only pairs that occur are groups."""
    joint = labels_by("a", "b", "a", "b").within(labels_by("0", "0", "1", "0"))
    assert joint.names == (f"a{WITHIN}0", f"a{WITHIN}1", f"b{WITHIN}0")
    assert joint.codes.tolist() == [0, 2, 1, 2]


@settings(max_examples=60)
@given(SCORES, st.integers(1, 4), st.integers(0, 40))
def test_group_histograms_equal_dense_ones_and_add_up(values, groups, cut):
    """Each is Histogram.of its samples, whether counted at once or in two parts that are summed."""
    scores = round_losses(np.array(values, np.float32)) if values else np.empty(0, np.float32)
    codes = (np.arange(len(scores)) * 7 % groups).astype(np.uint8)
    labels = Labels(tuple("abcd"[:groups]), codes)
    whole = GroupHistograms.of(scores, labels)
    parts = [Labels(labels.names, codes[part]) for part in (slice(cut), slice(cut, None))]
    summed = GroupHistograms.of(scores[:cut], parts[0]) + GroupHistograms.of(scores[cut:], parts[1])
    for found in (whole, summed):
        assert tuple(found) == labels.names
        for code, name in enumerate(labels.names):
            expected = Histogram.of(scores[codes == code])
            assert np.array_equal(found[name].counts, expected.counts)
            assert found[name].unseen == expected.unseen
            np.testing.assert_equal([found[name].minimum, found[name].maximum], [expected.minimum, expected.maximum])


def test_an_unknown_group_has_no_histogram():
    """As in any mapping."""
    with pytest.raises(KeyError, match="c"):
        GroupHistograms.of(np.zeros(2, np.float32), labels_by("a", "b"))["c"]


@settings(max_examples=60)
@given(SCORES, st.sampled_from(["epoch", "fixed", "slice"]), st.integers(0, 3))
def test_a_selection_within_groups_is_that_of_each_rule(values, draw, epoch):
    """Sample by sample what `select` gives with its group's rule; a group without a rule is kept."""
    scores = round_losses(np.array(values, np.float32)) if values else np.empty(0, np.float32)
    labels = Labels(("a", "b", "c"), (np.arange(len(scores)) % 3).astype(np.uint8))
    first_id = np.array([0, len(scores) // 2, len(scores)])
    rules = {
        "a": Rule([0.0, 1.0], [0.2, 1.0, 0.0], [1.0, 2.0, 3.0], 0.5, 4.0, draw),
        "b": Rule([], [0.3], unseen_keep=0.0, draw=draw),
    }
    mask, weight = select_groups(GroupRules(rules), scores, labels, first_id, seed=5, epoch=epoch)
    for code, rule in enumerate([rules["a"], rules["b"], Rule([], [1.0])]):
        alone, alone_weight = select(rule, scores, first_id, seed=5, epoch=epoch)
        own = labels.codes == code
        assert np.array_equal(mask[own], alone[own])
        expected = alone.astype(np.float32) if alone_weight is None else alone_weight
        assert np.array_equal(weight[own], expected[own])


def test_rules_of_groups_survive_plain_values():
    """As manifests, checkpoints and the history keep them; a plain rule does too."""
    rules = GroupRules({"a": Rule([1.0], [0.5, 1.0]), "b": Rule([], [0.25])})
    assert rule_from_plain(rules.to_plain()) == rules
    assert hash(rules) == hash(GroupRules(dict(rules.rules)))
    assert rule_from_plain(rules.rules["a"].to_plain()) == rules.rules["a"]
    assert not rules.is_loss_free


@pytest.mark.parametrize("rules", [{}, {"a": Rule([], [1.0]), "b": Rule([], [1.0], draw="fixed")}])
def test_rules_of_groups_draw_alike(rules):
    """One kind of draw for all, and at least one rule."""
    with pytest.raises(PolicyError, match="give at least one group, and all of them the same draw"):
        GroupRules(rules)


# ---- PerGroup


def test_each_group_has_its_own_half():
    """Without groups the harder half is class b whole; within groups it is half of each."""
    values = {"loss": np.array([1, 2, 3, 4, 10, 20, 30, 40], np.float32), "age": np.zeros(8, np.uint8)}
    labels = labels_by(*"aaaabbbb")
    policy = PerGroup(harder_half, by="folder")
    decision = decide(policy, values, 1, labels)
    mask, weight = apply(policy, decision.rule, values, np.array([0, 8]), seed=0, epoch=1, indexed=labels)
    assert mask.tolist() == [False, True, True, True, False, True, True, True]
    assert weight is None
    assert decision.groups == {"a": (4, 3.0), "b": (4, 3.0)}
    assert decide(harder_half_policy(), values, 1).groups is None


def harder_half_policy():
    from seta_stream.policies import as_policy

    return as_policy(harder_half)


@pytest.mark.parametrize(("share", "weight"), [(0.1, 10.0), (0.1, 1.0)])
def test_a_floor_raises_what_is_kept(share, weight):
    """0.1 kept and a floor of 0.4: every dropped sample gets a third; a weight that made up for the keep goes on so."""
    policy = PerGroup(lambda histogram, epoch: Rule([], [share], weight, unseen_keep=1.0), "shard", floor=0.4)
    histogram = Histogram.of(np.ones(100, np.float32))
    rule = policy.rules({"a": histogram}, 1).rules["a"]
    assert rule.keep.tolist() == pytest.approx([0.4])
    assert rule.weight.tolist() == pytest.approx([1 / 0.4 if weight == 10 else 1.0])
    assert rule == policy.rule(histogram, 1)


def test_a_floor_that_is_kept_changes_nothing():
    """The policy's own rule comes back; and so does its share for schedules."""
    policy = PerGroup(DynamicRandom(0.5), "shard", floor=0.4)
    histogram = Histogram.of(np.ones(10, np.float32))
    assert policy.rules({"a": histogram}, 1).rules["a"] == DynamicRandom(0.5).rule(histogram, 1)
    assert policy.expected_share(3) == 0.5
    assert PerGroup(DynamicRandom(0.7), "shard", floor=0.4).expected_share(3) is None
    assert PerGroup(SeTa(9), "shard").num_epochs == 9


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((Full(), "shard", 1.5), r"floor=1.5: give the least share of each group to keep"),
        ((Full(), "shard", True), r"floor=True: give the least share"),
        ((Full(), "colour"), r"by='colour' does not say how samples fall into groups"),
        ((PerGroup(Full(), "shard"), "folder"), r"PerGroup\(PerGroup\(…\)\) divides twice"),
    ],
)
def test_what_cannot_be_grouped_is_refused(arguments, told):
    """When the policy is made."""
    with pytest.raises(PolicyError, match=told):
        PerGroup(*arguments)


@dataclass(frozen=True)
class Flagged:
    """Keeps flagged samples; of the others those above the median of all."""

    group = Grouping(column="flags")
    columns = (Column("flags", "uint8", 0, latest, source="flags"),)

    def rule(self, histogram, epoch):
        return Rule([], [1.0])

    def rules(self, histograms, epoch):
        whole = sum(list(histograms.values())[1:], next(iter(histograms.values())))
        own = {"0": Rule(whole.quantiles([0.5]), [0.0, 1.0]), "1": Rule([], [1.0])}
        return GroupRules({name: own[name] for name in histograms})


def test_a_policy_with_groups_of_its_own_is_divided_further():
    """Its rules are made within each outer group."""
    losses = np.array([1, 2, 3, 4, 10, 20, 30, 40], np.float32)
    flags = np.array([1, 0, 0, 0, 0, 0, 0, 1], np.uint8)
    values = {"loss": losses, "age": np.zeros(8, np.uint8), "flags": flags}
    labels = labels_by(*"aaaabbbb")
    policy = PerGroup(Flagged(), "folder")
    assert [column.name for column in columns_of(policy)] == ["flags"]
    decision = decide(policy, values, 1, labels)
    mask, _ = apply(policy, decision.rule, values, np.array([0, 8]), seed=0, epoch=1, indexed=labels)
    assert mask.tolist() == [True, True, True, True, False, True, True, True]
    assert set(decision.groups) == {f"a{WITHIN}0", f"a{WITHIN}1", f"b{WITHIN}0", f"b{WITHIN}1"}


# ---- what a policy leaves out


@dataclass(frozen=True)
class Scored:
    """Judges by twice the loss, and weighs by it."""

    smooth: BLS | None = None
    columns = ()

    def rule(self, histogram, epoch):
        return Rule([3.0], [0.0, 1.0])

    def score(self, values):
        return 2 * values["loss"]

    def weight(self, values, epoch):
        return np.where(np.isnan(values["loss"]), 1, values["loss"]).astype(np.float32)


def test_scores_and_weights_are_the_policys():
    """The rule is compared with the score; the sample's own weight multiplies the rule's."""
    values = {"loss": np.array([1, 2, NAN], np.float32), "age": np.zeros(3, np.uint8)}
    assert scores_of(Scored(), values).tolist()[:2] == [2.0, 4.0]
    mask, weight = apply(Scored(), decide(Scored(), values, 1).rule, values, np.array([0, 3]), seed=0, epoch=1)
    assert mask.tolist() == [False, True, True]
    assert weight.tolist() == [0.0, 2.0, 1.0]
    assert weights_of(Full(), values, 1) is None
    assert not takes_means(Scored())


def test_a_smoothed_policy_judges_by_the_average():
    """Its score sees the average as the loss, and record() takes means."""
    policy = Scored(smooth=BLS(0.5))
    assert [column.name for column in columns_of(policy)] == ["smoothed"]
    assert takes_means(policy)
    table = LossTable([3], columns_of(policy), takes_means=True)
    table.record([0, 1], 4.0)
    table.record([1, 2], 2.0)
    assert table.columns["smoothed"].tolist() == [4.0, 3.0, 2.0]
    assert scores_of(policy, table.remembered()).tolist() == [8.0, 6.0, 4.0]
    assert scores_of(SmoothedOnly(), table.remembered()).tolist() == [4.0, 3.0, 2.0]


@dataclass(frozen=True)
class SmoothedOnly:
    """No score of its own."""

    smooth = BLS(0.5)

    def rule(self, histogram, epoch):
        return Rule([], [1.0])


@pytest.mark.parametrize("alpha", [1.0, -0.1, True, "x"])
def test_an_alpha_is_a_weight_below_one(alpha):
    """Refused when it is made."""
    with pytest.raises(PolicyError, match="give the weight of the old score"):
        BLS(alpha)


class Wrong:
    """Gives scores and weights of other lengths, and two columns of one name."""

    columns = (Column("a", "uint8", 0, latest), Column("a", "uint8", 0, latest))

    def rule(self, histogram, epoch):
        return 3

    def score(self, values):
        return np.zeros(1)

    def weight(self, values, epoch):
        return np.full(len(values["loss"]), -1.0)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda values: columns_of(Wrong()), "has columns of one name among"),
        (lambda values: scores_of(Wrong(), values), r"Wrong.score gave \(1,\) scores for \(2,\) samples"),
        (lambda values: weights_of(Wrong(), values, 3), "Wrong.weight must give one finite weight .* for epoch 3"),
        (lambda values: decide(type("None_", (), {"rule": lambda *_: 3})(), values, 1), "returned a int for epoch 1"),
    ],
)
def test_what_a_policy_may_not_give_is_refused(ask, told):
    """Naming the policy."""
    with pytest.raises(PolicyError, match=told):
        ask({"loss": np.zeros(2, np.float32), "age": np.zeros(2, np.uint8)})
