"""Groups of losses, each an interval of the loss axis: by one-dimensional k-means on a histogram, or by rank.

Takes a histogram and a number of groups; gives their edges, centres and counts. Pure. K-means is exact dynamic
programming on at most 2,048 merged bins, then scikit-learn's weighted k-means on all bins from those centres; whichever
is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.losses.histogram import Histogram, bin_floors, codes, merge_starts

MERGED_BINS: Final = 2048

_MAX_ITERATIONS: Final = 300
_LEAST_GAP: Final = 1e-6
"""Centres closer than this, of a range of 1, are not told apart by scikit-learn's squared distances."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of losses, ascending; none is empty.

    Args:
        edges: float32 [groups - 1], bin boundaries: group i covers edges[i-1] <= loss < edges[i].
        centres: float64 [groups], the mean loss of each.
        counts: int64 [groups], how many samples each holds.
    """

    edges: NDArray[np.float32]
    centres: Floats
    counts: Ints

    def __len__(self) -> int:
        return len(self.centres)


def kmeans(histogram: Histogram, num_group: int, *, log: bool = False) -> Groups:
    """Return the groups of least squared distance to their means.

    As many groups as there are distinct losses, where those are fewer than `num_group`; none where nothing was seen.
    The squared distance is never above that of scikit-learn's k-means on the raw losses, but for the rounding of
    bins.

    Args:
        histogram: of the losses.
        num_group: at least 1.
        log: measure distances between asinh(loss / its typical size, the median): in ratios above the median, in
            differences below it, whatever the unit of the losses; losses of 0 and below have their place.
    """
    values, weights = histogram.values(), histogram.weights()
    if log:
        values = np.arcsinh(values / _typical_size(values, weights))
    wanted = min(num_group, len(values))
    if wanted <= 1 or wanted == len(values):
        return _groups(histogram, np.arange(1, wanted))
    # The middle of the samples becomes 0: sums outward from there stay exact where the samples are.
    middle = values[np.searchsorted(np.cumsum(weights), histogram.seen / 2)]
    scaled = (values - middle) / max(values[-1] - middle, middle - values[0])
    starts = merge_starts(scaled, weights, MERGED_BINS)
    cuts = starts[_best_cuts(np.add.reduceat(scaled * weights, starts), scaled[starts], weights, starts, wanted)]
    refined = _refine(scaled, weights, cuts)
    if _inertia(scaled, weights, refined) < _inertia(scaled, weights, cuts):
        cuts = refined
    return _groups(histogram, cuts)


def equal_groups(histogram: Histogram, num_group: int) -> Groups:
    """Return groups of equally many samples, as far as bins allow: equal losses stay together.

    Args:
        histogram: of the losses.
        num_group: at least 1; fewer are returned where a bin holds more than its share.
    """
    stops = np.cumsum(histogram.weights())
    # A cut inside a bin moves to the bin's nearer end.
    wanted = np.arange(1, num_group) * (histogram.seen / num_group)
    inside = np.searchsorted(stops, wanted)
    begins = np.concatenate([[0], stops])
    cuts = np.unique(inside + (stops[inside] - wanted <= wanted - begins[inside])) if len(stops) else inside[:0]
    return _groups(histogram, cuts[(cuts > 0) & (cuts < len(stops))])


def _typical_size(values: Floats, weights: Ints) -> float:
    """Return the median of |loss| over the samples where it is not 0; 1 where there are none."""
    sizes = np.abs(values)
    order = np.argsort(sizes, kind="stable")
    order = order[sizes[order] > 0]
    running = np.cumsum(weights[order])
    return float(sizes[order[np.searchsorted(running, running[-1] / 2)]]) if len(order) else 1.0


def _best_cuts(sums: Floats, places: Floats, weights: Ints, starts: Ints, wanted: int) -> Ints:
    """Return where groups 1 … begin among the merged bins, by dynamic programming: int64 [wanted - 1]."""
    masses = np.add.reduceat(weights, starts).astype(np.float64)
    sides = [_outward(column, places) for column in (masses, sums, sums * (sums / masses))]
    bins = len(masses)
    stops = np.arange(1, bins + 1)
    best = np.concatenate([[np.inf], _interval_costs(sides, np.zeros_like(stops), stops)])  # [stop]: of one group
    begins = np.zeros((wanted, bins + 1), np.int64)
    for group in range(1, wanted):
        best, begins[group] = _with_one_more(best, sides)
    cuts = np.empty(wanted - 1, np.int64)
    stop = bins
    for group in range(wanted - 1, 0, -1):
        stop = cuts[group - 1] = begins[group, stop]
    return cuts


def _with_one_more(before: Floats, sides: list[Floats]) -> tuple[Floats, Ints]:
    """Return the least cost up to each stop with one more group, and where that group begins: [bins + 1] each.

    A later stop never makes the last group begin earlier, so the stops between two solved ones search only between
    their begins: a logarithm of passes over the bins instead of all pairs.

    Source:
        The divide-and-conquer form of Grønlund et al. 2017, "Fast Exact k-Means, k-Medians and Bregman Divergence
        Clustering in 1D", arXiv 1701.07204.
    """
    count = len(before)
    best, begins = np.full(count, np.inf), np.zeros(count, np.int64)
    stride = 1 << (count - 1).bit_length()
    while stride := stride // 2:
        stops = np.arange(stride, count, 2 * stride)
        later = np.minimum(stops + stride, count - 1)
        lowest = begins[stops - stride]
        highest = np.where(stops + stride < count, np.minimum(begins[later], stops - 1), stops - 1)
        lengths = np.maximum(highest - lowest, 0) + 1
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        # ragged rows, one per stop: the begins that it tries
        begin = np.arange(lengths.sum()) - np.repeat(first - lowest, lengths)
        cost = before[begin] + _interval_costs(sides, begin, np.repeat(stops, lengths))
        best[stops] = np.minimum.reduceat(cost, first)
        hits = np.flatnonzero(cost == np.repeat(best[stops], lengths))
        begins[stops] = begin[hits[np.searchsorted(hits, first)]]
    return best, begins


def _interval_costs(sides: list[Floats], begin: Ints, stop: Ints) -> Floats:
    """Return the squared distance within intervals begin … stop of merged bins, none of them empty: float64 [n]."""
    mass, total, square = (column[stop] - column[begin] for column in sides)
    inside: Floats = np.maximum(square - total * total / mass, 0)
    return inside


def _outward(column: Floats, places: Floats) -> Floats:
    """Return sums from the middle outward, negative below it: float64 [bins + 1]; differences are interval sums."""
    middle = int(np.searchsorted(places, 0))
    below = np.cumsum(column[:middle][::-1])[::-1]
    return np.concatenate([-below, [0.0], np.cumsum(column[middle:])])


def _refine(values: Floats, weights: Ints, cuts: Ints) -> Ints:
    """Return the cuts after scikit-learn's weighted k-means on all bins, from the centres of these cuts."""
    from sklearn.cluster import KMeans  # noqa: PLC0415  (takes a second to import, and only k-means needs it)

    centres = _centres(values, weights, cuts)
    if np.diff(centres).min() < _LEAST_GAP:
        return cuts
    fitted = KMeans(len(centres), init=centres[:, None], n_init=1, tol=0, max_iter=_MAX_ITERATIONS, random_state=0)
    # One thread adds in one order, so the result is the same every time; and threads would wait for busy workers.
    with _thread_pools().limit(limits=1):
        fitted.fit(values[:, None], sample_weight=weights.astype(np.float64))
    means = np.sort(fitted.cluster_centers_[:, 0])
    moved: Ints = np.searchsorted(values, (means[1:] + means[:-1]) / 2)
    return moved if _is_proper(moved, len(values)) else cuts


