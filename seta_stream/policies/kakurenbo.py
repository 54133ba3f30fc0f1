"""Kakurenbo: hides the samples of the lowest losses, unless the model is not sure of them. Pure.

Source:
    "KAKURENBO: Adaptively Hiding Samples in Deep Neural Network Training", NeurIPS 2023, arXiv 2310.10102; code
    github.com/TruongThaoNguyen/kakurenbo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.errors import LossError, PolicyError
from seta_stream.losses.columns import Column, latest
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.groups import Grouping, GroupRules
from seta_stream.policies.rule import Rule
from seta_stream.policies.shares import check_portion, check_settings, check_share, everything, numbers_of, top
from seta_stream.policies.smoothing import BLS

FLAGS: Final = "flags"

_HIDEABLE: Final = "0"
_PUBLISHED_EPOCHS: Final = 200
_PUBLISHED_STARTS: Final = (0, 60, 120, 160)


@dataclass(frozen=True)
class Kakurenbo:
    """Hides the share F of seen samples with the lowest losses, but for those that the model is not sure of.

    F is `fraction` times the factor of the epoch's stage. Which samples are moved back is recorded with the losses,
    `record(ids, losses, flags=policy.flags(logits, targets))`: 1 where mispredicted or less confident than
    `threshold`. They count among the lowest F and are trained on, so fewer than F are hidden; without any flags exactly
    F of the seen samples are, in expectation. Unseen samples are kept. Remembers one byte per sample.

    Hidden samples are not read, so they keep their losses and flags until they are trained on again: as those around
    them fall, they come back as the harder ones. (The original reads them for a forward pass after each epoch.)

    Args:
        num_epochs: of the run.
        fraction: the largest share to hide, in [0, 1).
        stages: the factor of each stage, in [0, 1].
        stage_epochs: the epoch in which each stage begins, the first 0; by default 0, 60, 120 and 160 in 200 epochs,
            scaled to `num_epochs`.
        threshold: the confidence from which a right prediction is sure, in [0, 1].
        smooth: a moving average in place of the last loss.

    Raises:
        PolicyError: settings out of range, or stages and their epochs that do not fit.
    Source:
        See the module; the stages are those of its CIFAR-100 runs (ImageNet: 30, 60 and 80 of 100), `fraction` 0.3 that
        of its scripts. Where we differ: no forward pass for hidden samples; a share in expectation (theirs is rounded
        down to whole samples); samples tied at the cut are hidden with one probability; confidence is a softmax over
        the classes (their code's runs over the batch).
    """

    num_epochs: int
    fraction: float = 0.3
    stages: tuple[float, ...] = (1.0, 0.8, 0.6, 0.4)
    stage_epochs: tuple[int, ...] | None = None
    threshold: float = 0.7
    smooth: BLS | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        check_share("fraction", self.fraction)
        check_portion("threshold", self.threshold, zero=True)
        object.__setattr__(self, "stages", numbers_of("stages", self.stages))
        for number, factor in enumerate(self.stages):
            check_portion(f"stages[{number}]", factor, zero=True)
        if self.stage_epochs is not None:
            object.__setattr__(self, "stage_epochs", numbers_of("stage_epochs", self.stage_epochs))
        self._check_stages(_PUBLISHED_STARTS if self.stage_epochs is None else self.stage_epochs)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The flags as last recorded; 0 where never."""
        return (Column(FLAGS, "uint8", 0, latest, source=FLAGS),)

    @property
    def group(self) -> Grouping:
        """Samples with and without a flag."""
        return Grouping(column=FLAGS)

    def rule(self, histogram: Histogram, epoch: int) -> Rule:
        """Return the rule as if no flag were recorded: below the cut hidden, above it kept."""
        if not histogram.seen:
            return everything()
        return top(histogram, (1.0 - self.hidden_share(epoch)) * histogram.seen)

    def rules(self, histograms: Mapping[str, Histogram], epoch: int) -> GroupRules:
        """Return the rule of each flag: the cut, among all seen samples, holds for those with flag 0 alone.

        Args:
            histograms: by flag, as text.
            epoch: counted from 0.
        """
        first, *others = histograms.values()
        hiding = self.rule(sum(others, first), epoch)
        return GroupRules({flag: hiding if flag == _HIDEABLE else everything() for flag in histograms})

    def expected_share(self, epoch: int) -> float | None:
        """Return 1 for epoch 0, when no losses are known; else None: it depends on the flags."""
        return None if epoch else 1.0

    def hidden_share(self, epoch: int) -> float:
        """Return F: the share of the seen samples that an epoch hides, were none moved back."""
        stage = sum(start <= epoch for start in self._starts()) - 1
        return self.fraction * self.stages[max(stage, 0)]

    def learning_rate_factor(self, epoch: int) -> float:
        """Return 1 / (1 - F), by which the paper multiplies the learning rate; 1 in epoch 0, which hides nothing."""
        return 1 / (1 - self.hidden_share(epoch)) if epoch else 1.0

    def flags(self, logits: ArrayLike, targets: ArrayLike) -> NDArray[np.uint8]:
        """Return what to record: 1 where a prediction is wrong or less confident than `threshold`, else 0: uint8 [n].

        Args:
            logits: numbers [n, classes], in host memory.
            targets: integers [n], the right classes.

        Raises:
            LossError: the shapes do not fit.
        """
        scores, right = np.asarray(logits), np.asarray(targets)
        if scores.ndim != 2 or right.shape != scores.shape[:1]:
            raise LossError(
                f"Cannot tell flags: logits are {scores.shape} and targets {right.shape}. Give [n, classes] and [n].",
                expected="[n, classes] and [n]",
                found=(scores.shape, right.shape),
            )
        # The softmax of the highest class: exp(0) over the sum.
        confidence = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
        sure: NDArray[np.bool_] = (scores.argmax(axis=1) == right) & (confidence >= self.threshold)  # false for NaN
        flags: NDArray[np.uint8] = (~sure).astype(np.uint8)
        return flags

    def _starts(self) -> tuple[int, ...]:
        if self.stage_epochs is not None:
            return self.stage_epochs
        return tuple(math.ceil(round(start * self.num_epochs / _PUBLISHED_EPOCHS, 9)) for start in _PUBLISHED_STARTS)

    def _check_stages(self, starts: tuple[int, ...]) -> None:
        whole = all(isinstance(start, int) and not isinstance(start, bool) for start in starts)
        if not whole or starts[:1] != (0,) or not all(one < two for one, two in pairwise(starts)):
            raise PolicyError(
                f"stage_epochs={starts}: give whole numbers that ascend from 0, as (0, 30, 60, 80).", found=starts
            )
        if len(starts) != len(self.stages):
            raise PolicyError(
                f"stages={self.stages} are {len(self.stages)} and begin in {len(starts)} epochs, {starts}: give as "
                "many stage_epochs as stages.",
                expected=len(self.stages),
                found=starts,
            )
