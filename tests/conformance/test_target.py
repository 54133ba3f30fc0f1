"""SeTa's `target`: the share saved over whole runs, and the window that is never thinned to make room."""

from __future__ import annotations

import math

import numpy as np
import pytest
from loss_shapes import draw_losses

from seta_stream.losses.table import LossTable
from seta_stream.policies import SeTa, select

SHAPES = ("exponential", "lognormal", "gamma", "late training")
NUM_GROUP, SCALE = 5, 0.6
# Fewer samples in longer runs, so that the drawn share of a run is off by a standard deviation of 0.3 points or less.
SAMPLES = {5: 5_000, 10: 2_500, 30: 900, 90: 400}
NAN = float("nan")


def losses_of_epoch(shape, samples, epoch, num_epochs):
    """Return what every sample's loss would be, were it trained on: its own size, falling, with noise of each visit."""
    noise = np.random.default_rng((7, epoch)).lognormal(0, 0.3, samples)
    falling = 1 / (1 + 4 * epoch / num_epochs)
    losses = draw_losses(shape, samples, seed=7) * noise * falling
    # A loss computed in half precision from a probability near 1 takes few values, and often 0.
    return np.where(losses < 0.003, np.rint(losses * 2048) / 2048, losses).astype(np.float16).astype(np.float32)


def kept_by(rule, losses):
    """Return the probability with which the rule keeps each sample: float64 [samples]."""
    seen = rule.keep[np.searchsorted(rule.edges, losses, side="right")]
    return np.where(np.isnan(losses), rule.unseen_keep, seen)


def check_window(policy, losses, histogram, rule, epoch, wanted_share):
    """Hold the rule against the groups, counted anew: unseen ones first, the window next, then neighbours in order."""
    unseen = int(np.isnan(losses).sum())
    wanted = max(wanted_share * len(losses) - unseen, 0.0)
    group = np.searchsorted(policy.groups(histogram).edges, losses[~np.isnan(losses)], side="right")
    masses = np.bincount(group)
    chance = kept_by(rule, losses)[~np.isnan(losses)]
    keeps = [set(chance[group == one]) for one in range(len(masses))]
    assert all(len(keep) == 1 for keep in keeps)
    keep = np.array([value for (value,) in keeps])
    assert unseen == 0 or rule.unseen_keep == 1

    width = math.ceil(round(SCALE * len(masses), 9))
    start = epoch % (len(masses) - width + 1)
    window = np.arange(len(masses))[start : start + width]
    mass = masses[window].sum()
    assert keep[window] == pytest.approx(min(1.0, wanted / mass))
    missing = max(wanted - mass, 0.0)
    below, above = list(range(start - 1, -1, -1)), list(range(start + width, len(masses)))
    for distance in range(len(masses)):
        for side in (below, above):  # the easier one first
            if distance < len(side):
                assert keep[side[distance]] == pytest.approx(min(1.0, missing / masses[side[distance]]))
                missing = max(missing - masses[side[distance]], 0.0)


def run(policy, shape, samples, *, warm):
    """Train a run on what is selected alone; return the share saved of all visits, having checked every rule."""
    table = LossTable([samples // 3, samples - samples // 3])
    if warm:
        table.record(np.arange(samples), losses_of_epoch(shape, samples, 0, policy.num_epochs))
    wanted = [1 - policy.target] if warm else [1 - policy.target * policy.num_epochs / (policy.num_epochs - 1)]
    visits = 0
    for epoch in range(policy.num_epochs):
        histogram = table.histogram()
        rule = policy.rule(histogram, epoch)
        if epoch == 0 and not warm:
            assert (kept_by(rule, table.values) == 1).all()
        elif epoch + 1 > round(policy.delta * policy.num_epochs, 9):
            assert kept_by(rule, table.values) == pytest.approx(wanted[0])
        else:
            check_window(policy, table.values, histogram, rule, epoch, wanted[0])
        mask, weight = select(rule, table.values, table.first_id, seed=3, epoch=epoch)
        assert weight is None
        table.advance()
        selected = np.flatnonzero(mask)
        table.record(selected, losses_of_epoch(shape, samples, epoch, policy.num_epochs)[selected])
        visits += len(selected)
    return 1 - visits / (samples * policy.num_epochs)


@pytest.mark.parametrize("target", [0.3, 0.5])
@pytest.mark.parametrize("num_epochs", sorted(SAMPLES))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_saves_its_target(shape, num_epochs, target):
    """Within 1 point, on losses that move and of which only the selected are recorded; every window is whole."""
    policy = SeTa(num_epochs, target=target, num_group=NUM_GROUP, window_scale=SCALE)
    saved = run(policy, shape, SAMPLES[num_epochs], warm=False)
    assert saved == pytest.approx(target, abs=0.01)


@pytest.mark.parametrize("group_scale", ["loss", "log", "rank"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_saves_its_target_however_losses_are_grouped(shape, group_scale):
    """Within 1 point; groups by rank are fewer where many losses are equal."""
    policy = SeTa(10, target=0.4, num_group=NUM_GROUP, window_scale=SCALE, group_scale=group_scale)
    saved = run(policy, shape, SAMPLES[10], warm=False)
    assert saved == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("target", [0.3, 0.5])
@pytest.mark.parametrize("num_epochs", [5, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_warm_run_saves_its_target(shape, num_epochs, target):
    """Within 1 point; the first epoch is windowed like the others."""
    policy = SeTa(num_epochs, target=target, num_group=NUM_GROUP, window_scale=SCALE, warm=True)
    saved = run(policy, shape, SAMPLES[num_epochs], warm=True)
    assert saved == pytest.approx(target, abs=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_that_come_late_are_read_first_and_the_share_holds(shape):
    """A fifth is not there in epoch 0: unseen at epoch 1, it is kept whole and the window gives way by as much."""
    samples, policy = 4_000, SeTa(10, target=0.5, num_group=NUM_GROUP, window_scale=SCALE)
    losses = draw_losses(shape, samples, seed=9)
    losses[np.random.default_rng(9).random(samples) < 0.2] = NAN
    table = LossTable([samples])
    table.record(np.flatnonzero(~np.isnan(losses)), losses[~np.isnan(losses)])
    histogram = table.histogram()
    rule = policy.rule(histogram, 1)
    check_window(policy, table.values, histogram, rule, 1, 1 - 0.5 * 10 / 9)
    assert kept_by(rule, table.values).mean() == pytest.approx(1 - 0.5 * 10 / 9)


@pytest.mark.parametrize("shape", SHAPES)
def test_windows_without_a_target_save_what_the_groups_happen_to_hold(shape):
    """The reason for `target`: the same settings keep shares that lie far apart, from window to window."""
    table = LossTable([3_000])
    table.record(np.arange(3_000), draw_losses(shape, 3_000, seed=4))
    histogram = table.histogram()
    policy = SeTa(30, prune_ratio=0.0, num_group=NUM_GROUP, window_scale=SCALE)
    shares = [policy.rule(histogram, epoch).expected_kept(histogram) / 3_000 for epoch in (1, 2, 3)]
    assert max(shares) - min(shares) > 0.2
    held = SeTa(30, target=0.5, num_group=NUM_GROUP, window_scale=SCALE)
    shares = [held.rule(histogram, epoch).expected_kept(histogram) / 3_000 for epoch in (1, 2, 3)]
    assert shares == pytest.approx([1 - 0.5 * 30 / 29] * 3)
