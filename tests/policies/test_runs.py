"""Runs: what neighbours share, and what that leaves as it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.draws import WordSource
from seta_stream.losses.histogram import Histogram, round_losses
from seta_stream.losses.table import LossTable
from seta_stream.policies import (
    RS2,
    DynamicRandom,
    InfoBatch,
    Kakurenbo,
    LossProportional,
    PerGroup,
    Rule,
    SeTa,
    StaticRandom,
    runs,
    select,
)
from seta_stream.policies.deciding import apply, columns_of, decide
from seta_stream.policies.groups import GroupRules, Labels, select_groups
from seta_stream.policies.runs import EACH, Runs, RunWords, run_scores

NAN = np.float32(np.nan)
SAMPLES = [130, 0, 257, 64, 1, 400]
FIRST_ID = np.concatenate([[0], np.cumsum(SAMPLES)])
TOTAL = sum(SAMPLES)
STEPPED = Rule([0.5, 2.0], [0.0, 0.25, 1.0], [1.0, 4.0, 1.0], unseen_keep=0.5, unseen_weight=2.0)


def run_of(first_id, length):
    """Return the number of each sample's run, counted through the corpus, by a plain loop."""
    found, number = [], -1
    for begin, stop in itertools.pairwise(first_id):
        for position in range(stop - begin):
            number += position % length == 0
            found.append(number)
    return np.array(found, np.int64)


def plain_scores(scores, first_id, length, groups=None):
    """Return the mean of each sample's run, of its own group, in Python's own arithmetic."""
    place = run_of(first_id, length)
    found = []
    for run, group in zip(place, groups if groups is not None else place, strict=True):
        same = (place == run) & (groups == group if groups is not None else True)
        total, count = 0.0, 0
        for score in scores[same].tolist():
            if np.isfinite(score):
                total, count = total + score, count + 1
        found.append(total / count if count else np.nan)
    return round_losses(np.array(found, np.float32))


def losses_with(never=0.1, seed=3, total=TOTAL):
    random = np.random.default_rng(seed)
    losses = round_losses(random.standard_exponential(total).astype(np.float32))
    losses[random.random(total) < never] = NAN
    return losses


# ---- how long


@pytest.mark.parametrize(
    ("unit", "run_bytes", "mean_bytes", "length"),
    [
        ("sample", 0, 3000.0, 1),
        ("run", 0, 3000.0, 1),
        ("sample", 262_144, 3072.0, 85),
        ("sample", 3000, 3000.0, 1),
        ("run", 4600, 3000.0, 2),
        ("run", 100, 3000.0, 1),
        ("sample", 1000, 0.0, 1000),
    ],
)
def test_a_run_holds_about_its_bytes(unit, run_bytes, mean_bytes, length):
    """In whole samples, rounded, at least one; nothing asked for is one."""
    made = Runs.of(unit, run_bytes, mean_bytes)
    assert made == Runs(unit, run_bytes, length)
    assert made.judged_together == (length if unit == "run" else 1)
    assert Runs.from_plain(made.to_plain()) == made


def test_settings_are_compared_without_the_length_that_followed():
    """A corpus that grew has another mean sample, and a run goes on with the length it began with."""
    assert Runs("run", 100, 7).is_asked_as(Runs("run", 100, 8))
    assert not Runs("run", 100, 7).is_asked_as(Runs("sample", 100, 7))
    assert not Runs("run", 100, 7).is_asked_as(Runs("run", 200, 7))


@pytest.mark.parametrize(
    "plain",
    [{"unit": "block"}, {"length": 0}, {"length": 2.0}, {"run_bytes": -1}, {"run_bytes": "1"}, {"length": True}],
)
def test_what_cannot_be_runs_is_refused(plain):
    """By the part that is wrong; a checkpoint says that it is damaged."""
    with pytest.raises(ValueError, match="its runs are"):
        Runs.from_plain(plain)
    with pytest.raises(TypeError, match="colour"):
        Runs.from_plain({"colour": 1})


# ---- one word for all


