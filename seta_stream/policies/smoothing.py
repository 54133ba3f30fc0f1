"""Smoothing: a moving average of what is recorded, in the place of the last loss. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import PolicyError
from seta_stream.losses.columns import LOSS, Column, Values

SMOOTHED: Final = "smoothed"


@dataclass(frozen=True)
class BLS:
    """Batch loss smoothing: score ← alpha · score + (1 − alpha) · what is recorded.

    With it a policy needs no loss per sample: `record(ids, batch_mean)` takes one number for a whole batch, and over
    the epochs a sample's average tells it from its changing neighbours. With a loss per sample it is a plain moving
    average. The first loss of a sample is its first score.

    Args:
        alpha: weight of the old score, in [0, 1).

    Raises:
        PolicyError: another `alpha`.
    Source:
        BLS, CVPR 2026, by an author of SeTa; alpha 0.9 as in the published code. Where a sample's score starts is ours.
    """

    alpha: float = 0.9

    def __post_init__(self) -> None:
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, (int, float)) or not 0 <= self.alpha < 1:
            raise PolicyError(
                f"BLS(alpha={self.alpha!r}): give the weight of the old score, at least 0 and below 1, as alpha=0.9.",
                expected="[0, 1)",
                found=self.alpha,
            )

    @property
    def column(self) -> Column:
        """The column that holds the average."""
        return Column(SMOOTHED, "float32", np.nan, self.update)

    def update(self, old: Values, new: NDArray[Any]) -> NDArray[Any]:
        """Return the averages after these losses: float32 [n]."""
        return moving_average(old[SMOOTHED], new, 1 - self.alpha)


def moving_average(old: NDArray[Any], new: NDArray[Any], weight: float) -> NDArray[Any]:
    """Return old + weight · (new − old), and `new` where there is no old (NaN): float32 [n]."""
    moved: NDArray[Any] = np.where(np.isnan(old), new, old + np.float32(weight) * (new - old)).astype(np.float32)
    return moved


def smoothed(values: Values) -> dict[str, NDArray[Any]]:
    """Return what is remembered, with the average as the loss."""
    return {**values, LOSS: values[SMOOTHED]}
