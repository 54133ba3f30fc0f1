"""Importance by the loss: SelectiveBackprop by rank, LossProportional by size. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram, bin_floors, merge_starts
from seta_stream.policies.rule import Rule
from seta_stream.policies.shares import (
    check_amount,
    check_portion,
    check_settings,
    everything,
    scaled_keeps,
    wanted,
)
from seta_stream.policies.smoothing import BLS

_SLOTS: Final = 128
"""Steps of equal mass; a bin that holds more than one has a step of its own: at most twice as many in all."""

_SIZES: Final = 512
"""Steps of losses of about one size."""


@dataclass(frozen=True)
class SelectiveBackprop:
    """Keeps each sample with probability u^beta, u being the share of samples with a lower loss.

    Exactly 1 / (beta + 1) of the seen samples are kept in expectation: beta 1, 2, 3 keep 50, 33, 25 %. At most 256
    steps, each kept with the mean of u^beta over it; samples of one loss are one step. Weights are 1: the method leans
    towards hard samples on purpose. Unseen samples are kept. Needs the loss of each sample.

    Args:
        beta: selectivity, at least 0; 0 keeps everything.
        smooth: a moving average in place of the last loss.

    Raises:
        PolicyError: settings out of range.
    Source:
        Jiang et al., "Accelerating Deep Learning by Focusing on the Biggest Losers", 2019, arXiv 1910.00762. Where we
        differ: losses are those of the last visit, for the paper computes them in a forward pass over everything (its
        stale variant comes near); ranks are among all samples (theirs: the last 1,024 losses); tied samples share
        the mean of their ranks.
    """

    beta: float = 1.0
    smooth: BLS | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        check_amount("beta", self.beta)

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return steps of equal mass, kept the more often the higher their losses."""
        if not histogram.seen:
            return everything()
        counts = histogram.weights()
        stops = np.cumsum(counts)
        slots = (stops - counts) * _SLOTS // histogram.seen
        begins = (np.diff(slots, prepend=-1) > 0) | (counts * _SLOTS >= histogram.seen)
        first = np.flatnonzero(begins)
        # The cumulated probability u^(beta + 1) / (beta + 1) at the steps' ends [steps + 1]; its sum is exact.
        ends = np.append((stops - counts)[first], histogram.seen) / histogram.seen
        cumulated = ends ** (self.beta + 1) / (self.beta + 1)
        keep = np.clip(np.diff(cumulated) / np.diff(ends), 0, 1)
        return Rule(bin_floors(histogram.bins[first[1:]]), keep)

    def expected_share(self, epoch: int) -> float:
        """Return 1 for epoch 0, when no losses are known, else 1 / (beta + 1); more where some are unseen."""
        return 1 / (self.beta + 1) if epoch else 1.0


@dataclass(frozen=True)
class LossProportional:
    """Keeps each sample with probability min(1, c · loss), weighted by the inverse; c holds the share asked for.

    Keep times weight is 1 everywhere, so the expected gradient is that of the full data, and of all unbiased choices
    this one has the least variance if gradients are as long as losses are high. Exactly 1 - `prune_ratio` of all
    samples are kept in expectation; unseen ones are kept with weight 1 and count first. Needs the loss of each sample.

    Args:
        prune_ratio: the share of samples left out, in [0, 1).
        floor: the least keep probability, in (0, 1 - prune_ratio]: every sample comes back in about 1/floor epochs,
            losses of 0 and below included, and no weight exceeds 1/floor. Ours: the paper needs none.
        smooth: a moving average in place of the last loss.

    Raises:
        PolicyError: settings out of range, or a floor that alone keeps more than asked for.
    Source:
        Katharopoulos and Fleuret, "Not All Samples Are Created Equal: Deep Learning with Importance Sampling", ICML
        2018, arXiv 1803.00942, its sampling by the loss. Where we differ: each sample is drawn at most once an epoch
        (theirs: with replacement, from a batch pre-sampled by a forward pass); losses are those of the last visit and
        are put into at most 512 steps of about one size.
    """

    prune_ratio: float
    floor: float = 0.05
    smooth: BLS | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        check_portion("floor", self.floor, zero=False)
        if self.floor > round(1.0 - self.prune_ratio, 9):
            raise PolicyError(
                f"floor={self.floor} keeps more than prune_ratio={self.prune_ratio} allows: give a floor of at most "
                f"{1.0 - self.prune_ratio:.3g}.",
                expected=1.0 - self.prune_ratio,
                found=self.floor,
            )

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return steps of losses of about one size, kept in proportion to their mean."""
        if not histogram.seen:
            return everything()
        values, counts = histogram.values(), histogram.weights()
        first = merge_starts(values, counts, _SIZES)
        masses = np.add.reduceat(counts, first)
        sizes = np.add.reduceat(np.maximum(values, 0) * counts, first) / masses
        keep = scaled_keeps(masses, sizes, wanted(histogram, 1.0 - self.prune_ratio), self.floor)
        return Rule(bin_floors(histogram.bins[first[1:]]), keep, 1 / keep)

    def expected_share(self, epoch: int) -> float:
        """Return 1 for epoch 0, when no losses are known, else 1 - prune_ratio."""
        return 1.0 - self.prune_ratio if epoch else 1.0
