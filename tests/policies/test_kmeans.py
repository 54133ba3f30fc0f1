"""One-dimensional k-means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from seta_stream.losses.histogram import Histogram, round_losses
from seta_stream.policies import kmeans
from seta_stream.policies.kmeans import MERGED_BINS


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other on busy cores take minutes."""
    with threadpool_limits(1):
        yield


RNG = np.random.default_rng(7)
SHAPES = {
    "exponential": RNG.exponential(size=4_000),
    "gamma": RNG.gamma(4, 1, 4_000),
    "lognormal": RNG.lognormal(0, 1.5, 4_000),
    "two humps": np.concatenate([RNG.normal(-3, 0.2, 3_000), RNG.normal(5, 1, 1_000)]),
    "late": np.concatenate([np.full(2_400, 0.01), RNG.exponential(0.5, 1_600)]),
    "negative": -RNG.exponential(size=4_000),
    "uniform, wide": RNG.uniform(1e-3, 1e3, 4_000),
    "with an outlier": np.append(RNG.exponential(size=3_999), 1e4),
    "tiny": RNG.exponential(size=4_000) * 1e-12,
}


def inertia(losses, edges):
    group = np.searchsorted(edges, losses, side="right")
    return sum(((losses[group == one] - losses[group == one].mean()) ** 2).sum() for one in np.unique(group))


@pytest.mark.parametrize("num_group", [2, 5, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_squared_distance_is_never_above_scikit_learns(shape, num_group):
    """Its best of 10 starts on the raw losses; the slack is the rounding of the losses."""
    raw = SHAPES[shape].astype(np.float32)
    rounded = round_losses(raw)
    groups = kmeans(Histogram.of(rounded), num_group)
    scale = np.abs(raw).max()
    theirs = KMeans(num_group, n_init=10, random_state=0).fit((raw / scale)[:, None].astype(np.float64)).inertia_
    ours = inertia(raw.astype(np.float64) / scale, groups.edges.astype(np.float64) / scale)
    slack = ((raw - rounded).astype(np.float64) / scale).__pow__(2).sum()
    assert ours <= theirs * (1 + 1e-6) + 2 * np.sqrt(slack * theirs) + slack


def best_by_hand(values, num_group):
    """The least squared distance over all ways to cut the sorted values."""
    cost = {}
    n = len(values)
    for low in range(n):
        for high in range(low + 1, n + 1):
            part = values[low:high]
            cost[low, high] = ((part - part.mean()) ** 2).sum()
    best = [cost.get((0, stop), 0.0) for stop in range(n + 1)]
    for _ in range(num_group - 1):
        best = [min((best[at] + cost[at, stop] for at in range(1, stop)), default=np.inf) for stop in range(n + 1)]
    return best[n]


@given(st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=14), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_few_losses_are_grouped_at_the_optimum(losses, num_group):
    """Compared with every possible cut."""
    values = np.sort(round_losses(np.array(losses, np.float32))).astype(np.float64)
    groups = kmeans(Histogram.of(values.astype(np.float32)), num_group)
    wanted = min(num_group, len(np.unique(values)))
    assert len(groups) == wanted
    assert inertia(values, groups.edges) == pytest.approx(best_by_hand(values, wanted), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_groups_agree_with_their_edges(shape):
    """Counts and centres are those of the losses between the edges; no group is empty; centres ascend."""
    losses = round_losses(SHAPES[shape].astype(np.float32))
    groups = kmeans(Histogram.of(losses), 7)
    group = np.searchsorted(groups.edges, losses, side="right")
    assert np.bincount(group).tolist() == groups.counts.tolist()
    means = [losses[group == one].mean(dtype=np.float64) for one in range(7)]
    assert groups.centres == pytest.approx(means)
    assert (np.diff(groups.centres) > 0).all()
    assert (groups.counts > 0).all()


def test_the_optimum_survives_many_bins():
    """More occupied bins than the dynamic programme takes."""
    losses = round_losses(np.random.default_rng(0).lognormal(0, 2, 60_000).astype(np.float32))
    histogram = Histogram.of(losses)
    assert len(histogram.bins) > 2 * MERGED_BINS
    groups = kmeans(histogram, 6)
    theirs = KMeans(6, n_init=4, random_state=0).fit(losses[:, None].astype(np.float64)).inertia_
    assert inertia(losses.astype(np.float64), groups.edges) <= theirs * (1 + 1e-6)


@pytest.mark.parametrize("outlier", [1e30, -1e30])
def test_an_absurd_loss_does_not_spoil_the_groups_of_the_others(outlier):
    """It is a group of its own, and the body is cut as if it were not there."""
    body = round_losses(np.random.default_rng(0).exponential(size=10_000).astype(np.float32))
    with_it = kmeans(Histogram.of(np.append(body, np.float32(outlier))), 5)
    without = kmeans(Histogram.of(body), 4)
    edges = with_it.edges[:-1] if outlier > 0 else with_it.edges[1:]
    ours, best = inertia(body.astype(np.float64), edges), inertia(body.astype(np.float64), without.edges)
    assert ours <= best * 1.02


@pytest.mark.parametrize(
    ("losses", "num_group", "centres", "counts"),
    [
        ([], 5, [], []),
        ([2.0, 2.0], 5, [2.0], [2]),
        ([1.0, 2.0, 2.0], 5, [1.0, 2.0], [1, 2]),
        ([1.0, 2.0, 3.0, 10.0], 1, [4.0], [4]),
        ([0.0, 1.0, 10.0, 11.0], 2, [0.5, 10.5], [2, 2]),
    ],
)
def test_small_cases_by_hand(losses, num_group, centres, counts):
    """Fewer distinct losses than groups give as many groups as there are losses."""
    groups = kmeans(Histogram.of(np.array(losses, np.float32)), num_group)
    assert groups.centres.tolist() == centres
    assert groups.counts.tolist() == counts
    assert len(groups.edges) == max(len(groups) - 1, 0)


def test_neighbouring_bins_are_parted_between_them():
    """Half-way between two centres can lie in the lower one's bin; the edge then lies at the upper one's."""
    groups = kmeans(Histogram.of(np.array([1.0, 1 + 2**-10], np.float32)), 2)
    assert 1.0 < groups.edges[0] <= 1 + 2**-10


def test_grouping_twice_gives_the_same():
    """No random start."""
    histogram = Histogram.of(round_losses(SHAPES["gamma"].astype(np.float32)))
    assert np.array_equal(kmeans(histogram, 8).edges, kmeans(histogram, 8).edges)
