"""What the policies share: bands of the sorted scores as steps, keeps that hold a share, checks of settings.

Takes histograms, shares and settings; gives edges, keep probabilities and errors. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram, bin_floors
from seta_stream.policies.rule import Rule
from seta_stream.policies.smoothing import BLS

Edges = NDArray[np.float32]
Floats = NDArray[np.float64]


def everything() -> Rule:
    """Return the rule that keeps all samples with weight 1."""
    return Rule([], [1.0])


def anneals(epoch: int, num_epochs: int, delta: float) -> bool:
    """Say whether an epoch, counted from 0, lies in the last 1 - delta of the run.

    The first that does is floor(delta * num_epochs): epoch + 1 > delta * num_epochs.
    """
    return epoch + 1 > round(delta * num_epochs, 9)


def wanted(histogram: Histogram, share: float) -> float:
    """Return how many of the seen samples to keep, so that `share` of all are.

    Unseen samples are kept and count first; 0 where they are more than the share already.
    """
    return min(max(round(share * histogram.total, 9) - histogram.unseen, 0.0), float(histogram.seen))


def bands(histogram: Histogram, cuts: Sequence[float], keeps: Sequence[float]) -> tuple[Edges, Floats]:
    """Return the steps that keep each band of the sorted seen samples with a probability of its own.

    A cut seldom falls between two bins, and one bin can hold most of the samples. The bin that a cut falls into becomes
    a step of its own, kept with the mean of the bands it lies in: the number kept is exact in expectation, and samples
    of one loss are treated alike.

    Args:
        histogram: with at least one seen sample.
        cuts: [bands - 1], ascending: how many samples lie below each cut, fractions allowed.
        keeps: [bands], easiest first.

    Returns:
        edges float32 [steps - 1] and keep float64 [steps], for a Rule; neighbours that are kept alike are one step.
    """
    each_band = np.asarray(keeps, np.float64)
    places = np.clip(np.round(np.asarray(cuts, np.float64), 9), 0, histogram.seen)
    counts = histogram.weights()
    stops = np.cumsum(counts)
    starts = stops - counts
    # Per occupied bin: the band at its begin and at its end; they differ where a cut falls inside.
    first = np.searchsorted(places, starts, side="right")
    last = np.searchsorted(places, stops, side="left")
    keep = each_band[first]
    for place in np.flatnonzero(last > first):
        inside = places[first[place] : last[place]]
        sizes = np.diff(np.concatenate([[starts[place]], inside, [stops[place]]]))
        keep[place] = sizes @ each_band[first[place] : last[place] + 1] / counts[place]
    np.clip(keep, 0, 1, out=keep)
    changes = np.flatnonzero(np.diff(keep)) + 1
    return bin_floors(histogram.bins[changes]), keep[np.concatenate([[0], changes])]


def top(histogram: Histogram, count: float, chance: float = 1.0) -> Rule:
    """Return the rule that keeps the `count` highest scores with a probability, the others not, the unseen surely."""
    return Rule(*bands(histogram, [histogram.seen - count], [0.0, chance]))


def scaled_keeps(masses: ArrayLike, sizes: ArrayLike, count: float, floor: float = 0.0) -> Floats:
    """Return keep = min(1, max(floor, c · size)) of each step, with c solved so that `count` samples are kept.

    Exact, not iterated: the number kept is piecewise linear in c. Where even the largest c keeps too few, because
    some sizes are 0, those steps share what is missing; where the floor alone keeps more than `count`, it stays.

    Args:
        masses: float64 [steps], positive: samples of each.
        sizes: float64 [steps], at least 0.
        count: how many to keep, in expectation, at most sum(masses).
        floor: the least keep, in [0, 1].
    """
    masses, sizes = np.asarray(masses, np.float64), np.asarray(sizes, np.float64)
    positive = sizes > 0
    most = float(masses[positive].sum())
    if count >= most + floor * masses[~positive].sum():
        rest = float(masses[~positive].sum())
        share = min(max((count - most) / rest, floor), 1.0) if rest else 1.0
        return np.where(positive, 1.0, share)
    # Where each step leaves the floor, and where it reaches 1; between two neighbouring points all is linear.
    reaches = np.divide(1.0, sizes, out=np.full(len(sizes), np.inf), where=positive)
    leaves = np.full(len(sizes), np.inf)
    leaves[positive] = floor * reaches[positive]
    points = np.unique(np.concatenate([[0.0], leaves[positive], reaches[positive]]))
    kept = np.clip(points[:, None] * sizes, floor, 1) @ masses
    stop = int(np.clip(np.searchsorted(kept, count), 1, len(points) - 1))
    full, low = reaches <= points[stop - 1], leaves >= points[stop]
    free = ~(full | low)
    missing = count - masses[full].sum() - floor * masses[low].sum()
    scale = missing / (masses * sizes)[free].sum() if free.any() else 0.0
    return np.where(full, 1.0, np.where(low, floor, np.clip(scale * sizes, floor, 1)))


def check_share(name: str, value: Any) -> None:
    """Refuse what is not a number in [0, 1).

    Raises:
        PolicyError: naming the setting.
    """
    if not _is_number(value) or not 0 <= value < 1:
        raise PolicyError(
            f"{name}={value!r}: give the share of samples to leave out, at least 0 and below 1, as {name}=0.5.",
            expected="[0, 1)",
            found=value,
        )


def check_count(name: str, value: Any) -> None:
    """Refuse what is not a whole number of at least 1.

    Raises:
        PolicyError: naming the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PolicyError(f"{name}={value!r}: give a whole number, at least 1.", found=value)