def test_neighbours_share_a_word():
    """Word r of the shard stands for the positions r · length and on; the words are those that single samples have."""
    source = WordSource(7, "keep", 2)
    single = source.words(4, 100)
    shared = RunWords(source, 3).words(4, 11)
    assert shared.tolist() == [single[position // 3] for position in range(11)]
    assert RunWords(source, 3).words(4, 0).shape == (0,)


@given(
    st.lists(st.integers(0, 40), max_size=6),
    st.integers(1, 50),
    st.integers(0, 5),
    st.sampled_from(["epoch", "fixed", "slice"]),
)
@settings(max_examples=80)
def test_a_selection_is_that_of_a_plain_loop(sizes, length, epoch, draw):
    """Sample by sample: its own keep probability, the word of its run; by `apply` shard by shard too."""
    rule = Rule([0.5, 2.0], [0.125, 0.25, 1.0], unseen_keep=0.5, draw=draw)
    first_id = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    scores = losses_with(total=int(first_id[-1]))
    mask, _ = select(rule, scores, first_id, seed=5, epoch=epoch, run_length=length)
    for shard, size in enumerate(sizes):
        words = WordSource(5, "keep", epoch if draw == "epoch" else -1).words(shard, size).astype(np.int64)
        own = scores[first_id[shard] : first_id[shard + 1]]
        for position, score in enumerate(own.tolist()):
            keep = 0.5 if np.isnan(score) else [0.125, 0.25, 1.0][(score >= 0.5) + (score >= 2.0)]
            word = words[position // length] / 2**32
            turn = epoch * keep if draw == "slice" else 0.0
            kept = keep == 1 or (word - turn) % 1.0 < keep
            assert mask[first_id[shard] + position] == kept
        alone, _ = rule.apply(own, seed=5, epoch=epoch, shard=shard, run_length=length)
        assert np.array_equal(alone, mask[first_id[shard] : first_id[shard + 1]])


@pytest.mark.parametrize("length", [1, 2, 16, 400])
def test_every_sample_is_kept_as_often_as_its_rule_says(length):
    """Over 2,000 seeds within five deviations, however many neighbours it shares its word with; weights likewise."""
    scores = losses_with()
    times, seeds = np.zeros(TOTAL, np.int64), 2000
    chance = np.select([np.isnan(scores), scores < 0.5, scores < 2], [0.5, 0.0, 0.25], 1.0)
    weights = np.select([np.isnan(scores), scores < 0.5, scores < 2], [2.0, 1.0, 4.0], 1.0)
    for seed in range(seeds):
        mask, weight = select(STEPPED, scores, FIRST_ID, seed=seed, epoch=1, run_length=length)
        times += mask
        assert np.array_equal(weight, np.where(mask, weights, 0))
    assert (np.abs(times - chance * seeds) <= 5 * np.sqrt(seeds * chance * (1 - chance))).all()


@pytest.mark.parametrize("length", [2, 16, 85])
def test_where_the_rule_is_flat_runs_are_in_or_out(length):
    """DynamicRandom reads whole runs, about as many as it reads samples otherwise."""
    policy = DynamicRandom(0.5)
    first_id = np.array([0, 20_000, 50_000])
    values = LossTable(np.diff(first_id)).remembered()
    rule = decide(policy, values, 0).rule
    mask, _ = apply(policy, rule, values, first_id, seed=1, epoch=3, runs=Runs("sample", length=length))
    place = run_of(first_id, length)
    shares = np.bincount(place, mask) / np.bincount(place)
    assert set(shares) == {0.0, 1.0}
    assert abs(shares.mean() - 0.5) <= 5 * 0.5 / np.sqrt(len(shares))
    stretches = np.count_nonzero(np.diff(mask.astype(np.int8)) == 1)
    assert stretches < 0.3 * 50_000 / length


def test_a_group_shares_the_words_of_its_neighbours():
    """Samples of two groups in one run compare the same word, each with its own group's chance."""
    labels = Labels(("a", "b"), (np.arange(TOTAL) % 2).astype(np.uint8))
    rules = GroupRules({"a": Rule([], [0.25]), "b": Rule([], [0.75])})
    scores = np.zeros(TOTAL, np.float32)
    mask, _ = select_groups(rules, scores, labels, FIRST_ID, seed=2, epoch=1, run_length=10)
    place = run_of(FIRST_ID, 10)
    kept = [{bool(kept) for kept in mask[(place == run) & (labels.codes == 0)]} for run in range(place.max() + 1)]
    rest = [{bool(kept) for kept in mask[(place == run) & (labels.codes == 1)]} for run in range(place.max() + 1)]
    assert max(map(len, kept + rest)) == 1
    assert all(b in ({True}, set()) for a, b in zip(kept, rest, strict=True) if a == {True})
    assert 0 < kept.count({True}) < rest.count({True}) < len(rest)


@pytest.mark.parametrize("prune_ratio", [0.5, 0.75, 2 / 3])
@pytest.mark.parametrize("length", [1, 7, 300])
def test_turns_cover_everything_once_a_cycle(prune_ratio, length):
    """RS2 in runs: 1 / keep epochs read every sample exactly once, whole runs at a time."""
    policy, cycle = RS2(prune_ratio), round(1 / (1 - prune_ratio))
    values = LossTable(SAMPLES).remembered()
    taken = []
    for epoch in range(2 * cycle):
        rule = decide(policy, values, epoch).rule
        taken.append(apply(policy, rule, values, FIRST_ID, seed=4, epoch=epoch, runs=Runs("sample", length=length))[0])
    for first in range(0, 2 * cycle, cycle):
        assert (np.sum(taken[first : first + cycle], axis=0) == 1).all()
    place = run_of(FIRST_ID, length)
    assert set(np.bincount(place, taken[0]) / np.bincount(place)) <= {0.0, 1.0}


def test_a_fixed_draw_stays():
    """StaticRandom in runs reads the same runs in every epoch."""
    policy = StaticRandom(0.5)
    values = LossTable(SAMPLES).remembered()
    rule = decide(policy, values, 0).rule
    masks = [
        apply(policy, rule, values, FIRST_ID, seed=4, epoch=epoch, runs=Runs("run", 1, 7))[0] for epoch in (0, 1, 9)
    ]
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])
    assert 0 < masks[0].sum() < TOTAL


# ---- one score for all


def test_a_run_has_the_mean_of_its_seen_samples():
    """By hand: half-seen runs go by those seen, infinite scores are unseen, the last run of a shard is short."""
    scores = np.array([1, 3, NAN, 2, NAN, NAN, 8, np.inf, 4, 5], np.float32)
    found = run_scores(scores, np.array([0, 7, 7, 10]), 3)
    assert found.tolist()[:3] == [2, 2, 2]
    assert found.tolist()[3:6] == [2, 2, 2]
    assert found.tolist()[6:] == [8, 4.5, 4.5, 4.5]
    unseen = run_scores(np.array([NAN, NAN, 1], np.float32), np.array([0, 3]), 2)
    assert np.isnan(unseen[:2]).all()
    assert unseen[2] == 1


def test_groups_in_one_run_have_each_their_own_mean():
    """No sample is judged by another group's losses; the unseen ones of a group go with the group."""
    scores = np.array([1, 10, 3, 20, NAN, NAN], np.float32)
    groups = np.array([0, 1, 0, 1, 0, 2], np.uint8)
    found = run_scores(scores, np.array([0, 6]), 6, groups)
    assert found.tolist()[:5] == [2, 15, 2, 15, 2]
    assert np.isnan(found[5])


@given(
    st.lists(st.integers(0, 60), max_size=6),
    st.integers(1, 70),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 3, 5000]),
    st.sampled_from([4, 16, 1 << 16]),
)
@settings(max_examples=120)
def test_means_are_those_of_a_plain_loop(sizes, length, seed, groups, chunk):
    """Bit for bit, for any shards, runs, groups and pieces that the work is done in; negative and huge scores too."""
    first_id = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    random = np.random.default_rng(seed)
    scores = random.standard_normal(first_id[-1]) * 10.0 ** random.integers(-30, 30, first_id[-1])
    scores = round_losses(scores.astype(np.float32))
    scores[random.random(len(scores)) < 0.2] = NAN
    labels = random.integers(0, groups, len(scores)).astype(np.uint16) if groups else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_CHUNK", chunk)
        found = run_scores(scores, first_id, length, labels)
    assert found.dtype == np.float32
    assert np.array_equal(found, plain_scores(scores, first_id, length, labels), equal_nan=True)


