"""Random pruning, by one draw for the run or a new one each epoch: the baselines that need no losses. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.rule import Rule


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


def check_share(name: str, value: object) -> None:
    """Refuse what is not a number in [0, 1).

    Raises:
        PolicyError: naming the setting.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise PolicyError(
            f"{name}={value!r}: give the share of samples to leave out, at least 0 and below 1, as {name}=0.5.",
            expected="[0, 1)",
            found=value,
        )
