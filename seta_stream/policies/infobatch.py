"""InfoBatch: fewer of the easy samples, each with the more weight. Pure.

Source:
    "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024, arXiv 2303.04947; code
    github.com/NUS-HPC-AI-Lab/InfoBatch and github.com/henryqin1997/InfoBatch-ImageNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.rule import Rule
from seta_stream.policies.shares import (
    anneals,
    bands,
    check_portion,
    check_settings,
    check_share,
    everything,
    numbers_of,
    scaled_keeps,
)
from seta_stream.policies.smoothing import BLS

_PERCENTILES: Final = (20, 85)
_KEEP: Final = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class InfoBatch:
    """Keeps 1 - `prune_ratio` of the samples below the mean loss, weighted 1 / (1 - `prune_ratio`), and all others.

    Keep times weight is 1 everywhere, so the expected gradient is that of the full data. Epoch e (from 0) prunes while
    e + 1 <= delta * num_epochs; from epoch floor(delta * num_epochs) on everything is read with weight 1. How much
    is saved depends on the losses: `prune_ratio` of the share that lies below the mean. Unseen samples are kept with
    weight 1. Needs the loss of each sample.

    Args:
        num_epochs: of the run.
        prune_ratio: the share left out of the samples below the mean, in [0, 1).
        delta: the share of the run that prunes.
        smooth: a moving average in place of the last loss.

    Raises:
        PolicyError: settings out of range.
    Source:
        See the module; defaults as published. Where we differ: weights are reset in the first annealing epoch for
        every `num_epochs` (the published code compares an integer with delta * num_epochs + 1 and so leaves the last
        weights in place unless num_epochs is a multiple of 8); the mean is that of the seen samples (theirs counts
        unseen ones as 3.0) and is snapped down to its bin, so that samples within 2^-11 of it count as not below;
        samples are drawn one by one (theirs: an exact number); `prune_ratio` may exceed 0.9.
    """

    num_epochs: int
    prune_ratio: float = 0.5
    delta: float = 0.875
    smooth: BLS | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def rule(self, histogram: Histogram, epoch: int) -> Rule:
        """Return two steps, below the mean and not below; one where nothing was seen or the run anneals."""
        if not histogram.seen or anneals(epoch, self.num_epochs, self.delta):
            return everything()
        keep = 1.0 - self.prune_ratio
        return Rule([histogram.mean], [keep, 1.0], [1 / keep, 1.0])

    def expected_share(self, epoch: int) -> float | None:
        """Return 1 for epoch 0, when no losses are known, and while annealing; else None: it depends on the losses."""
        return 1.0 if epoch == 0 or anneals(epoch, self.num_epochs, self.delta) else None


@dataclass(frozen=True)
class InfoBatchQuantile:
    """Keeps each band between two percentiles of the loss with its own probability, weighted by its inverse.

    What is kept of the seen samples is known ahead: the sum of band times keep, 52.5 % with the defaults. A
    percentile that falls inside a bin makes that bin a step of its own with the mean keep of its bands, so this holds
    whatever the losses are. Epochs anneal as those of InfoBatch. Unseen samples are kept with weight 1. Needs the loss
    of each sample.

    Args:
        num_epochs: of the run.
        percentiles: where the bands end, ascending, each between 0 and 100.
        keep: the probability of each band, easiest first, in (0, 1]; one more than percentiles.
        delta: the share of the run that prunes.
        smooth: a moving average in place of the last loss.

    Raises:
        PolicyError: settings out of range.
    Source:
        infobatch_quantile.py of henryqin1997/InfoBatch-ImageNet; defaults as published. Where we differ: bands hold
        exact shares of the samples (theirs put all samples of one loss on one side), and samples are drawn one by one.
    """

    num_epochs: int
    percentiles: tuple[float, ...] = _PERCENTILES
    keep: tuple[float, ...] = _KEEP
    delta: float = 0.875
    smooth: BLS | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "percentiles", numbers_of("percentiles", self.percentiles))
        object.__setattr__(self, "keep", numbers_of("keep", self.keep))
        inner = [0.0, *self.percentiles, 100.0]
        if not all(low < high for low, high in pairwise(inner)):
            raise PolicyError(
                f"percentiles={self.percentiles}: give ascending numbers between 0 and 100.", found=self.percentiles
            )
        if len(self.keep) != len(self.percentiles) + 1:
            raise PolicyError(
                f"keep={self.keep}: {len(self.percentiles)} percentiles make {len(self.percentiles) + 1} bands; give a "
                "keep probability for each.",
                expected=len(self.percentiles) + 1,
                found=len(self.keep),
            )
        for number, one in enumerate(self.keep):
            check_portion(f"keep[{number}]", one, zero=False)

    @classmethod
    def at(
        cls,
        num_epochs: int,
        prune_ratio: float,
        percentiles: Sequence[float] = _PERCENTILES,
        keep: Sequence[float] = _KEEP,
        delta: float = 0.875,
        smooth: BLS | None = None,
    ) -> InfoBatchQuantile:
        """Return the policy that leaves out `prune_ratio` of the seen samples in each pruning epoch.

        The keeps are scaled by one factor, up to 1 each: with the defaults `prune_ratio=0.475` changes nothing, a
        higher one thins the hardest band too, a lower one brings the middle band to 1 first.

        Raises:
            PolicyError: settings out of range.
        """
        plain = cls(num_epochs, tuple(percentiles), tuple(keep), delta, smooth)
        check_share("prune_ratio", prune_ratio)
        scaled = scaled_keeps(plain.shares, plain.keep, 1.0 - prune_ratio)
        return cls(num_epochs, plain.percentiles, tuple(scaled.tolist()), delta, smooth)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the seen samples in each band."""
        return tuple((high - low) / 100 for low, high in pairwise([0.0, *self.percentiles, 100.0]))

    def rule(self, histogram: Histogram, epoch: int) -> Rule:
        """Return a step per band, and one for each bin that a percentile falls into."""
        if not histogram.seen or anneals(epoch, self.num_epochs, self.delta):
            return everything()
        cuts = [percentile / 100 * histogram.seen for percentile in self.percentiles]
        edges, keep = bands(histogram, cuts, self.keep)
        return Rule(edges, keep, 1 / keep)

    def expected_share(self, epoch: int) -> float:
        """Return what is kept of the seen samples; 1 for epoch 0, when no losses are known, and while annealing."""
        if epoch == 0 or anneals(epoch, self.num_epochs, self.delta):
            return 1.0
        return float(np.dot(self.shares, self.keep))