def test_large_shards_are_done_in_parts():
    """Pieces of a shard hold whole runs: the same as by the mean of a matrix."""
    scores = losses_with(never=0, total=300_000)
    found = run_scores(scores, np.array([0, 300_000]), 100)
    means = round_losses(scores.reshape(-1, 100).astype(np.float64).mean(axis=1).astype(np.float32))
    assert np.array_equal(found, np.repeat(means, 100))


POLICIES = {
    "target": SeTa(8, target=0.5),
    "window": SeTa(8),
    "published": SeTa.as_published_code(8, 0.2, num_group=5),
    "infobatch": InfoBatch(8),
    "proportional": LossProportional(0.5),
}


def decided(policy, losses, runs, *, epoch=3, seed=1, **recorded):
    """Return what is remembered of these losses, the decision, mask and weights."""
    table = LossTable(SAMPLES, columns_of(policy))
    seen = np.flatnonzero(np.isfinite(losses))
    table.record(seen, losses[seen], **{name: values[seen] for name, values in recorded.items()})
    values = table.remembered()
    decision = decide(policy, values, epoch, first_id=FIRST_ID, runs=runs)
    mask, weight = apply(policy, decision.rule, values, FIRST_ID, seed=seed, epoch=epoch, runs=runs)
    return decision, mask, mask.astype(np.float32) if weight is None else weight


