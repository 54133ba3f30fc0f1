"""Losses to simulate with."""

from __future__ import annotations

import numpy as np
import pytest

from seta_stream.errors import ArgumentError, StateError
from seta_stream.losses.histogram import Histogram, round_losses
from seta_stream.losses.history import Judged, history_line
from seta_stream.losses.table import LossTable
from seta_stream.policies import DynamicRandom, Full, InfoBatch, SeTa
from seta_stream.policies.deciding import apply, decide
from seta_stream.report.losscurves import (
    LossCurve,
    Population,
    normal_scores,
    rank_correlation,
    recorded_curve,
    synthetic_curves,
)

EVEN = LossCurve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.ones(1))


def line_of(losses):
    return history_line("a", 3, None, Judged(Histogram.of(np.asarray(losses, np.float32)), None), {})


def ranks(count):
    return (np.arange(count) + 0.5) / count


def spearman(one, other):
    places = [np.argsort(np.argsort(values)) for values in (one, other)]
    return np.corrcoef(*places)[0, 1]


def test_a_curve_by_hand():
    """A quarter of the samples at 1 to 2, the others at 2 to 6; on the lower edges where nothing is spread."""
    curve = LossCurve(np.array([0, 0.25, 1.0]), np.array([1.0, 2.0, 6.0]), np.ones(2))
    assert curve.at(np.array([0.125, 0.25, 0.625, 1.0])).tolist() == [1.5, 2.0, 4.0, 6.0]
    stepped = LossCurve(curve.shares, curve.edges, np.zeros(2))
    assert stepped.at(np.array([0.125, 0.25, 0.625, 1.0])).tolist() == [1.0, 1.0, 2.0, 2.0]


def test_few_distinct_losses_come_back_exactly():
    """What fits in 512 bins is recorded loss by loss, and so it is replayed."""
    losses = round_losses(np.sort(np.random.default_rng(0).gamma(2, 1, 400).round(1)))
    curve = recorded_curve(line_of(losses))
    assert curve is not None
    assert np.array_equal(round_losses(curve.at(ranks(400))), losses)


@pytest.mark.parametrize("outliers", [[], [1e6] * 3], ids=["a body", "with outliers far off"])
def test_merged_losses_keep_quantiles_and_mean(outliers):
    """Of 100,000 lognormal losses the quantiles come back within 1 %, and the mean within 0.1 %."""
    losses = np.sort(np.concatenate([np.random.default_rng(1).lognormal(0, 1, 100_000), outliers]))
    curve = recorded_curve(line_of(losses))
    assert curve is not None
    found = curve.at(ranks(len(losses))).astype(np.float64)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.quantile(found, share) == pytest.approx(np.quantile(losses, share), rel=0.01)
    assert found.mean() == pytest.approx(losses.mean(), rel=1e-3)


def test_a_line_without_losses_has_no_curve():
    """As that of an epoch in which nothing was recorded."""
    assert recorded_curve(line_of([np.nan])) is None


@pytest.mark.parametrize("histogram", [None, {}, {"edges": [1, 2], "counts": "x"}, {"edges": [1.0], "counts": [1, 2]}])
def test_a_line_that_is_none_of_a_history_is_refused(histogram):
    """With the epoch that it names."""
    with pytest.raises(StateError, match="Cannot replay the line of epoch 3 of the history"):
        recorded_curve({"epoch": 3, "mean": 1.0, "histogram": histogram})


@pytest.mark.parametrize(
    ("shape", "median"), [("exponential", np.log(2)), ("lognormal", 1.0), ("gamma", 3.672), ("late", 0.01 * np.log(6))]
)
def test_synthetic_shapes_have_their_median(shape, median):
    """In epoch 0; late losses are near zero for more than half of the samples."""
    first = synthetic_curves(shape, 10)[0]
    assert np.median(first.at(ranks(20_001))) == pytest.approx(median, rel=0.12 if shape == "late" else 0.01)


def test_synthetic_losses_fall():
    """Half of the way to 0.3 in each fifth of the run."""
    medians = [float(np.median(curve.at(ranks(2001)))) for curve in synthetic_curves("exponential", 10)]
    assert medians[2] / medians[0] == pytest.approx(0.3 + 0.7 / 2)
    assert medians[4] / medians[0] == pytest.approx(0.3 + 0.7 / 4)


def test_another_shape_is_refused():
    """With those that there are."""
    with pytest.raises(ArgumentError, match="no synthetic history 'weibull': choose one of exponential, lognormal"):
        synthetic_curves("weibull", 3)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 1.0])
def test_ranks_have_the_correlation_asked_for(correlation):
    """Between any two epochs, however far apart; and every epoch has exactly the losses of its curve."""
    population = Population(50_000, correlation)
    epochs = [population.losses(EVEN, epoch) for epoch in (0, 1, 30)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert spearman(epochs[one], epochs[other]) == pytest.approx(correlation, abs=0.015)
    assert np.array_equal(np.sort(epochs[2]), EVEN.at(ranks(50_000)))


def test_a_population_is_the_same_again():
    """And another one with another seed."""
    first = Population(1000, 0.9, 1).losses(EVEN, 2)
    assert np.array_equal(first, Population(1000, 0.9, 1).losses(EVEN, 2))
    assert not np.array_equal(first, Population(1000, 0.9, 2).losses(EVEN, 2))


def test_an_impossible_correlation_is_refused():
    """Ranks cannot turn round from epoch to epoch and back."""
    with pytest.raises(ArgumentError, match=r"correlation=-0.5: give the rank correlation .* in \[0, 1\]"):
        Population(10, -0.5)


@pytest.mark.parametrize("policy", [Full(), DynamicRandom(0.5), InfoBatch(20), SeTa(20, target=0.5)], ids=repr)
@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_the_correlation_is_told_by_what_a_run_kept(policy, correlation):
    """Within 0.06, although a policy sees only the samples that it chose, and losses fall by 5 % an epoch."""
    population, table, epochs = Population(40_000, correlation), LossTable([40_000]), 6
    lognormal = synthetic_curves("lognormal", 1)[0]
    old = table.values.copy()
    for epoch in range(epochs):
        old = table.values.copy()
        values = table.remembered()
        mask, _ = apply(policy, decide(policy, values, epoch).rule, values, table.first_id, seed=0, epoch=epoch)
        ids = np.flatnonzero(mask)
        table.advance()
        table.record(ids, population.losses(lognormal, epoch)[ids] * 0.95**epoch)
    told = rank_correlation(old, table.values, table.all_ages)
    assert told is not None
    assert told[0] == pytest.approx(correlation, abs=0.06)
    assert told[1] == int(((table.all_ages == 0) & np.isfinite(old)).sum())


def test_too_few_samples_tell_no_correlation():
    """Nor do losses that are all equal."""
    ages = np.zeros(1000, np.uint8)
    losses = np.random.default_rng(0).random(1000).astype(np.float32)
    assert rank_correlation(losses[:100], losses[:100], ages[:100]) is None
    assert rank_correlation(np.ones(1000, np.float32), losses, ages) is None
    assert rank_correlation(losses, losses, ages) == (pytest.approx(1.0, abs=1e-6), 1000)


def test_normal_scores_are_those_of_the_tables():
    """The well-known percentiles, and an end to both tails."""
    assert normal_scores([0.5, 0.8413, 0.975]).tolist() == pytest.approx([0.0, 1.0, 1.96], abs=1e-3)
    assert np.abs(normal_scores([0.0, 1.0])).max() <= 6
