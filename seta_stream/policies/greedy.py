"""EpsilonGreedy and UCB: the samples of the highest average loss, and some that may have changed. Pure.

Source:
    Raju, Daruwalla and Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", 2021, arXiv 2111.12621.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.losses.columns import LOSS, Column, Values
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.rule import Rule
from seta_stream.policies.shares import bands, check_amount, check_portion, check_settings, everything, top, wanted
from seta_stream.policies.smoothing import BLS, moving_average

_EMA: Final = "ema"
_VAR: Final = "var"
_LARGEST: Final = np.finfo(np.float32).max


@dataclass(frozen=True)
class EpsilonGreedy:
    """Keeps 1 - `prune_ratio` of all samples: most by the highest average loss, a share `epsilon` at random.

    Of the K samples to keep, (1 - epsilon) K are those of the highest moving average of their losses, and epsilon K
    are drawn from all the rest. Unseen samples are kept and count first, so K is held exactly in expectation unless
    more than K are unseen. Needs the loss of each sample; remembers its average (4 bytes).

    Args:
        prune_ratio: the share of samples left out, in [0, 1).
        epsilon: the share of K that is drawn at random, in [0, 1].
        new_weight: weight of a new loss in the average, in (0, 1].
        smooth: an average of another kind; `new_weight` is then not used.

    Raises:
        PolicyError: settings out of range.
    Source:
        See the module. Their code could not be had: `new_weight` 0.8 is the one known of their UCB, `epsilon` 0.1 is
        ours. Where we differ: the paper selects every few epochs, we each epoch; an average starts at the first loss.
    """

    prune_ratio: float
    epsilon: float = 0.1
    new_weight: float = 0.8
    smooth: BLS | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        check_portion("epsilon", self.epsilon, zero=True)
        check_portion("new_weight", self.new_weight, zero=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The average, unless `smooth` brings its own."""
        return (_average(self.new_weight),) if self.smooth is None else ()

    def score(self, values: Values) -> NDArray[np.float32]:
        """Return the average loss, NaN where never seen."""
        return values[_EMA if self.smooth is None else LOSS]

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return the step of the highest averages, kept whole, above the one of the rest."""
        if not histogram.seen:
            return everything()
        budget = wanted(histogram, 1.0 - self.prune_ratio)
        greedy = min(wanted(histogram, (1.0 - self.epsilon) * (1.0 - self.prune_ratio)), budget)
        rest = histogram.seen - greedy
        chance = min((budget - greedy) / rest, 1.0) if rest else 0.0
        return Rule(*bands(histogram, [rest], [chance, 1.0]))

    def expected_share(self, epoch: int) -> float:
        """Return 1 for epoch 0, when no losses are known, else 1 - prune_ratio."""
        return 1.0 - self.prune_ratio if epoch else 1.0


@dataclass(frozen=True)
class UCB:
    """Keeps 1 - `prune_ratio` of all samples: those of the highest average + c · variance of their losses.

    The variance brings back samples whose loss moves. Unseen samples are kept and count first, so the share is held
    exactly in expectation unless more are unseen. Needs the loss of each sample; remembers average and variance (8
    bytes).

    Args:
        prune_ratio: the share of samples left out, in [0, 1).
        c: how much the variance counts, at least 0.
        new_weight: weight of a new loss in average and variance, in (0, 1].
        smooth: an average of another kind; `new_weight` is then the variance's alone.

    Raises:
        PolicyError: settings out of range.
    Source:
        See the module; defaults as in the re-implementation by the authors of InfoBatch (infobatch_ucb.py of
        henryqin1997/InfoBatch-ImageNet). Where we differ: they select every tenth epoch, we each epoch; average and
        variance start at the first loss with variance 0 (theirs start at 0, so that the first variance is 0.8 · loss²).
    """

    prune_ratio: float = 0.41
    c: float = 1.0
    new_weight: float = 0.8
    smooth: BLS | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        check_amount("c", self.c)
        check_portion("new_weight", self.new_weight, zero=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The average, unless `smooth` brings its own, and the variance around it."""
        average = _average(self.new_weight) if self.smooth is None else self.smooth.column
        variance = Column(_VAR, "float32", 0.0, partial(_moved_variance, average.name, self.new_weight))
        return (average, variance) if self.smooth is None else (variance,)

    def score(self, values: Values) -> NDArray[np.float32]:
        """Return average + c · variance, NaN where never seen."""
        average = values[_EMA if self.smooth is None else LOSS]
        return _finite(average.astype(np.float64) + self.c * values[_VAR].astype(np.float64))

    def rule(self, histogram: Histogram, epoch: int) -> Rule:  # noqa: ARG002  (the protocol's signature)
        """Return the step of the highest scores, kept whole, above the one of the others, dropped."""
        if not histogram.seen:
            return everything()
        return top(histogram, wanted(histogram, 1.0 - self.prune_ratio))

    def expected_share(self, epoch: int) -> float:
        """Return 1 for epoch 0, when no losses are known, else 1 - prune_ratio."""
        return 1.0 - self.prune_ratio if epoch else 1.0


def _average(new_weight: float) -> Column:
    return Column(_EMA, "float32", np.nan, partial(_moved_average, new_weight))


def _moved_average(new_weight: float, old: Values, new: NDArray[Any]) -> NDArray[Any]:
    return moving_average(old[_EMA], new, new_weight)


def _moved_variance(average: str, new_weight: float, old: Values, new: NDArray[Any]) -> NDArray[Any]:
    """Return the variance around the average as it was before this loss; 0 after the first one."""
    apart = new.astype(np.float64) - old[average]
    return _finite(np.where(np.isnan(apart), 0.0, (1 - new_weight) * old[_VAR] + new_weight * apart**2))


def _finite(values: NDArray[np.float64]) -> NDArray[np.float32]:
    # An infinite score would count as unseen.
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)
