"""K-means on bins against the exact optimum on raw losses, and against scikit-learn.

How far may the best groups of the binned losses be from the best groups of the raw ones? Let x be the raw losses [n],
t what their bins stand for, and P a grouping. J(P, x), the squared distance to the groups' means, is the squared
length of x minus its projection on the vectors that are constant within groups. A projection shortens, so

    | sqrt J(P, x) - sqrt J(P, t) |  <=  |x - t|  =: e.

For the grouping A that is best for t and the grouping B that is best for x it follows that

    sqrt J(A, x)  <=  sqrt J(A, t) + e  <=  sqrt J(B, t) + e  <=  sqrt J(B, x) + 2 e.

A bin is 2^-11 wide relative to its end nearest to zero, which is what it stands for: e <= 2^-11 |x|. Losses that were
rounded before, as the table rounds them, are what their bins stand for: e = 0, and nothing but float64 is left.

Float64: the package takes costs of groups as differences of running sums, from the middle of the samples outward and
scaled to the range; each of its k costs is off by no more than 4 n u S, where u = 2^-53 and S is the sum of squared
distances to that middle. The sums that the tests take themselves are off by 1e-9 of their value at most.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from loss_shapes import SHAPES, draw_losses
from optimum import best_squared_distance, squared_distance
from sklearn.cluster import KMeans

from seta_stream.losses.histogram import Histogram, bin_values, codes, round_losses
from seta_stream.policies import kmeans
from seta_stream.policies.kmeans import equal_groups

BIN_WIDTH = 2.0**-11
SUMS = 1e-9


def float64_slack(losses, num_group):
    """What running sums in float64 may cost: k times 4 n u S."""
    raw = losses.astype(np.float64)
    middle = np.sort(raw)[(len(raw) - 1) // 2]
    return 4 * num_group * len(raw) * 2.0**-53 * float(((raw - middle) ** 2).sum())


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_a_bin_stands_for_its_losses_within_its_width(losses):
    """The premise e <= 2^-11 |x|; below the smallest normal float32 bins are 2^-137 wide."""
    off = np.abs(losses.astype(np.float64) - bin_values(codes(losses)))
    assert (off <= np.maximum(BIN_WIDTH * np.abs(losses.astype(np.float64)), 2.0**-137)).all()
    rounded = round_losses(losses)
    kept = np.isfinite(rounded)
    assert np.array_equal(bin_values(codes(rounded))[kept], rounded[kept])


@given(
    st.sampled_from(sorted(SHAPES)), st.integers(1, 300), st.integers(1, 10), st.booleans(), st.integers(0, 2**32 - 1)
)
@settings(max_examples=150, deadline=None)
def test_the_groups_are_the_exact_optimum(shape, n, num_group, rounded, seed):
    """Never below it, and above it by the bins' rounding at most: by nothing for losses as the table keeps them."""
    losses = draw_losses(shape, n, seed)
    if rounded:
        losses = round_losses(losses)
    groups = kmeans(Histogram.of(losses), num_group)
    raw = losses.astype(np.float64)
    ours, best = squared_distance(raw, groups.edges), best_squared_distance(raw, num_group)
    slack = float64_slack(losses, num_group)
    off = 0.0 if rounded else BIN_WIDTH * float(np.linalg.norm(raw))
    assert len(groups) <= num_group
    assert best * (1 - SUMS) - slack <= ours <= (np.sqrt(best) + 2 * off) ** 2 * (1 + SUMS) + slack


@pytest.mark.parametrize("num_group", [4, 9])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_groups_of_many_rounded_losses_are_the_exact_optimum(shape, num_group):
    """1,200 losses: as many bins as the package still takes one by one, and so exactly the optimum."""
    losses = round_losses(draw_losses(shape, 1_200, seed=11))
    groups = kmeans(Histogram.of(losses), num_group)
    best = best_squared_distance(losses, num_group)
    assert squared_distance(losses, groups.edges) <= best * (1 + SUMS) + float64_slack(losses, num_group)


