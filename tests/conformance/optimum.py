"""The exact one-dimensional k-means optimum, plainly, and the squared distance of any grouping.

Takes losses; gives numbers. Pure, and shares nothing with the package.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def squared_distance(losses: ArrayLike, edges: ArrayLike) -> float:
    """Return the sum of squared distances to the groups' means; group i covers edges[i-1] <= loss < edges[i]."""
    values = np.asarray(losses, np.float64)
    group = np.searchsorted(np.asarray(edges, np.float64), values, side="right")
    parts = [values[group == one] for one in np.unique(group)]
    return float(sum(((part - part.mean()) ** 2).sum() for part in parts))


def best_squared_distance(losses: ArrayLike, num_group: int) -> float:
    """Return the least squared distance over all groupings into at most `num_group` groups.

    The best groups of numbers on a line are intervals of the sorted numbers (Fisher 1958), so the best of k groups
    over the first m numbers is the best of k - 1 groups over the first b and one group over b … m - 1, for some b.
    """
    values = np.sort(np.asarray(losses, np.float64))
    cost = _interval_costs(values)
    best = cost[:, 0]  # [stop]: one group over the numbers before stop
    for _ in range(min(num_group, len(values)) - 1):
        # [stop, begin]: the last group covers begin … stop - 1
        best = np.minimum(best, (best[None, :] + cost).min(axis=1))
    return float(best[-1])


def _interval_costs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared distance within values[begin:stop]: float64 [stop, begin], inf where there is none.

    Means and squares grow by one number at a time (Welford 1962), which loses nothing to large numbers nearby.
    """
    n = len(values)
    cost = np.full((n + 1, n + 1), np.inf)
    cost[0, 0] = 0.0
    mean, square = np.zeros(n), np.zeros(n)
    for last, value in enumerate(values):
        # One entry per begin 0 … last.
        off = value - mean[: last + 1]
        mean[: last + 1] += off / np.arange(last + 1, 0, -1)
        square[: last + 1] += off * (value - mean[: last + 1])
        cost[last + 1, : last + 1] = square[: last + 1]
    return cost
