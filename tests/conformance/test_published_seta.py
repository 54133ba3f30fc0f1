"""SeTa against its published form, written down in published_seta.py on raw losses in memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from loss_shapes import draw_losses
from optimum import squared_distance
from published_seta import PublishedSeTa, ceiling
from sklearn.cluster import KMeans

from seta_stream.losses.histogram import Histogram, codes, round_losses
from seta_stream.losses.table import LossTable
from seta_stream.policies import Rule, SeTa, kmeans, select

NUM_GROUPS = (3, 5, 10)
SCALES = (0.3, 0.5, 0.6, 0.9)
CONTINUOUS = ("exponential", "gamma", "lognormal", "negative", "uniform", "outliers of 1e4")


def half_ways(centres):
    centres = np.sort(np.asarray(centres, np.float64).reshape(-1))
    return (centres[1:] + centres[:-1]) / 2


def published(losses, **settings):
    run = PublishedSeTa(len(losses), **{"num_epochs": 40} | settings)
    run.losses[:] = losses
    return run


def paper(num_epochs, prune_ratio=0.0, num_group=10, window_scale=0.5, delta=0.875):
    """SeTa as the paper has it, with the settings in the order of `as_published_code`."""
    return SeTa(num_epochs, prune_ratio, num_group, window_scale, delta)


FORMS = pytest.mark.parametrize(("form", "whole"), [(SeTa.as_published_code, round), (paper, ceiling)])


@pytest.mark.parametrize("num_group", NUM_GROUPS)
@pytest.mark.parametrize("shape", CONTINUOUS)
def test_their_centres_give_the_same_groups_but_for_a_bin_at_the_edges(shape, num_group):
    """A rule's steps, cut half-way between the centres that their k-means found, hold the samples nearest to each."""
    losses = draw_losses(shape, 20_000, seed=5)
    everyone = np.arange(len(losses))
    run = published(losses, num_group=num_group)
    centres = run.fitted_centres(everyone)
    rule = Rule(half_ways(centres), np.ones(num_group))
    ours = np.searchsorted(rule.edges, losses, side="right")
    for group, samples in enumerate(run.group(everyone, centres)):
        others = np.setxor1d(samples, np.flatnonzero(ours == group))
        assert np.isin(codes(losses[others]), codes(half_ways(centres))).all()
        assert len(others) <= 0.02 * len(losses)


@FORMS
@pytest.mark.parametrize("num_group", NUM_GROUPS)
@pytest.mark.parametrize("shape", CONTINUOUS)
def test_our_centres_give_the_same_windows_but_for_a_bin_at_the_edges(shape, num_group, form, whole):
    """The published grouping and window, given the centres of our groups, take what our rule can keep."""
    losses = draw_losses(shape, 1_200, seed=6)
    histogram, everyone = Histogram.of(losses), np.arange(len(losses))
    centres = kmeans(histogram, num_group).centres
    groups = published(losses).group(everyone, centres)
    for scale in SCALES:
        run = published(losses, num_group=num_group, window_scale=scale, whole=whole)
        policy = form(40, num_group=num_group, window_scale=scale)
        for epoch in range(10):
            window = run.window(num_group, epoch)
            theirs = np.concatenate(groups[window.start : window.stop])
            rule = policy.rule(histogram, epoch)
            ours = np.flatnonzero(rule.keep[np.searchsorted(rule.edges, losses, side="right")] > 0)
            others = np.setxor1d(theirs, ours)
            assert np.isin(codes(losses[others]), codes(half_ways(centres))).all()


def jump(rng, samples, shares, stay=20):
    """Return the level of each sample for one epoch; `stay` of each level never leave, so that none dies out."""
    levels = rng.choice(len(shares), samples, p=shares)
    levels[: stay * len(shares)] = np.arange(stay * len(shares)) % len(shares)
    return levels


def level_losses(levels):
    """Return losses near whole numbers 1 … k, apart by 1 and spread by 0.01: any k-means finds these groups."""
    off = np.random.default_rng(len(levels)).uniform(-0.01, 0.01, len(levels))
    return (levels + 1 + off).astype(np.float32)


LEVEL_SHARES = {
    "even": lambda k: np.full(k, 1 / k),
    "easy ones are many": lambda k: 0.7 ** np.arange(k) / (0.7 ** np.arange(k)).sum(),
    "hard ones are many": lambda k: 0.7 ** np.arange(k)[::-1] / (0.7 ** np.arange(k)).sum(),
    "late training": lambda k: np.array([0.6] + [0.4 / (k - 1)] * (k - 1)),
}


