"""SeTa: a window over loss groups that slides from easy to hard.

Takes a histogram and an epoch; gives the rule. Pure.

Source:
    "Scale Efficient Training for Large Datasets", CVPR 2025, arXiv 2503.13385; code github.com/mrazhou/SeTa.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.kmeans import Groups, equal_groups, kmeans
from seta_stream.policies.rule import Rule
from seta_stream.policies.shares import check_count, check_portion, check_share, check_smooth
from seta_stream.policies.smoothing import BLS

DEFAULT_PRUNE_RATIO: Final = 0.1
GROUP_SCALES: Final = ("loss", "log", "rank")

_PUBLISHED_UNSEEN_LOSS: Final = 3.0
_PUBLISHED_LEAST_KEEP: Final = 0.1


@dataclass(frozen=True)
class SeTa:
    """De-redundancy, loss groups, a sliding window over them, and random samples of everything at the end.

    Epoch 0 takes all groups; epoch n takes w neighbouring ones, from group n mod (groups - w + 1) on; once
    n + 1 > delta * num_epochs, all groups again. Each sample taken is kept with probability 1 - `prune_ratio`, drawn
    anew each epoch; so is each unseen one, whatever the window.

    With `target` the share saved over the run is what was asked for: each epoch after the first keeps
    1 - target * num_epochs / (num_epochs - 1) of all samples in expectation: the unseen ones, then the window, then
    its nearest groups, easier first.

    Args:
        num_epochs: of the run.
        prune_ratio: the share left out of what is taken; 0.1 where neither it nor `target` is given.
        num_group: how many groups the losses fall into.
        window_scale: a float in (0, 1] takes ceil(window_scale * groups) groups; an int that many.
        delta: the share of the run that is windowed.
        target: the share of all sample visits of the run to save, in place of `prune_ratio`.
        min_share: with `target`, the least share of samples that an epoch may keep.
        warm: losses were there before epoch 0, so that it is windowed (and, with `target`, saves) like the others.
        published: set by `as_published_code`.
        group_scale: what losses are grouped by: "loss", k-means on the losses, the paper's; "log", k-means on
            asinh(loss / typical |loss|), in which few large losses do not take most of the groups; "rank", groups of
            equally many samples. None is "log" with `target`, else "loss": docs/quality.md has the measurements.
        smooth: a moving average in place of the last loss.

    Raises:
        PolicyError: settings that are impossible, alone or together.
    """

    num_epochs: int
    prune_ratio: float | None = None
    num_group: int = 5
    window_scale: float = 0.6
    delta: float = 0.875
    target: float | None = None
    min_share: float = 0.05
    warm: bool = False
    published: bool = False
    group_scale: str | None = None
    smooth: BLS | None = None

    def __post_init__(self) -> None:
        check_count("num_epochs", self.num_epochs)
        check_smooth(self.smooth)
        check_count("num_group", self.num_group)
        _check_window(self.window_scale, self.num_group)
        if self.group_scale not in (None, *GROUP_SCALES):
            raise PolicyError(
                f"group_scale={self.group_scale!r}: choose one of {', '.join(map(repr, GROUP_SCALES))}, or None.",
                expected=GROUP_SCALES,
                found=self.group_scale,
            )
        check_portion("delta", self.delta, zero=True)
        check_portion("min_share", self.min_share, zero=False)
        if self.prune_ratio is not None and self.published:
            check_portion("prune_ratio", self.prune_ratio, zero=True)
        elif self.prune_ratio is not None:
            check_share("prune_ratio", self.prune_ratio)
        if self.target is not None:
            self._check_target(self.target)
        if not self._window(self.num_group):
            raise PolicyError(
                f"window_scale={self.window_scale} of {self.num_group} groups rounds to no group at all in the "
                "published code: raise one of them.",
                found=self.window_scale,
            )

    @classmethod
    def as_published_code(
        cls,
        num_epochs: int,
        prune_ratio: float = 0.0,
        num_group: int = 10,
        window_scale: float = 0.5,
        delta: float = 0.875,
    ) -> SeTa:
        """Return the policy as the authors' code computes it, with their defaults, where that differs from the paper.

        The window has round(window_scale * groups) groups, half to even; unseen samples have the loss 3.0 and belong
        to its group; at least a tenth is kept of what is taken.

        Source:
            seta.py of github.com/mrazhou/SeTa. Kept from ours: draws per sample (theirs: exact sizes), the best
            groups (theirs: one k-means++ start), one group for equal losses (theirs: chunks in data order).
        """
        return cls(num_epochs, prune_ratio, num_group, window_scale, delta, published=True, group_scale="loss")

    def rule(self, histogram: Histogram, epoch: int) -> Rule:
        """Return the rule for an epoch.

        Args:
            histogram: of the last losses.
            epoch: counted from 0; epochs past `num_epochs` go on as the last.

        Raises:
            PolicyError: a negative epoch.
        """
        if epoch < 0:
            raise PolicyError(f"SeTa has no rule for epoch {epoch}: epochs count from 0.", found=epoch)
        if epoch == 0 and not self.warm:
            return self._everything(histogram, epoch)
        if self._anneals(epoch):
            return self._everything(histogram, epoch)
        if self.target is not None:
            return self._targeted(histogram, epoch)
        return self._windowed(histogram, epoch)

    def groups(self, histogram: Histogram) -> Groups:
        """Return the groups of the seen losses."""
        scale = self.group_scale or ("loss" if self.target is None else "log")
        return _grouped(histogram, self.num_group, scale)

    def window(self, groups: int, epoch: int) -> range:
        """Return which of so many groups epoch n takes, were it windowed."""
        width = max(1, self._window(groups))  # fewer groups than num_group can round to none
        start = epoch % (groups - width + 1)
        return range(start, start + width)

    def expected_share(self, epoch: int) -> float | None:
        """Return the share of samples that an epoch keeps in expectation; None where it depends on the losses.

        With `target` more is kept only where more than that share is still unseen.
        """
        if self.target is not None:
            return self._wanted_share(epoch)
        everything = self._anneals(epoch) or (epoch == 0 and not self.warm)
        return self._keep if everything else None

    @property
    def _keep(self) -> float:
        pruned = DEFAULT_PRUNE_RATIO if self.prune_ratio is None else self.prune_ratio
        return min(1.0, max(_PUBLISHED_LEAST_KEEP, 1.0 - pruned)) if self.published else 1.0 - pruned

    def _window(self, groups: int) -> int:
        if isinstance(self.window_scale, int):
            return min(self.window_scale, groups)
        if self.published:
            return round(groups * self.window_scale)
        return math.ceil(round(self.window_scale * groups, 9))

    def _anneals(self, epoch: int) -> bool:
        pruned_epochs = self.delta * self.num_epochs
        return epoch + 1 > (pruned_epochs if self.published else round(pruned_epochs, 9))

    def _wanted_share(self, epoch: int) -> float:
        """Return the share of all samples that an epoch should keep, with a target."""
        target = self.target or 0.0
        if self.warm:
            return 1.0 - target
        return 1.0 if epoch == 0 else 1.0 - target * self.num_epochs / max(self.num_epochs - 1, 1)

    def _everything(self, histogram: Histogram, epoch: int) -> Rule:
        if self.target is None:
            return Rule([], [self._keep], unseen_keep=self._keep)
        wanted = self._wanted_share(epoch) * histogram.total - histogram.unseen
        return Rule([], [_share(wanted, histogram.seen)])

    def _windowed(self, histogram: Histogram, epoch: int) -> Rule:
        keep = self._keep
        if not self.published:
            groups = self.groups(histogram)
            return _by_group(groups, self._window_keeps(groups, epoch, keep), unseen_keep=keep)
        filled = histogram.with_scores(_PUBLISHED_UNSEEN_LOSS, histogram.unseen)
        groups = self.groups(filled)
        keeps = self._window_keeps(groups, epoch, keep)
        unseen_group = int(np.searchsorted(groups.edges, np.float32(_PUBLISHED_UNSEEN_LOSS), side="right"))
        return _by_group(groups, keeps, unseen_keep=float(keeps[unseen_group]) if len(keeps) else keep)

    def _window_keeps(self, groups: Groups, epoch: int, keep: float) -> NDArray[np.float64]:
        keeps = np.zeros(len(groups))
        if len(groups):
            window = self.window(len(groups), epoch)
            keeps[window.start : window.stop] = keep
        return keeps

    def _targeted(self, histogram: Histogram, epoch: int) -> Rule:
        groups = self.groups(histogram)
        wanted = max(self._wanted_share(epoch) * histogram.total - histogram.unseen, 0.0)
        keeps = np.zeros(len(groups))
        if len(groups):
            window = self.window(len(groups), epoch)
            mass = int(groups.counts[window.start : window.stop].sum())
            keeps[window.start : window.stop] = _share(wanted, mass)
            wanted -= mass
            for group in _neighbours(window, len(groups)):
                if wanted <= 0:
                    break
                keeps[group] = _share(wanted, int(groups.counts[group]))
                wanted -= int(groups.counts[group])
        return _by_group(groups, keeps, unseen_keep=1.0)

    def _check_target(self, target: float) -> None:
        check_share("target", target)
        if self.prune_ratio is not None or self.published:
            raise PolicyError(
                f"target={target} says how much the run saves, and so does prune_ratio={self.prune_ratio}: give one.",
                found=(target, self.prune_ratio),
            )
        least = 1.0 - target if self.warm or self.num_epochs == 1 else self._wanted_share(1)
        impossible = self.num_epochs == 1 and not self.warm and target > 0
        if impossible or round(least, 9) < self.min_share:
            rest = "there is no other" if impossible else f"each other would have to keep {least:.3g} of the samples"
            raise PolicyError(
                f"target={target} cannot be saved in {self.num_epochs} epochs: the first keeps everything unless "
                f"warm=True, and {rest}, where min_share={self.min_share} is the least. Lower target or min_share, or "
                "train more epochs.",
                expected=self.min_share,
                found=least,
            )


# Planning a run asks for the rules of all epochs to come, made from one histogram: a k-means for each took seconds.
@lru_cache(maxsize=1)
def _grouped(histogram: Histogram, num_group: int, scale: str) -> Groups:
    if scale == "rank":
        return equal_groups(histogram, num_group)
    return kmeans(histogram, num_group, log=scale == "log")


def _by_group(groups: Groups, keeps: NDArray[np.float64], *, unseen_keep: float) -> Rule:
    """Return the rule that keeps each group so; neighbours that are kept alike become one step."""
    if not len(groups):
        return Rule([], [unseen_keep], unseen_keep=unseen_keep)
    changes = np.flatnonzero(np.diff(keeps)) + 1
    return Rule(groups.edges[changes - 1], keeps[np.concatenate([[0], changes])], unseen_keep=unseen_keep)


def _neighbours(window: range, groups: int) -> list[int]:
    """Return the groups outside a window, nearest first, the easier first of two."""
    outside = [group for group in range(groups) if group not in window]
    return sorted(outside, key=lambda group: (max(window.start - group, group - window.stop + 1), group))


def _share(wanted: float, there: int) -> float:
    return min(1.0, max(0.0, wanted / there)) if there else 1.0


def _check_window(scale: Any, num_group: int) -> None:
    whole = isinstance(scale, int) and not isinstance(scale, bool) and 1 <= scale <= num_group
    if not whole and not (isinstance(scale, float) and 0 < scale <= 1):
        raise PolicyError(
            f"window_scale={scale!r}: give a float in (0, 1], the share of groups in the window, or an int from 1 to "
            f"num_group={num_group}, their number.",
            found=scale,
        )
