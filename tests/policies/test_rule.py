"""Rules and selections."""

from __future__ import annotations

import json
import pickle

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seta_stream.draws import WordSource
from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram, bin_floors, codes, round_losses
from seta_stream.policies import Rule, select

NAN = float("nan")
THREE_STEPS = Rule([0.5, 2.0], [0.0, 0.25, 1.0], [1.0, 4.0, 1.0], unseen_keep=0.5, unseen_weight=2.0)


def test_steps_are_closed_below_and_open_above():
    """A score on an edge belongs to the step above it; NaN and infinities are unseen."""
    rule = Rule([-1.0, 0.0, 1.0], [0, 1, 0, 1], [1, 2, 1, 3], unseen_keep=0)
    scores = [-5, -1.01, -1.0, -1e-30, -0.0, 0.0, 0.9999, 1.0, 1e38, NAN, np.inf, -np.inf]
    mask, weight = rule.apply(scores, seed=0, epoch=0, shard=0)
    assert mask.astype(int).tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]
    assert weight.tolist() == [0, 0, 2, 2, 0, 0, 0, 3, 3, 0, 0, 0]


def test_a_kept_sample_has_a_word_below_its_threshold():
    """Integer compare with the raw words of the shard, by epoch or for the run."""
    scores = np.array([0.1, 1.0, 3.0, NAN] * 100, np.float32)
    mask, weight = THREE_STEPS.apply(scores, seed=5, epoch=2, shard=7)
    words = WordSource(5, "keep", 2).words(7, 400).astype(np.int64)
    limits = np.tile([0, 2**30, 2**32, 2**31], 100)
    assert np.array_equal(mask, words < limits)
    assert np.array_equal(weight, np.where(mask, np.tile([0, 4, 1, 2], 100), 0))
    fixed = Rule([], [0.25], unseen_keep=0.25, draw="fixed")
    kept = WordSource(5, "keep", -1).words(7, 400) < 2**30
    for epoch in (0, 9):
        assert np.array_equal(fixed.apply(scores, seed=5, epoch=epoch, shard=7)[0], kept)


