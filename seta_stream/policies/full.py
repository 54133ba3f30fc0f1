"""Full: every sample, every epoch. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seta_stream.losses.histogram import Histogram
from seta_stream.policies.rule import Rule


@dataclass(frozen=True)
class Full:
    """Keeps every sample with weight 1."""

    needs_losses: ClassVar[bool] = False

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return one step that keeps all."""
        return Rule([], [1.0])

    def expected_share(self, epoch: int) -> float:  # noqa: ARG002
        """Return 1."""
        return 1.0