@pytest.mark.parametrize("name", POLICIES)
def test_with_unit_run_whole_runs_are_in_or_out(name):
    """With one weight for all of them, and the histogram counts samples, each by its run's mean."""
    losses = losses_with()
    decision, mask, weight = decided(POLICIES[name], losses, Runs("run", 1, 13))
    place = run_of(FIRST_ID, 13)
    assert np.array_equal(decision.judgement.scores, plain_scores(losses, FIRST_ID, 13), equal_nan=True)
    assert decision.histogram.total == TOTAL
    assert np.array_equal(decision.histogram.counts, Histogram.of(decision.judgement.scores).counts)
    assert not decision.judgement.is_by_loss
    for run in range(place.max() + 1):
        assert (
            len({(bool(kept), float(own)) for kept, own in zip(mask[place == run], weight[place == run], strict=True)})
            == 1
        )
    assert 0 < mask.sum() < TOTAL


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("unit", ["sample", "run"])
def test_runs_of_one_sample_change_nothing(name, unit):
    """Bit for bit what is decided for each sample."""
    losses = losses_with()
    decision, mask, weight = decided(POLICIES[name], losses, Runs(unit, 1, 1))
    plain, plain_mask, plain_weight = decided(POLICIES[name], losses, EACH)
    assert decision.rule == plain.rule
    assert np.array_equal(mask, plain_mask)
    assert np.array_equal(weight, plain_weight)


@pytest.mark.parametrize("length", [4, 32])
def test_a_target_holds_in_samples(length):
    """The expected number kept is the target's share of the samples, by the histogram of run means, and as drawn."""
    losses = losses_with(never=0)
    policy = SeTa(8, target=0.5)
    expected = (1 - 0.5 * 8 / 7) * TOTAL
    counts = []
    for seed in range(300):
        decision, mask, _ = decided(policy, losses, Runs("run", 1, length), seed=seed)
        counts.append(mask.sum())
    assert decision.rule.expected_kept(decision.histogram) == pytest.approx(expected, rel=1e-9)
    assert abs(np.mean(counts) - expected) <= 4 * np.std(counts) / np.sqrt(300) + 1e-6