@pytest.mark.parametrize("keep", [0.5, 0.25, 1 / 3, 0.1, 1 / 7])
def test_slices_take_every_sample_once_a_cycle(keep):
    """RS2's draw: 1/keep epochs in a row cover everything exactly once."""
    rule = Rule([], [keep], unseen_keep=keep, draw="slice")
    scores = np.zeros(3000, np.float32)
    taken = [rule.apply(scores, seed=1, epoch=epoch, shard=0)[0] for epoch in range(2 * round(1 / keep))]
    assert (np.sum(taken[: len(taken) // 2], axis=0) == 1).all()
    assert (np.sum(taken, axis=0) == 2).all()


def test_slices_may_differ_by_step():
    """Each step has its own cycle, and certain or impossible steps none."""
    rule = Rule([1, 2, 3], [0.0, 0.5, 0.25, 1.0], draw="slice", unseen_keep=0.5)
    scores = np.tile(np.array([0.5, 1.5, 2.5, 3.5, NAN], np.float32), 200)
    taken = np.sum([rule.apply(scores, seed=1, epoch=epoch, shard=0)[0] for epoch in range(4)], axis=0)
    assert np.array_equal(taken, np.tile([0, 2, 1, 4, 2], 200))


@st.composite
def rules(draw):
    edges = sorted(draw(st.lists(st.floats(-4, 4, width=32), max_size=6)))
    chance = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    keep = [draw(chance) for _ in range(len(edges) + 1)]
    weight = draw(st.one_of(st.just(1.0), st.lists(st.floats(0, 8, width=32), min_size=len(keep), max_size=len(keep))))
    kind = draw(st.sampled_from(["epoch", "fixed", "slice"]))
    return Rule(
        edges, keep, weight, unseen_keep=draw(chance), unseen_weight=draw(st.sampled_from([1.0, 3.0])), draw=kind
    )


@given(rules(), st.lists(st.integers(0, 40), max_size=8), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_select_is_apply_shard_by_shard(rule, sizes, epoch, random):
    """Bit for bit, weights too; None stands for weights of 1."""
    first_id = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rng = np.random.default_rng(random.getrandbits(32))
    values = rng.normal(0, 2, first_id[-1]).astype(np.float32)
    values[rng.random(len(values)) < 0.2] = NAN
    mask, weight = select(rule, values, first_id, seed=3, epoch=epoch)
    for shard in range(len(sizes)):
        part = slice(first_id[shard], first_id[shard + 1])
        expected, weights = rule.apply(values[part], seed=3, epoch=epoch, shard=shard)
        assert np.array_equal(mask[part], expected)
        assert np.array_equal(expected.astype(np.float32) if weight is None else weight[part], weights)


@pytest.mark.parametrize("sizes", [[200_000], [70_000, 1, 0, 65_536, 30], [1000] * 150])
def test_select_is_apply_for_large_and_small_shards(sizes):
    """Shards longer than a chunk, and many in one."""
    first_id = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    values = np.random.default_rng(0).exponential(size=first_id[-1]).astype(np.float32)
    mask, weight = select(THREE_STEPS, values, first_id, seed=3, epoch=1)
    parts = [
        THREE_STEPS.apply(values[first_id[at] : first_id[at + 1]], seed=3, epoch=1, shard=at)
        for at in range(len(sizes))
    ]
    assert np.array_equal(mask, np.concatenate([part[0] for part in parts]))
    assert np.array_equal(weight, np.concatenate([part[1] for part in parts]))


@given(hnp.arrays(np.float32, 50, elements=st.floats(-100, 100, width=32)), rules())
@settings(max_examples=50, deadline=None)
def test_a_histogram_tells_what_a_rule_covers(scores, rule):
    """Edges are bin boundaries, so counts by step are exact, for scores that are not rounded too."""
    scores[::9] = NAN
    histogram = Histogram.of(scores)
    step = np.searchsorted(rule.edges, scores[~np.isnan(scores)], side="right")
    assert rule.masses(histogram).tolist() == np.bincount(step, minlength=rule.steps).tolist()
    expected = rule.keep[step].sum() + histogram.unseen * rule.unseen_keep
    assert rule.expected_kept(histogram) == pytest.approx(expected)


def test_edges_are_snapped_down_to_bins():
    """Twice changes nothing; equal edges leave an empty step."""
    edges = np.array([-1.00001, 0.1, 0.1000001, 7.7], np.float32)
    rule = Rule(edges, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert np.array_equal(rule.edges, bin_floors(codes(edges)))
    assert (rule.edges <= edges).all()
    assert rule.edges[1] == rule.edges[2]
    assert Rule(rule.edges, rule.keep) == rule


def test_a_rule_of_many_steps_is_a_table():
    """One step per bin, thousands of them."""
    values = np.unique(round_losses(np.random.default_rng(0).exponential(size=5000).astype(np.float32)))
    rule = Rule(values[1:], np.arange(len(values)) % 2)
    mask, _ = rule.apply(values, seed=0, epoch=0, shard=0)
    assert np.array_equal(mask, np.arange(len(values)) % 2 == 1)


@pytest.mark.parametrize(
    "through", [lambda plain: json.loads(json.dumps(plain)), lambda p: msgpack.unpackb(msgpack.packb(p))]
)
def test_a_rule_survives_its_plain_form(through):
    """Floats are exact through JSON and msgpack; equal rules have equal hashes."""
    rule = Rule([0.1, 0.7], [1 / 3, 0.1, 1], [1, 3.3, 1], unseen_keep=0.9, draw="fixed")
    again = Rule.from_plain(through(rule.to_plain()))
    assert again == rule
    assert hash(again) == hash(rule)
    assert again != Rule([0.1, 0.7], [1 / 3, 0.1, 1])
    assert pickle.loads(pickle.dumps(rule)) == rule


@pytest.mark.parametrize(
    ("rule", "free"),
    [
        (Rule([], [0.5], unseen_keep=0.5), True),
        (Rule([], [1.0]), True),
        (Rule([], [0.5]), False),
        (Rule([], [1.0], 2.0), False),
        (Rule([1.0], [0.5, 0.5], unseen_keep=0.5), False),
    ],
)
def test_a_rule_says_whether_losses_matter(rule, free):
    """One step that treats the unseen alike."""
    assert rule.is_loss_free is free


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (([1.0], [1.0]), "1 edges has 2 steps, and 1 keep probabilities"),
        (([1.0], [1, 1], [1, 1, 1]), "and 2 keep probabilities and 3 weights"),
        (([2.0, 1.0], [1, 1, 1]), "must be finite and ascending"),
        (([NAN], [1, 1]), "must be finite and ascending"),
        (([np.inf], [1, 1]), "must be finite and ascending"),
        (([1e39], [1, 1]), "must be finite and ascending"),
        (([], [1.1]), r"must lie in 0 … 1, and \[1.1, 1.0\]"),
        (([], [NAN]), "must lie in 0"),
        (([], [1], 1, -0.1), "must lie in 0"),
        (([], [1], -1), "must be finite and at least 0"),
        (([], [1], np.inf), "must be finite and at least 0"),
        (([], [1], 1, 1, NAN), "must be finite and at least 0"),
        (([], [1], 1, 1, 1, "often"), "cannot draw by 'often': choose one of epoch, fixed, slice"),
        (([], ["all"]), r"keep must be numbers, and \['all'\] is not"),
    ],
)
def test_a_malformed_rule_is_refused(arguments, told):
    """With what was wrong."""
    with pytest.raises(PolicyError, match=told):
        Rule(*arguments)


def test_a_plain_form_with_other_parts_is_refused():
    """Unknown and missing ones."""
    with pytest.raises(PolicyError, match="Cannot read a rule from"):
        Rule.from_plain({"edges": [], "keep": [1], "colour": "blue"})
    with pytest.raises(PolicyError, match="Cannot read a rule from"):
        Rule.from_plain({"keep": [1]})
