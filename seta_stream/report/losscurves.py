"""Losses to simulate with: what stood at each rank in an epoch, and which sample holds which rank.

Takes lines of history.jsonl, names of shapes, or two tables; gives losses of simulated samples, the same for every
policy. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.draws import WORD_RANGE, WordSource
from seta_stream.errors import ArgumentError, StateError

SHAPES: Final = ("exponential", "lognormal", "gamma", "late")
DEFAULT_CORRELATION: Final = 0.9
LEAST_COMMON: Final = 200
"""Fewer samples than this, seen in both of two epochs, tell no correlation."""

_FLOOR: Final = 0.3
_HALVING: Final = 0.2
_POINTS: Final = 4096
_LIMIT: Final = 6.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LossCurve:
    """Which loss stands at which rank, lowest first: one epoch's losses as a quantile function.

    Args:
        shares: float64 [bins + 1], ascending from 0 to 1: where each bin begins, and where the last ends.
        edges: float64 [bins + 1], ascending: the losses there.
        fill: float64 [bins], how far the samples of each bin spread towards its end: 0 puts all on the lower edge.
    """

    shares: Floats
    edges: Floats
    fill: Floats

    def at(self, ranks: Floats) -> NDArray[np.float32]:
        """Return the losses at ranks in (0, 1): float32 [n]."""
        place = np.searchsorted(self.shares[1:], ranks, side="left").clip(0, len(self.edges) - 2)
        lower, width = self.shares[place], np.diff(self.shares)[place]
        inside = (ranks - lower) / np.where(width > 0, width, 1.0)
        losses: NDArray[np.float64] = self.edges[place] + (self.fill * np.diff(self.edges))[place] * inside
        return losses.astype(np.float32)


def recorded_curve(line: Mapping[str, Any]) -> LossCurve | None:
    """Return the losses that a line of history.jsonl holds; None where it holds none.

    A merged bin says how many losses it has, not where in it they lie; they are spread so that the mean of all is
    the recorded one.

    Raises:
        StateError: the line is not one of a history.
    """
    try:
        edges = np.asarray(line["histogram"]["edges"], np.float64)
        counts = np.asarray(line["histogram"]["counts"], np.float64)
        mean = line.get("mean")
        if not len(counts) or not counts.sum():
            return None
        shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
        lacking = 0.0 if mean is None else float(mean) * float(counts.sum()) - float(edges[:-1] @ counts)
        fill = _filled(np.diff(edges) * counts / 2, lacking)
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(
            f"Cannot replay the line of epoch {line.get('epoch')} of the history: its histogram cannot be read "
            f"({type(error).__name__}: {error}). Restore history.jsonl, or take a state whose history is whole.",
            found=line.get("epoch"),
        ) from error
    return LossCurve(shares, edges, fill)


def _filled(spreads: Floats, lacking: float) -> Floats:
    """Return how far each bin is filled, so that all together make up what the lower edges lack: float64 [bins].

    The bin before a far outlier ends there, although its samples lie at its beginning: while the bins could make up
    for more than twice of what is lacking, the one that makes up for most is left on its lower edge.

    Args:
        spreads: float64 [bins], how much each adds to the sum of the losses where its samples spread evenly.
        lacking: what the sum of the losses is above that of the lower edges.
    """
    widest = np.argsort(-spreads, kind="stable")
    rest = np.append(np.cumsum(spreads[widest][::-1])[::-1], 0.0)  # without the first 0, 1, 2, … of the widest
    exempt = int(np.argmax(rest <= 2 * max(lacking, 0.0)))
    fill = np.zeros(len(spreads))
    if rest[exempt] > 0:
        fill[widest[exempt:]] = min(lacking / rest[exempt], 1.0)
    return fill


def synthetic_curves(shape: str, epochs: int) -> tuple[LossCurve, ...]:
    """Return the losses of a run that never was: one shape, falling to 0.3 of where it began.

    Args:
        shape: "exponential"; "lognormal" (sigma 1); "gamma" (shape 4); "late": 60 % near zero, the others exponential.
        epochs: of the run. The excess over the final level halves in each fifth of it.

    Raises:
        ArgumentError: another shape.
    """
    if shape not in SHAPES:
        raise ArgumentError(
            f"There is no synthetic history {shape!r}: choose one of {', '.join(SHAPES)}.", expected=SHAPES, found=shape
        )
    # Losses on a grid and the share of samples below each; the last point closes the curve.
    if shape == "lognormal":
        shares, places = _normal_grid()
        losses = np.exp(places)
    else:
        losses = np.concatenate([[0.0], np.geomspace(1e-6, 60.0, _POINTS)])
        if shape == "gamma":
            shares = 1 - np.exp(-losses) * (1 + losses + losses**2 / 2 + losses**3 / 6)
        elif shape == "late":
            shares = 0.6 * -np.expm1(-losses / 0.01) + 0.4 * -np.expm1(-losses)
        else:
            shares = -np.expm1(-losses)
    shares = np.maximum.accumulate(np.append(shares[:-1], 1.0))
    shares[0] = 0.0
    levels = _FLOOR + (1 - _FLOOR) * 0.5 ** (np.arange(epochs) / (_HALVING * epochs))
    return tuple(LossCurve(shares, losses * level, np.ones(len(losses) - 1)) for level in levels)


@dataclass(frozen=True)
class Population:
    """Simulated samples, each with a rank among the losses that lasts, and noise around it.

    A sample's place is a normal number that never changes plus one drawn each epoch, mixed so that the ranks of any
    two epochs have the given correlation.

    Args:
        samples: how many.
        correlation: rank correlation (Spearman) between two epochs, in [0, 1].
        seed: of the draws.
    """

    samples: int
    correlation: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.correlation <= 1:
            raise ArgumentError(
                f"correlation={self.correlation!r}: give the rank correlation of the losses between two epochs, in "
                "[0, 1], as 0.9.",
                expected="[0, 1]",
                found=self.correlation,
            )

    def losses(self, curve: LossCurve, epoch: int) -> NDArray[np.float32]:
        """Return what each sample's loss is in an epoch, whether or not anybody looks: float32 [samples]."""
        # Normal numbers of correlation r have the rank correlation 6/π · asin(r/2).
        lasting = 2 * math.sin(math.pi * self.correlation / 6)
        places = math.sqrt(lasting) * self._lasting
        if lasting < 1:
            places += math.sqrt(1 - lasting) * self._normal("noise", epoch)
        ranks = np.empty(self.samples)
        ranks[np.argsort(places, kind="stable")] = (np.arange(self.samples) + 0.5) / self.samples
        return curve.at(ranks)

    @cached_property
    def _lasting(self) -> Floats:
        return self._normal("lasting", -1)

    def _normal(self, purpose: str, epoch: int) -> Floats:
        words = WordSource(self.seed, f"simulated {purpose}", epoch).words(0, self.samples)
        return normal_scores((words.astype(np.float64) + 0.5) / WORD_RANGE)