@FORMS
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("num_group", NUM_GROUPS)
@pytest.mark.parametrize("levels", sorted(LEVEL_SHARES))
def test_whole_runs_are_equal_on_separated_losses(levels, num_group, scale, form, whole):
    """12 epochs, nothing left out at random: the same samples in every epoch, though losses jump between levels."""
    samples, num_epochs, rng = 400, 12, np.random.default_rng(3)
    theirs = PublishedSeTa(samples, num_epochs, 0.0, num_group, scale, 0.75, whole)
    table, policy = LossTable([150, 250]), form(num_epochs, 0.0, num_group, scale, 0.75)
    sizes = set()
    for epoch in range(num_epochs):
        selected = np.sort(theirs.select())
        mask, weight = select(policy.rule(table.histogram(), epoch), table.values, table.first_id, seed=1, epoch=epoch)
        assert np.array_equal(np.flatnonzero(mask), selected)
        assert weight is None
        sizes.add(len(selected))
        new = level_losses(jump(rng, samples, LEVEL_SHARES[levels](num_group)))[selected]
        theirs.record(selected, new)
        table.record(selected, round_losses(new))
        table.advance()
    width = whole(num_group * scale)
    assert len(sizes) > 1 if width < num_group else sizes == {samples}


@FORMS
@pytest.mark.parametrize("prune_ratio", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("num_group", NUM_GROUPS)
def test_random_parts_come_from_the_same_samples_in_the_same_number(num_group, prune_ratio, form, whole):
    """Each epoch, on the same table: what can be taken is equal, and how many are, within sampling error.

    Samples that the published run leaves out of its first epoch have the loss 3.0 there, a level of its own. In the
    paper's form they have none, and are kept with the same probability whatever the window: only the seen count.
    """
    samples, num_epochs, rng = 4_000, 9, np.random.default_rng(4)
    shares = LEVEL_SHARES["easy ones are many"](num_group)
    theirs = PublishedSeTa(samples, num_epochs, prune_ratio, num_group, 0.5, 0.875, whole)
    table, policy = LossTable([samples]), form(num_epochs, prune_ratio, num_group, 0.5)
    keep = 1 - prune_ratio
    for epoch in range(num_epochs):
        unseen = np.isnan(table.values)
        counts = np.ones(samples, bool)
        if whole is ceiling and epoch:
            counts = ~unseen
            theirs.losses[unseen] = 1.0  # the paper has no loss for them: anywhere, where they make no group
        rule = policy.rule(table.histogram(), epoch)
        chance = np.where(unseen, rule.unseen_keep, rule.keep[np.searchsorted(rule.edges, table.values, side="right")])
        possible = counts & (chance > 0)
        selected = theirs.select()
        taken = selected[counts[selected]]
        mask, _ = rule.apply(table.values, seed=2, epoch=epoch, shard=0)
        assert chance[possible] == pytest.approx(keep)
        assert possible[taken].all()
        assert not mask[counts & ~possible].any()
        # Theirs is a draw without replacement, ours one per sample, whose variance is the larger one.
        pool = np.count_nonzero(possible)
        for number in (len(taken), np.count_nonzero(mask & counts)):
            assert abs(number - keep * pool) <= 5 * np.sqrt(pool * keep * prune_ratio)
        assert set(np.rint(theirs.losses[possible])) == set(np.rint(theirs.losses[taken]))
        if whole is ceiling:
            assert rule.unseen_keep == pytest.approx(keep)
        new = level_losses(jump(rng, samples, shares, stay=100))[selected]
        theirs.record(selected, new)
        table.record(selected, new)
        table.advance()


@pytest.mark.parametrize("shape", ["exponential", "gamma", "lognormal", "negative"])
def test_one_start_puts_samples_into_other_groups_than_the_optimum(shape):
    """So equality is not asked for on such losses: over 5 starts theirs move samples, and ours lie closer together.

    On losses as the table keeps them, so that no rounding blurs it.
    """
    losses = round_losses(draw_losses(shape, 20_000, seed=8))
    groups = kmeans(Histogram.of(losses), 10)
    ours = squared_distance(losses, groups.edges)
    moved, above = [], []
    for seed in range(5):
        fitted = KMeans(10, random_state=seed).fit(losses[:, None])
        edges = half_ways(fitted.cluster_centers_)
        moved.append(np.mean(np.searchsorted(edges, losses) != np.searchsorted(groups.edges, losses, side="right")))
        above.append(squared_distance(losses, edges) / ours - 1)
    assert min(above) > 0
    assert np.mean(above) > 0.001
    assert np.mean(moved) > 0.03


def test_both_count_epochs_and_windows_alike():
    """First everything, then from group 1 on, round and round, then everything again: no window twice in a row."""
    run = published(level_losses(np.arange(50) % 5), num_epochs=10, num_group=5, window_scale=0.5, delta=0.75)
    policy = SeTa.as_published_code(10, num_group=5, window_scale=0.5, delta=0.75)
    histogram = Histogram.of(run.losses)
    starts = []
    for epoch in range(10):
        levels = np.unique(np.rint(run.losses[run.select()])).tolist()
        rule = policy.rule(histogram, epoch)
        kept = rule.keep[np.searchsorted(rule.edges, [1, 2, 3, 4, 5], side="right")]
        assert [level for level in (1, 2, 3, 4, 5) if kept[level - 1]] == levels
        starts.append((levels[0], len(levels)))
    assert starts == [(1, 5), (2, 2), (3, 2), (4, 2), (1, 2), (2, 2), (3, 2), (1, 5), (1, 5), (1, 5)]
    assert all(one != other for one, other in pairwise(starts[1:7]))
