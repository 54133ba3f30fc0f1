"""SeTa as its authors' code computes it, written down from its description, on raw losses in memory.

Takes losses by index; gives indices. It knows nothing of bins, rules or shards, and shares no code with the package.

The description: a random part of the samples of exact size; scikit-learn's k-means with one k-means++ start on the
losses of that part; groups in the order of their centres; all of them at the first time, then a window of round(α k)
neighbouring ones that starts at n mod (k - w + 1); once the share δ of the epochs is over, a random part of
everything. Samples without a loss have the loss 3.0; at least a tenth is kept.

Source:
    "Scale Efficient Training for Large Datasets", CVPR 2025, arXiv 2503.13385, and github.com/mrazhou/SeTa. Left out:
    chunks in data order where all losses are equal, and one sample at random where nothing else would be left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans

UNSEEN_LOSS = 3.0
LEAST_KEEP = 0.1

Indices = NDArray[np.int64]


def ceiling(width: float) -> int:
    """Return the paper's window width; what binary fractions add in the tenth decimal is not meant."""
    return math.ceil(round(width, 9))


@dataclass
class PublishedSeTa:
    """One run over `samples` samples, epoch by epoch.

    Args:
        samples: how many there are.
        num_epochs, prune_ratio, num_group, window_scale, delta: as the authors call them.
        whole: how a window's width becomes a number of groups: `round` in the code, `ceiling` in the paper.
        seed: of the random parts.
    """

    samples: int
    num_epochs: int
    prune_ratio: float = 0.0
    num_group: int = 10
    window_scale: float = 0.5
    delta: float = 0.875
    whole: Callable[[float], int] = round
    seed: int = 0
    losses: NDArray[np.float32] = field(init=False)
    epochs_begun: int = 0
    windows_shown: int = 0

    def __post_init__(self) -> None:
        self.losses = np.full(self.samples, UNSEEN_LOSS, np.float32)
        self.random = np.random.default_rng(self.seed)

    @property
    def keep(self) -> float:
        """The share kept of what is taken."""
        return min(1.0, max(LEAST_KEEP, 1.0 - self.prune_ratio))

    def select(self) -> Indices:
        """Return the samples of the next epoch."""
        self.epochs_begun += 1
        part = self.random.permutation(self.samples)[: int(self.samples * self.keep)]
        if self.epochs_begun > self.num_epochs * self.delta:
            return part
        self.windows_shown += 1
        if self.windows_shown == 1:  # all groups, whatever they are: at that time all losses are alike
            return part
        groups = self.group(part, self.fitted_centres(part))
        window = self.window(len(groups), self.windows_shown - 1)
        return np.concatenate(groups[window.start : window.stop])

    def fitted_centres(self, part: Indices) -> NDArray[np.float64]:
        """Return the centres that one k-means++ start finds for the losses of these samples, ascending."""
        fitted = KMeans(self.num_group, random_state=0).fit(self.losses[part][:, None])
        return np.sort(fitted.cluster_centers_[:, 0].astype(np.float64))

    def group(self, part: Indices, centres: ArrayLike) -> list[Indices]:
        """Return these samples by nearest centre, in the order of the centres."""
        points = np.asarray(centres, np.float64)
        # axes: sample x centre
        nearest = np.abs(self.losses[part].astype(np.float64)[:, None] - points).argmin(axis=1)
        return [part[nearest == one] for one in range(len(points))]

    def window(self, groups: int, shown: int) -> range:
        """Return which groups are taken where so many windows, that of all groups included, were shown before."""
        if shown == 0:
            return range(groups)
        width = self.whole(groups * self.window_scale)
        start = shown % (groups - width + 1)
        return range(start, start + width)

    def record(self, indices: Indices, losses: ArrayLike) -> None:
        """Take the losses of the samples that were trained on."""
        self.losses[indices] = np.asarray(losses, np.float32)
