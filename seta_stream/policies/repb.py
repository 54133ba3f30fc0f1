"""RePB: comparisons within one batch, and weights that make up for missed epochs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.losses.columns import AGE, LOSS, Column, Values, latest
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.rule import Rule
from seta_stream.policies.shares import check_amount, check_settings, everything

_ABOVE: Final = "above"
_VISITS: Final = "visits"
_MOST_VISITS: Final = np.iinfo(np.uint16).max

MISSED: Final = 0.0
"""Score of a sample that the newest epoch did not visit."""
BELOW: Final = 1.0
"""Score of one that it visited, with a loss below the mean of its batch."""
HARD: Final = 2.0
"""Score of one that it visited, with a loss not below the mean of its batch."""


@dataclass(frozen=True)
class RePB:
    """Keeps what was hard for its batch; everything else, visited or not, with probability 1 - `prune_ratio`.

    A loss is compared only with those of the same window, what one call of record() or update() brings: one batch, or
    the few that an adapter hands over together. So all of them come from nearly the same model. A sample whose loss was
    at least the mean of its window in the newest epoch is kept; one below it by chance, and so is one that the newest
    epoch did not visit. Unseen samples are kept.

    The loss of a sample is weighted by E / N: E epochs and N visits so far, both counting the one about to begin. A
    sample visited with a chance of p each epoch has p · E / N = 1 - (1 - p)^E on average, never undefined. (Epoch 0
    reads everything, a visit more: the mean weight is about 0.7 in epoch 1, 0.84 over epochs 2 to 9, then nears 1.)
    Capped by `max_weight`. Remembers 3 bytes per sample; needs one loss per sample, and columns recorded from epoch 0
    on (a table filled before has no visits).

    Args:
        prune_ratio: the chance to leave out what is not hard, in [0, 1).
        max_weight: the largest weight, at least 1; by default 2 / (1 - prune_ratio), twice the weight of a sample that
            is always left to chance.

    Raises:
        PolicyError: settings out of range.
    Source:
        "Inconsistency Biases in Dynamic Data Pruning", ICLR 2026 (openreview.net/forum?id=Zw1Uw7u6Su). Neither the
        full paper nor its code (github.com/mrazhou/RePB) could be had: this follows the abstract and a summary. Known
        are the window means, the re-entry with 1 - rho and the weight E / N; ours are the default of `prune_ratio`
        (InfoBatch's), the cap, counting the coming epoch, and no annealing.
    """

    prune_ratio: float = 0.5
    max_weight: float | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        if self.max_weight is not None:
            check_amount("max_weight", self.max_weight, least=1.0)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Whether the last loss was above its window's mean, and the number of visits."""
        return (Column(_ABOVE, "uint8", 0, latest, of_call=_above), Column(_VISITS, "uint16", 0, _visited))

    def score(self, values: Values) -> NDArray[np.float32]:
        """Return what happened last: MISSED, BELOW or HARD; NaN where never seen."""
        visited = np.where(values[_ABOVE] != 0, HARD, BELOW)
        scores = np.where(values[AGE] == 0, visited, MISSED)
        return np.where(np.isnan(values[LOSS]), np.nan, scores).astype(np.float32)

    def weight(self, values: Values, epoch: int) -> NDArray[np.float32]:
        """Return E / N, up to the cap: float32 [n]."""
        visits = values[_VISITS].astype(np.float64) + 1
        return np.minimum((epoch + 1) / visits, self._cap).astype(np.float32)

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return two steps over the scores: HARD, kept, and the rest, left to chance."""
        if not histogram.seen:
            return everything()
        return Rule([HARD], [1.0 - self.prune_ratio, 1.0])

    def expected_share(self, epoch: int) -> float | None:
        """Return 1 for epoch 0, when no losses are known; else None: it depends on the losses."""
        return None if epoch else 1.0

    @property
    def _cap(self) -> float:
        return 2 / (1 - self.prune_ratio) if self.max_weight is None else self.max_weight


def _above(new: NDArray[Any]) -> NDArray[Any]:
    # In float64: the mean of equal losses must not exceed them.
    mean = float(np.sum(new, dtype=np.float64)) / max(len(new), 1)
    return (new >= np.float32(mean)).astype(np.uint8)


def _visited(old: Values, new: NDArray[Any]) -> NDArray[Any]:  # noqa: ARG001  (the shape of an update)
    visits: NDArray[Any] = old[_VISITS] + (old[_VISITS] < _MOST_VISITS).astype(np.uint16)
    return visits
