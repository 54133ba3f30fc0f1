"""Random pruning, by one draw for the run, a new one each epoch, or in turns: what needs no losses. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seta_stream.losses.histogram import Histogram
from seta_stream.policies.rule import Rule
from seta_stream.policies.shares import check_share


@dataclass(frozen=True)
class StaticRandom:
    """Keeps each sample with probability 1 - `prune_ratio`, the same samples in every epoch.

    Args:
        prune_ratio: the share left out, in [0, 1).

    Raises:
        PolicyError: another `prune_ratio`.
    Source:
        The usual "static random" baseline; published code often keeps the first N samples, which fails on sorted
        data. Here the subset is drawn.
    """

    prune_ratio: float
    needs_losses: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_share("prune_ratio", self.prune_ratio)

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return one step, drawn once for the run."""
        keep = 1.0 - self.prune_ratio
        return Rule([], [keep], unseen_keep=keep, draw="fixed")

    def expected_share(self, epoch: int) -> float:  # noqa: ARG002
        """Return 1 - prune_ratio."""
        return 1.0 - self.prune_ratio


@dataclass(frozen=True)
class DynamicRandom:
    """Keeps each sample with probability 1 - `prune_ratio`, drawn anew each epoch.

    Args:
        prune_ratio: the share left out, in [0, 1).

    Raises:
        PolicyError: another `prune_ratio`.
    """

    prune_ratio: float
    needs_losses: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_share("prune_ratio", self.prune_ratio)

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return one step, drawn for this epoch."""
        keep = 1.0 - self.prune_ratio
        return Rule([], [keep], unseen_keep=keep)

    def expected_share(self, epoch: int) -> float:  # noqa: ARG002
        """Return 1 - prune_ratio."""
        return 1.0 - self.prune_ratio


@dataclass(frozen=True)
class RS2:
    """Keeps a share 1 - `prune_ratio` in turns: epoch after epoch the next part of one random order.

    No sample is read twice before all were read once. With keep = 1 - `prune_ratio`, 1 / keep epochs take every sample
    exactly once where that is a whole number; else a cycle ends inside an epoch, which goes on with the next one.

    Args:
        prune_ratio: the share left out of each epoch, in [0, 1).

    Raises:
        PolicyError: another `prune_ratio`.
    Source:
        RS2 without replacement: Okanovic et al., "Repeated Random Sampling for Minimizing the Time-to-Accuracy of
        Learning", ICLR 2024, arXiv 2305.18424. Where we differ: one order serves all cycles (theirs: a new one each),
        and an epoch's size varies as that of samples drawn one by one.
    """

    prune_ratio: float
    needs_losses: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_share("prune_ratio", self.prune_ratio)

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return one step, whose samples take turns."""
        keep = 1.0 - self.prune_ratio
        return Rule([], [keep], unseen_keep=keep, draw="slice")

    def expected_share(self, epoch: int) -> float:  # noqa: ARG002
        """Return 1 - prune_ratio."""
        return 1.0 - self.prune_ratio