def rank_correlation(
    old: NDArray[np.float32], new: NDArray[np.float32], ages: NDArray[np.uint8]
) -> tuple[float, int] | None:
    """Return the rank correlation of losses between two epochs, and from how many samples; None where too few tell.

    Only samples seen in the later epoch tell, and a policy chose them by what their losses were before. So both losses
    become normal scores among all samples, and the slope of the new on the old is taken: choosing by the old ones
    leaves a slope as it is, where it would lower a correlation.

    Args:
        old: float32 [samples], the losses before the later epoch; NaN: never seen.
        new: float32 [samples], as of its end.
        ages: uint8 [samples], likewise.
    """
    common = (ages == 0) & np.isfinite(old) & np.isfinite(new)
    count = int(np.count_nonzero(common))
    if count < LEAST_COMMON:
        return None
    before, after = (normal_scores(_ranks(losses))[common] for losses in (old, new))
    variance = float(np.var(before))
    if variance == 0:
        return None
    slope = float(np.mean((before - before.mean()) * (after - after.mean()))) / variance
    return 6 / math.pi * math.asin(min(max(slope, 0.0), 1.0) / 2), count


def _ranks(losses: NDArray[np.float32]) -> Floats:
    """Return each loss's rank among the finite ones, in (0, 1), equal losses sharing one: float64 [samples]."""
    seen = np.isfinite(losses)
    ranks = np.full(len(losses), 0.5)
    _, place, counts = np.unique(losses[seen], return_inverse=True, return_counts=True)
    ranks[seen] = ((np.cumsum(counts) - counts / 2) / counts.sum())[place]
    return ranks


def normal_scores(ranks: ArrayLike) -> Floats:
    """Return the numbers below which these shares of a standard normal lie: float64 [n], at most 6 in size."""
    return np.interp(np.asarray(ranks, np.float64), *_normal_grid())


@cache
def _normal_grid() -> tuple[Floats, Floats]:
    """Return the shares of a standard normal below evenly spaced numbers, and these numbers."""
    places = np.linspace(-_LIMIT, _LIMIT, _POINTS)
    return np.array([0.5 * math.erfc(-place / math.sqrt(2)) for place in places.tolist()]), places
