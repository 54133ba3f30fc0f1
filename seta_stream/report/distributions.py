"""The losses of each epoch as curves over one axis, with what the next rule keeps of them: for pictures and pages.

Takes lines of history.jsonl; gives places, densities and keep probabilities. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

POINTS: Final = 400

_DECADE: Final = 10.0
"""From the median to nearly the highest loss: beyond that the axis is logarithmic."""
_SHADES: Final = 20
"""Keep probabilities are told apart by so much of one, however many steps a rule has."""

Floats = NDArray[np.float64]
Lines = Sequence[Mapping[str, Any]]


class LossAxis:
    """Where losses lie on a picture: linear, or logarithmic where they span decades.

    Args:
        lines: of history.jsonl, each with losses.
        points: how many places it has.
    """

    def __init__(self, lines: Lines, points: int = POINTS) -> None:
        levels = np.array([_levels(line) for line in lines])
        low, high = float(levels[:, 0].min()), float(levels[:, -1].max())
        middle = float(np.median(levels[:, 1]))
        self.is_log = low > 0 and high / max(middle, 1e-300) > _DECADE
        self.low, self.high = (low, high) if high > low else (low - 0.5, high + 0.5)
        self._points = points
        if not self.is_log:
            margin = 0.02 * (self.high - self.low)
            self.low, self.high = self.low - margin, self.high + margin

    def places(self) -> Floats:
        """Return evenly spaced places along the axis; powers of ten where it is logarithmic."""
        ends = np.array([self.low, self.high])
        low, high = np.log10(ends) if self.is_log else ends
        return np.linspace(low, high, self._points)

    def losses(self, places: Floats) -> Floats:
        """Return the losses at places."""
        return 10.0**places if self.is_log else places

    def ticks(self, count: int = 5) -> list[tuple[float, float]]:
        """Return about `count` round losses on the axis, and how far along it each lies, 0 … 1."""
        first, *_, last = self.places().tolist()
        if not self.is_log:
            step = _round_step((last - first) / count)
            losses = [step * at for at in range(math.ceil(first / step), math.floor(last / step) + 1)]
        else:
            powers = range(math.floor(first), math.ceil(last) + 1)
            fine = (1, 2, 5) if last - first < 2 else (1, 3) if last - first < 4 else (1,)
            every = max(1, round((last - first) / count)) if fine == (1,) else 1
            losses = [factor * 10.0**power for power in powers if power % every == 0 for factor in fine]
        places = [(loss, math.log10(loss) if self.is_log else loss) for loss in losses]
        return [(loss, (at - first) / (last - first)) for loss, at in places if first <= at <= last]


def _round_step(least: float) -> float:
    """Return the lowest of 1, 2, 5, 10, … times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _levels(line: Mapping[str, Any]) -> Floats:
    """Return the 1 %, 50 % and 98 % losses of an epoch."""
    edges, counts = np.asarray(line["histogram"]["edges"]), np.asarray(line["histogram"]["counts"], float)
    reached = np.cumsum(counts) / counts.sum()
    at = np.searchsorted(reached, [0.01, 0.5, 0.98]).clip(0, len(counts) - 1)
    return np.array([edges[at[0]], edges[at[1]], edges[at[2] + 1]])


def density(line: Mapping[str, Any], axis: LossAxis) -> Floats:
    """Return the smoothed density at the axis's places."""
    places = axis.places()
    edges, counts = np.asarray(line["histogram"]["edges"], float), np.asarray(line["histogram"]["counts"], float)
    step = places[1] - places[0]
    borders = axis.losses(np.concatenate([places - step / 2, [places[-1] + step / 2]]))
    # A merged bin's samples lie between its edge and the next one; many equal losses make a step in the sum.
    running = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    shares = np.diff(np.interp(borders, edges, running, left=0.0, right=1.0))
    kernel = np.exp(-0.5 * (np.arange(-12, 13) / (len(places) / 100)) ** 2)
    smooth: Floats = np.convolve(shares, kernel / kernel.sum(), mode="same")
    return smooth


def keep_at(line: Mapping[str, Any], losses: Floats) -> Floats:
    """Return the keep probability at losses, by the rule that the line holds for the next epoch.

    A rule per group of samples has no one probability at a loss, and losses from before epoch 0 come without a rule:
    there it is the share that was kept, of all losses alike.
    """
    rule = line.get("rule")
    if rule is None or "groups" in rule:
        share = line.get("kept_share")
        keep: Floats = np.full(len(losses), 1.0 if share is None else share)
    else:
        keep = np.asarray(rule["keep"])[np.searchsorted(np.asarray(rule["edges"]), losses, side="right")]
    return np.ceil(np.round(_SHADES * keep, 9)) / _SHADES


def is_over(line: Mapping[str, Any]) -> bool:
    """Say whether a line closes the last epoch that its policy planned."""
    planned = planned_epochs(line)
    return planned is not None and line["epoch"] + 1 >= planned


def planned_epochs(line: Mapping[str, Any]) -> int | None:
    """Return how many epochs the policy of a line plans, or the policy within it; None where it does not say."""
    policy = (line.get("facts") or {}).get("policy")
    while isinstance(policy, Mapping):
        planned = policy.get("num_epochs")
        if isinstance(planned, int) and not isinstance(planned, bool):
            return planned
        policy = policy.get("policy")
    return None