@pytest.mark.parametrize("outlier", [1e4, -1e4])
@pytest.mark.parametrize("num_group", [2, 3, 5])
def test_one_outlier_takes_a_group_and_the_others_are_cut_at_their_optimum(outlier, num_group):
    """The body is 1e-4 of the range, and is cut as exactly as if it were alone with one group fewer."""
    body = round_losses(draw_losses("exponential", 250, seed=3))
    losses = np.append(body, np.float32(outlier))
    groups = kmeans(Histogram.of(round_losses(losses)), num_group)
    best = best_squared_distance(body, num_group - 1)
    assert 1 in groups.counts.tolist()
    assert squared_distance(round_losses(losses), groups.edges) == pytest.approx(best, rel=SUMS)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("num_group", [3, 5, 10])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_squared_distance_is_no_worse_than_scikit_learns(shape, num_group, rounded):
    """Its best of 10 k-means++ starts on 50,000 rounded losses or 10,000 raw ones; the package merges their bins.

    Here e is measured. On rounded losses it is 0.
    """
    losses = draw_losses(shape, 50_000 if rounded else 10_000, seed=1)
    if rounded:
        losses = round_losses(losses)
    raw = losses.astype(np.float64)
    groups = kmeans(Histogram.of(losses), num_group)
    fitted = KMeans(num_group, init="k-means++", n_init=10, random_state=0).fit(raw[:, None])
    centres = np.sort(fitted.cluster_centers_[:, 0])
    theirs = squared_distance(raw, (centres[1:] + centres[:-1]) / 2)
    off = float(np.linalg.norm(raw - bin_values(codes(losses))))
    assert off <= BIN_WIDTH * np.linalg.norm(raw)
    assert squared_distance(raw, groups.edges) <= (np.sqrt(theirs) + 2 * off) ** 2 * (1 + SUMS)


@pytest.mark.parametrize("num_group", [3, 10])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_loss_is_in_the_group_of_its_nearest_centre(shape, num_group):
    """Of 50,000, whose bins were merged to find the groups: only a bin with a half-way point in it may be cut aside."""
    losses = round_losses(draw_losses(shape, 50_000, seed=1))
    groups = kmeans(Histogram.of(losses), num_group)
    half_way = (groups.centres[1:] + groups.centres[:-1]) / 2
    nearest = np.searchsorted(half_way, losses.astype(np.float64))
    elsewhere = nearest != np.searchsorted(groups.edges, losses, side="right")
    assert np.isin(codes(losses[elsewhere]), codes(half_way)).all()


@given(st.sampled_from(sorted(SHAPES)), st.integers(1, 300), st.integers(1, 10), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_groups_on_a_logarithmic_scale_are_the_optimum_there(shape, n, num_group, seed):
    """Of asinh(loss / m), m being the median of |loss| where that is not 0, told from the losses one by one."""
    losses = round_losses(draw_losses(shape, n, seed))
    sizes = np.sort(np.abs(losses[losses != 0]).astype(np.float64))
    scaled = np.arcsinh(losses / (sizes[(len(sizes) - 1) // 2] if len(sizes) else 1.0))
    groups = kmeans(Histogram.of(losses), num_group, log=True)
    # Where the scaled losses are cut, as edges between them: no loss lies in a group below that of a smaller one.
    group = np.searchsorted(groups.edges, losses, side="right")
    edges = [scaled[group == one].min() for one in range(1, len(groups))]
    best = best_squared_distance(scaled, num_group)
    assert (
        best * (1 - SUMS) - 1e-12
        <= squared_distance(scaled, edges)
        <= best * (1 + SUMS) + float64_slack(scaled, num_group)
    )


@pytest.mark.parametrize("num_group", [1, 2, 5, 10])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_groups_by_rank_hold_equally_many_but_for_ties(shape, num_group):
    """Each cut lies as near to its share of the samples as equal losses, which stay together, allow."""
    losses = np.sort(round_losses(draw_losses(shape, 2_000, seed=12)))
    edges = equal_groups(Histogram.of(losses), num_group).edges
    cuts = np.array([0, *(int(np.sum(losses < edge)) for edge in edges), 2_000])
    possible = np.array([0, *(np.flatnonzero(np.diff(losses)) + 1), 2_000])
    for wanted in np.arange(1, num_group) * (2_000 / num_group):
        assert np.abs(cuts - wanted).min() == np.abs(possible - wanted).min()
    assert len(edges) <= num_group - 1
