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
from seta_stream.policies.kmeans import MERGED_BINS, equal_groups


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


def test_logarithmic_groups_part_what_one_large_loss_hides():
    """1,000 losses in three clusters a factor of 30 apart, and one of 900: by loss the clusters are one group."""
    losses = np.concatenate([np.linspace(c, 1.2 * c, 300) for c in (0.01, 0.3, 9)] + [[900] * 100]).astype(np.float32)
    histogram = Histogram.of(losses)
    assert kmeans(histogram, 2).counts.tolist() == [900, 100]
    assert kmeans(histogram, 4, log=True).counts.tolist() == [300, 300, 300, 100]
    assert kmeans(histogram, 4, log=True).centres == pytest.approx([0.011, 0.33, 9.9, 900], rel=1e-3)


@pytest.mark.parametrize("factor", [2.0**-9, 1.0, 2.0**5])
def test_logarithmic_groups_do_not_depend_on_the_unit(factor):
    """Losses of another unit fall into the same groups."""
    losses = np.random.default_rng(3).lognormal(0, 1, 2000).astype(np.float16).astype(np.float32)
    groups = kmeans(Histogram.of(losses * np.float32(factor)), 5, log=True)
    assert groups.counts.tolist() == kmeans(Histogram.of(losses), 5, log=True).counts.tolist()


def test_logarithmic_groups_take_zeros_and_negative_losses():
    """Negative losses mirror positive ones; where all but one are 0, that one is a group."""
    losses = np.repeat(np.array([-100, -1, 0, 1, 100], np.float32), [10, 20, 30, 20, 10])
    assert kmeans(Histogram.of(losses), 3, log=True).counts.tolist() == [10, 70, 10]
    assert kmeans(Histogram.of(np.array([0, 0, 0, 5], np.float32)), 2, log=True).counts.tolist() == [3, 1]
    assert kmeans(Histogram.of(np.zeros(4, np.float32)), 2, log=True).counts.tolist() == [4]
    assert len(kmeans(Histogram.of(np.full(4, np.nan, np.float32)), 2, log=True)) == 0


@pytest.mark.parametrize(
    ("losses", "counts"),
    [
        (range(10), [2, 2, 2, 2, 2]),
        (range(12), [2, 3, 2, 3, 2]),
        ([1, 2, 3], [1, 1, 1]),
        # Nine equal ones stay together: 1.8, 3.6 and 5.4 of the cuts fall among them and move to the nearer end.
        ([5] * 9, [9]),
        ([1] * 6 + [2, 3, 4, 5], [6, 2, 2]),
        ([1, 2, 3, 4] + [5] * 6, [2, 2, 6]),
        ([], []),
    ],
)
def test_equal_groups_by_hand(losses, counts):
    """Five groups of equally many samples, as far as equal losses allow."""
    assert equal_groups(Histogram.of(np.array(losses, np.float32)), 5).counts.tolist() == counts


def test_equal_groups_agree_with_their_edges():
    """Samples fall into the groups by the edges as counted, and no group is far from its share."""
    losses = round_losses(np.random.default_rng(5).gamma(2, 1, 5000).astype(np.float32))
    groups = equal_groups(Histogram.of(losses), 7)
    assert np.bincount(np.searchsorted(groups.edges, losses, side="right")).tolist() == groups.counts.tolist()
    assert np.abs(groups.counts - 5000 / 7).max() < 20
