"""What every policy promises, held against drawn samples: shares, weights, turns, and what is kept at first."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from policy_rows import EPOCHS, GROUPS, ROWS, empty_table, keep_of, losses_at, record_epoch, run

from seta_stream.policies import RS2, PerGroup, StaticRandom, select
from seta_stream.policies.deciding import apply, decide
from seta_stream.policies.names import POLICIES
from seta_stream.policies.policy import expected_share_of

SAMPLES = [350, 0, 650, 500]
TOTAL = sum(SAMPLES)
FIRST_ID = np.concatenate([[0], np.cumsum(SAMPLES)])
SHAPES = ("exponential", "late training", "lognormal")

SEEDS = 100

EVERY = pytest.mark.parametrize("name", ROWS)


def deviation(share, count):
    """The standard deviation of how many of `count` are drawn: no keeps of this mean have a larger one."""
    return np.sqrt(max(count * share * (1 - share), 0))


def drawn(policy, rule, values, *, seed=1, epoch=1):
    mask, weight = apply(policy, rule, values, FIRST_ID, seed=seed, epoch=epoch)
    return mask, mask.astype(np.float32) if weight is None else weight


def remembered(name, shape, unseen=0.0):
    """Return what a policy remembers after three epochs that saw everything but a share of the samples."""
    table = empty_table(ROWS[name].policy, SAMPLES)
    ids = np.flatnonzero(np.random.default_rng(3).random(TOTAL) >= unseen)
    for epoch in range(3):
        table.advance()
        record_epoch(table, ids, losses_at(shape, TOTAL, epoch), epoch)
    return table.remembered()


def test_every_policy_has_a_row():
    """A new one is held to its promises or fails here."""
    assert {type(row.policy) for row in ROWS.values()} == set(POLICIES)


@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name in ROWS for shape in SHAPES if shape == SHAPES[0] or "Per" not in name]
)
def test_the_share_kept_is_the_share_promised(name, shape):
    """In every epoch of a run: by the steps of its rule, by `expected_share` ahead, and as drawn within 5 deviations.

    Every kept sample counts once, unless the method promises a weight.
    """
    row = ROWS[name]
    missed = variance = 0.0
    for epoch in run(row.policy, SAMPLES, shape):
        assert epoch.weight is None or row.unbiased or row.own_weights
        keep = keep_of(row.policy, epoch.decision.rule, epoch.values)
        told = expected_share_of(row.policy, epoch.number)
        # Without a target SeTa promises no share: test_published_seta.py holds its windows against the losses.
        share = row.share(epoch.values, epoch.number) if row.share else told
        if share is not None:
            # A mean is snapped down to its bin, and what lies in that bin above it is not pruned.
            assert keep.sum() == pytest.approx(share * TOTAL, rel=1e-6 if told else 0.005)
            assert told is None or told == pytest.approx(share, abs=1e-9)
        missed += epoch.mask.sum() - keep.sum()
        variance += (keep * (1 - keep)).sum()
        assert abs(epoch.mask.sum() - keep.sum()) <= 5 * np.sqrt((keep * (1 - keep)).sum()) + 1e-6
    # What is drawn once for the run, or in turns, is not drawn independently in each epoch.
    assert abs(missed) <= 4 * np.sqrt((EPOCHS if row.draw == "fixed" else 1) * variance) + 1e-6


@EVERY
def test_unseen_samples_are_kept_as_promised(name):
    """A fifth never seen: kept surely unless said otherwise, and counted first where the share is one of all."""
    row = ROWS[name]
    values = remembered(name, "exponential", unseen=0.2)
    decision = decide(row.policy, values, 4)
    mask, weight = drawn(row.policy, decision.rule, values, epoch=4)
    unseen = np.isnan(values["loss"])
    count = int(unseen.sum())
    keep = row.unseen_keep
    if keep is None:  # as the samples of loss 3 are kept
        rule = decision.rule
        keep = float(rule.keep[np.searchsorted(rule.edges, np.float32(3.0), side="right")])
    assert abs(mask[unseen].sum() - keep * count) <= 5 * deviation(keep, count)
    assert set(weight[unseen & mask]) <= {1.0} or row.own_weights
    if row.share is not None and keep == 1:
        share = row.share({column: array[~unseen] for column, array in values.items()}, 4)
        wanted = share * TOTAL - count if row.unseen_first else share * (TOTAL - count)
        assert abs(mask[~unseen].sum() - wanted) <= 5 * deviation(wanted / (TOTAL - count), TOTAL - count) + 5


@pytest.mark.parametrize("epoch", [0, 1, 5, EPOCHS - 1])
@EVERY
def test_where_nothing_was_seen_all_is_kept(name, epoch):
    """But for what is left out at random whatever the losses, and with weight 1."""
    row = ROWS[name]
    values = empty_table(row.policy, SAMPLES).remembered()
    keep = 0.8 if row.unseen_keep is None else row.unseen_keep
    mask, weight = drawn(row.policy, decide(row.policy, values, epoch).rule, values, epoch=epoch)
    assert abs(mask.sum() - keep * TOTAL) <= 5 * deviation(keep, TOTAL)
    if not row.own_weights:
        assert np.array_equal(weight, mask)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.unbiased])
def test_unbiased_weights_give_back_the_whole(name, shape):
    """Keep times weight is 1 for each sample, and over seeds the weighted losses sum up to those of all samples."""
    policy = ROWS[name].policy
    values = remembered(name, shape, unseen=0.1)
    rule = decide(policy, values, 4).rule
    keep = keep_of(policy, rule, values)
    losses = np.nan_to_num(values["loss"].astype(np.float64))
    sums, visited = [], np.zeros(TOTAL, np.int64)
    for seed in range(SEEDS):
        mask, weight = drawn(policy, rule, values, seed=seed)
        assert keep[mask] * weight[mask] == pytest.approx(1, rel=2e-7)
        assert not weight[~mask].any()
        visited += mask
        sums.append(weight.astype(np.float64) @ losses)
    assert abs(np.mean(sums) - losses.sum()) <= 4 * np.std(sums) / np.sqrt(SEEDS) + 1e-6 * losses.sum()
    # No sample is forgotten: each was visited about as often as its keep says.
    assert (np.abs(visited - keep * SEEDS) <= 6 * np.sqrt(SEEDS * keep * (1 - keep))).all()


def test_repb_counts_every_sample_about_once_an_epoch():
    """By E / N the mean weight nears 1 where the mean visit is 0.61: within 6 % from epoch 10 to 39, for easy ones 8.

    Not before: epoch 0 reads everything and counts as one of N visits, so that weights begin too low.
    """
    policy = ROWS["RePB"].policy
    given, visits = [], []
    easy = losses_at("exponential", TOTAL, 0) < 0.5
    for epoch in run(policy, SAMPLES, "exponential", epochs=40):
        assert (epoch.weights <= 2 / 0.5).all()
        given.append(epoch.weights)
        visits.append(epoch.mask)
    assert np.mean(visits[10:]) < 0.65
    assert np.mean(given[10:]) == pytest.approx(1, abs=0.06)
    assert np.mean([weights[easy] for weights in given[10:]]) == pytest.approx(1, abs=0.08)


@EVERY
def test_the_same_seed_and_epoch_give_the_same_mask(name):
    """So does the policy after pickling; another seed gives another mask where anything is left to chance."""
    policy = ROWS[name].policy
    values = remembered(name, "exponential")
    rule = decide(policy, values, 4).rule
    mask, weight = drawn(policy, rule, values, epoch=4)
    again = pickle.loads(pickle.dumps(policy))
    mask_again, weight_again = drawn(again, decide(again, values, 4).rule, values, epoch=4)
    assert np.array_equal(mask, mask_again)
    assert np.array_equal(weight, weight_again)
    chance = keep_of(policy, rule, values)
    other, _ = drawn(policy, rule, values, seed=2, epoch=4)
    assert mask[chance == 1].all()
    assert not mask[chance == 0].any()
    assert np.array_equal(other, mask) == bool(np.isin(chance, (0, 1)).all())


@EVERY
def test_another_epoch_draws_anew_unless_the_draw_is_for_the_run(name):
    """Two epochs of one rule agree on as many samples as independent draws do, or on all, or take turns."""
    row = ROWS[name]
    values = remembered(name, "exponential")
    rule = decide(row.policy, values, 4).rule
    assert rule.draw == row.draw
    one, other = (drawn(row.policy, rule, values, epoch=epoch)[0] for epoch in (4, 5))
    if row.draw == "fixed":
        assert np.array_equal(one, other)
    elif row.draw == "slice":
        assert not (one & other).any()
    else:
        chance = keep_of(row.policy, rule, values)
        agreeing = chance**2 + (1 - chance) ** 2
        assert abs((one == other).sum() - agreeing.sum()) <= 5 * np.sqrt((agreeing * (1 - agreeing)).sum())


@pytest.mark.parametrize("prune_ratio", [0.5, 0.75, 0.9, 2 / 3, 0.0])
def test_rs2_reads_everything_once_a_cycle(prune_ratio):
    """Whatever was recorded meanwhile: 1 / keep epochs read every sample once, from any whole cycle on."""
    policy, cycle = RS2(prune_ratio), round(1 / (1 - prune_ratio))
    masks = [epoch.mask for epoch in run(policy, SAMPLES, "exponential", epochs=3 * cycle)]
    for first in range(0, 3 * cycle, cycle):
        assert (np.sum(masks[first : first + cycle], axis=0) == 1).all()


@pytest.mark.parametrize("prune_ratio", [0.3, 0.37, 0.55])
def test_rs2_never_reads_a_sample_twice_before_all_were_read_once(prune_ratio):
    """Where a cycle ends inside an epoch: after every epoch the numbers of visits differ by one at most."""
    visits = np.zeros(TOTAL, np.int64)
    for epoch in run(RS2(prune_ratio), SAMPLES, "exponential", epochs=30):
        visits += epoch.mask
        assert visits.max() - visits.min() <= 1
        assert visits.mean() == pytest.approx((epoch.number + 1) * (1 - prune_ratio), abs=0.05)


def test_static_random_is_no_slice_of_the_corpus():
    """On sorted data every stretch keeps its share: the first samples are not the subset."""
    rule = StaticRandom(0.5).rule(decide(StaticRandom(0.5), {"loss": np.zeros(4, np.float32)}, 0).histogram, 0)
    mask, _ = select(rule, np.zeros(50_000, np.float32), np.array([0, 20_000, 50_000]), seed=1, epoch=0)
    for stretch in mask.reshape(50, 1000):
        assert abs(stretch.sum() - 500) <= 5 * np.sqrt(250)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["PerGroup of OrderDP", "PerGroup of LossProportional"])
def test_each_group_keeps_its_share(name, shape):
    """The rare and hard ones too: within five deviations, though the losses of the groups differ tenfold."""
    row = ROWS[name]
    table = empty_table(row.policy, SAMPLES)
    group = np.arange(TOTAL) % GROUPS
    losses = losses_at(shape, TOTAL, 0) * np.linspace(1, 10, GROUPS, dtype=np.float32)[group]
    table.record(np.arange(TOTAL), losses, group=group)
    values = table.remembered()
    assert isinstance(row.policy, PerGroup)
    mask, _ = drawn(row.policy, decide(row.policy, values, 1).rule, values)
    share, size = row.share(values, 1), TOTAL // GROUPS
    kept = np.bincount(group[mask], minlength=GROUPS)
    assert (np.abs(kept - share * size) <= 5 * deviation(share, size)).all()