def check_portion(name: str, value: Any, *, zero: bool) -> None:
    """Refuse what is not a number in (0, 1], or in [0, 1] with `zero`.

    Raises:
        PolicyError: naming the setting.
    """
    if not _is_number(value) or not (0 <= value <= 1) or (value == 0 and not zero):
        span = "[0, 1]" if zero else "(0, 1]"
        raise PolicyError(f"{name}={value!r}: give a number in {span}.", expected=span, found=value)


def check_amount(name: str, value: Any, least: float = 0.0) -> None:
    """Refuse what is not a finite number of at least `least`.

    Raises:
        PolicyError: naming the setting.
    """
    if not _is_number(value) or not least <= value < float("inf"):
        raise PolicyError(f"{name}={value!r}: give a finite number, at least {least:g}.", expected=least, found=value)


def numbers_of(name: str, given: object) -> tuple[float, ...]:
    """Return a tuple or list of numbers as a tuple.

    Raises:
        PolicyError: it is something else, naming the setting.
    """
    if not isinstance(given, (tuple, list)) or not all(_is_number(one) for one in given):
        raise PolicyError(f"{name}={given!r}: give a tuple of numbers, as {name}=(1, 2).", found=given)
    return tuple(given)


def check_smooth(value: object) -> None:
    """Refuse what is neither None nor a BLS.

    Raises:
        PolicyError: naming the setting.
    """
    if value is not None and not isinstance(value, BLS):
        raise PolicyError(f"smooth={value!r}: give BLS(alpha=0.9), or None for the last loss.", found=value)


def check_settings(policy: Any) -> None:
    """Refuse impossible `num_epochs`, `prune_ratio`, `delta` and `smooth`, of those that the policy has.

    Raises:
        PolicyError: naming the setting.
    """
    settings = vars(policy)
    if "num_epochs" in settings:
        check_count("num_epochs", policy.num_epochs)
    if "prune_ratio" in settings:
        check_share("prune_ratio", policy.prune_ratio)
    if "delta" in settings:
        check_portion("delta", policy.delta, zero=True)
    if "smooth" in settings:
        check_smooth(policy.smooth)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