@cache
def _thread_pools() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # noqa: PLC0415  (as above)

    return ThreadpoolController()  # looks through the libraries of the process: 7 ms


def _is_proper(cuts: Ints, bins: int) -> bool:
    return bool((np.diff(np.concatenate([[0], cuts, [bins]])) > 0).all())


def _centres(values: Floats, weights: Ints, cuts: Ints) -> Floats:
    starts = np.concatenate([[0], cuts]).astype(np.int64)
    centres: Floats = np.add.reduceat(values * weights, starts) / np.add.reduceat(weights, starts)
    return centres


def _inertia(values: Floats, weights: Ints, cuts: Ints) -> float:
    sizes = np.diff(np.concatenate([[0], cuts, [len(values)]]))
    return float(weights @ (values - np.repeat(_centres(values, weights, cuts), sizes)) ** 2)


def _groups(histogram: Histogram, cuts: Ints) -> Groups:
    """Return the groups that begin at these occupied bins, with edges half-way between their centres."""
    bins, values, weights = histogram.bins, histogram.values(), histogram.weights()
    if not len(bins):
        return Groups(np.empty(0, np.float32), np.empty(0), np.empty(0, np.int64))
    centres = _centres(values, weights, cuts)
    counts = np.add.reduceat(weights, np.concatenate([[0], cuts]).astype(np.int64))
    if not len(cuts):
        return Groups(np.empty(0, np.float32), centres, counts)
    # Half-way can fall into the last bin below the cut: an edge lies above that bin, and not above the cut's own.
    half_way = codes((centres[1:] + centres[:-1]) / 2)
    edges = np.clip(half_way, bins[cuts - 1] + 1, bins[cuts])
    return Groups(bin_floors(edges), centres, counts)