def test_where_losses_lie_in_order_runs_lose_nothing():
    """Sorted shards: the samples that per-sample windows keep and those of runs are nearly the same."""
    losses = losses_with(never=0)
    for begin, stop in itertools.pairwise(FIRST_ID):
        losses[begin:stop] = np.sort(losses[begin:stop])
    policy = Kakurenbo(8, 0.3)
    _, by_run, _ = decided(policy, losses, Runs("run", 1, 8), flags=np.zeros(TOTAL, np.uint8))
    _, by_sample, _ = decided(policy, losses, EACH, flags=np.zeros(TOTAL, np.uint8))
    assert np.mean(by_run != by_sample) < 0.05


def test_flagged_samples_of_a_run_stay():
    """Kakurenbo moves them back one by one: a run is hidden but for its flagged samples."""
    losses = losses_with(never=0)
    flags = (np.arange(TOTAL) % 5 == 0).astype(np.uint8)
    _, mask, _ = decided(Kakurenbo(8, 0.3), losses, Runs("run", 1, 20), flags=flags)
    assert mask[flags == 1].all()
    place = run_of(FIRST_ID, 20)
    kept = [mask[(place == run) & (flags == 0)] for run in range(place.max() + 1)]
    parted = [inside for inside in kept if 0 < inside.sum() < len(inside)]
    assert sum(not inside.any() for inside in kept if len(inside)) > 5
    # Runs of one mean are tied at the cut and drawn run by run, so none is parted.
    assert parted == []


def test_every_group_keeps_its_share_though_runs_hold_several():
    """Hard and easy classes side by side in each run: each keeps a half of its own."""
    group = (np.arange(TOTAL) % 3).astype(np.uint16)
    losses = losses_with(never=0) * np.array([1, 10, 100], np.float32)[group]
    policy = PerGroup(LossProportional(0.5), "recorded")
    decision, _, _ = decided(policy, losses, Runs("run", 1, 9), group=group)
    for name, (there, kept) in decision.groups.items():
        assert kept == pytest.approx(0.5 * there), name
    counts = np.zeros(3)
    for seed in range(200):
        counts += np.bincount(group[decided(policy, losses, Runs("run", 1, 9), group=group, seed=seed)[1]], minlength=3)
    assert counts / 200 == pytest.approx(0.5 * np.bincount(group), rel=0.03)


def test_weights_give_back_the_whole_with_runs():
    """InfoBatch by runs: keep times weight is 1, so over seeds the weighted losses are those of all samples."""
    losses = losses_with(never=0)
    sums = []
    for seed in range(400):
        _, _, weight = decided(InfoBatch(8), losses, Runs("run", 1, 16), seed=seed)
        assert set(weight) <= {0.0, 1.0, 2.0}
        sums.append(weight.astype(np.float64) @ losses)
    assert abs(np.mean(sums) - losses.sum()) <= 4 * np.std(sums) / np.sqrt(400)


def test_scores_at_hand_are_not_made_again():
    """A decision's scores give the same selection as those that apply makes itself."""
    losses = losses_with()
    values = {"loss": losses, "age": np.zeros(TOTAL, np.uint8)}
    policy, how = SeTa(8, target=0.5), Runs("run", 1, 10)
    decision = decide(policy, values, 3, first_id=FIRST_ID, runs=how)
    own, _ = apply(policy, decision.rule, values, FIRST_ID, seed=1, epoch=3, runs=how)
    given_scores, _ = apply(
        policy, decision.rule, values, FIRST_ID, seed=1, epoch=3, runs=how, scores=decision.judgement.scores
    )
    assert np.array_equal(own, given_scores)
    alone = decide(policy, values, 3, runs=how)  # without places all samples lie in one shard
    assert np.array_equal(alone.judgement.scores, run_scores(losses, np.array([0, TOTAL]), 10), equal_nan=True)
