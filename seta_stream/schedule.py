"""Planned steps and progress, for learning-rate schedules. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from seta_stream.errors import ArgumentError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.policy import Policy, expected_share_of, rule_of
from seta_stream.read.decode import Staged

STANDARD_DEVIATIONS = 4
"""Draws are per sample, so an epoch's size varies by the binomial deviation; `margin` is so many of them."""


@dataclass(frozen=True, slots=True)
class PlannedShare:
    """The share of the corpus that an epoch keeps.

    Attributes:
        share: expected, 0 … 1.
        is_known: whether the policy fixes it ahead; else it follows from the losses of today.
    """

    share: float
    is_known: bool


class Steps(int):
    """A number of steps that knows how sure it is.

    Attributes:
        is_exact: whether the shares kept are fixed ahead (a `target`, or no losses involved at all); else the steps
            of later epochs are an estimate from the losses of today.
        margin: steps by which random draws may move an exact number, four standard deviations; 0 where nothing is
            drawn.
    """

    is_exact: bool
    margin: int

    def __new__(cls, steps: int, *, is_exact: bool, margin: int) -> Self:
        """Return the number with what is known about it."""
        value = super().__new__(cls, steps)
        value.is_exact = is_exact
        value.margin = margin
        return value

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """Schedulers keep the number in their checkpoints: there it is a plain int."""
        return int, (int(self),)

    def __repr__(self) -> str:
        return f"Steps({int(self)}, is_exact={self.is_exact}, margin={self.margin})"


def planned_share(policy: Policy, histogram: Histogram, epoch: int) -> PlannedShare:
    """Return the share that a policy will keep in an epoch."""
    share = expected_share_of(policy, epoch)
    if share is not None:
        return PlannedShare(float(share), is_known=True)
    if histogram.seen == 0 and histogram.total:
        histogram = _typical(histogram.total)
    kept = rule_of(policy, histogram, epoch).expected_kept(histogram)
    return PlannedShare(kept / histogram.total if histogram.total else 0.0, is_known=False)


def _typical(total: int) -> Histogram:
    """Losses before any was seen: exponential, which late losses resemble."""
    places = (np.arange(min(total, 10_000)) + 0.5) / min(total, 10_000)
    return Histogram.of(-np.log1p(-places).astype(np.float32))


def planned_steps(
    shares: list[PlannedShare], total: int, global_batch: int, *, drop_last: bool, run_length: int = 1
) -> Steps:
    """Return the steps of some epochs, each by its share of `total` samples, `run_length` of which share a draw."""
    steps, variance = 0, 0.0
    for planned in shares:
        samples = round(planned.share * total, 6)
        steps += int(samples // global_batch) if drop_last else -int(-samples // global_batch)
        variance += run_length * total * planned.share * (1 - planned.share)
    margin = int(np.ceil(STANDARD_DEVIATIONS * np.sqrt(variance) / global_batch))
    return Steps(steps, is_exact=all(planned.is_known for planned in shares), margin=margin)


def run_epochs(policy: Policy, decode: object) -> int | None:
    """Return the run's length in epochs: `num_epochs` of the policy or of a staged decoder; None where neither tells.

    Raises:
        ArgumentError: a staged decoder needs the length and neither tells, or the two differ.
    """
    epochs: int | None = getattr(policy, "num_epochs", None)
    if not isinstance(decode, Staged):
        return epochs
    name, own = type(decode).__name__, getattr(decode, "num_epochs", None)
    if epochs is None and own is None:
        raise ArgumentError(
            f"decode={name} follows the run's progress, and nothing tells how long the run is: the policy "
            f"{type(policy).__name__} has no num_epochs. Give {name}(num_epochs=…).",
        )
    if epochs is not None and own is not None and epochs != own:
        raise ArgumentError(
            f"The policy's run has num_epochs={epochs} and {name} has num_epochs={own}: leave the latter out.",
            expected=epochs,
            found=own,
        )
    return own if epochs is None else epochs


class Schedule:
    """Samples consumed and planned of one run.

    Args:
        policy: its shares are planned with.
        total: samples of the corpus.
        global_batch: samples per step.
        drop_last: whether what does not fill a step is left out.
        epochs: length of the run, where it is known.
        run_length: samples that one draw decides together, by which the size of an epoch varies more.
    """

    def __init__(
        self,
        policy: Policy,
        total: int,
        global_batch: int,
        *,
        drop_last: bool,
        epochs: int | None = None,
        run_length: int = 1,
    ) -> None:
        self._policy = policy
        self._total = total
        self._global_batch = global_batch
        self._drop_last = drop_last
        self._epochs = epochs
        self._run_length = run_length
        self._is_fixed = epochs is not None
        self._epoch, self._planned = 0, 0
        self.consumed = 0
        """Samples delivered in earlier epochs."""
        self._run: int | None = None

    def begin(self, epoch: int, planned: int, counted: Mapping[int, int]) -> None:
        """Start an epoch that delivers `planned` samples.

        Args:
            epoch: its number.
            planned: samples that it delivers.
            counted: epoch → samples consumed up to its end. Epochs after the last one that was counted, and before
                this one, were trained elsewhere: each counts as the policy plans it, or as this epoch.
        """
        last = max((number for number in counted if number < epoch), default=-1)
        expected = [expected_share_of(self._policy, number) for number in range(last + 1, epoch)]
        missing = sum(planned if share is None else share * self._total for share in expected)
        self.consumed = counted.get(last, 0) + round(missing)
        self._epoch, self._planned, self._run = epoch, planned, None

    def steps(self, epochs: int, histogram: Histogram) -> Steps:
        """Return the steps of the run's first `epochs` epochs; that is its length where no policy or decoder tells."""
        if not self._is_fixed:
            self._epochs, self._run = epochs, None
        shares = [planned_share(self._policy, histogram, epoch) for epoch in range(epochs)]
        total, batch, length = self._total, self._global_batch, self._run_length
        return planned_steps(shares, total, batch, drop_last=self._drop_last, run_length=length)

    def progress(self, delivered: int, histogram: Callable[[], Histogram]) -> float:
        """Return the share of the run's samples that is consumed.

        Args:
            delivered: samples of this epoch that were received.
            histogram: as for `run_samples`.

        Raises:
            ArgumentError: the length of the run is unknown.
        """
        whole = self.run_samples(histogram)
        return min((self.consumed + delivered) / whole, 1.0) if whole else 1.0

    def run_samples(self, histogram: Callable[[], Histogram]) -> int:
        """Return the samples of the whole run: consumed, planned for this epoch, and expected later.

        Args:
            histogram: of the losses; asked for once an epoch, where the policy does not fix its shares.

        Raises:
            ArgumentError: the length of the run is unknown.
        """
        if self._epochs is None:
            raise ArgumentError("progress needs the number of epochs: call steps(epochs) once before.")
        if self._run is None:
            losses = histogram()
            later = range(self._epoch + 1, self._epochs)
            shares = sum(planned_share(self._policy, losses, epoch).share for epoch in later)
            # Past the run's end nothing is planned, and progress stays 1.
            planned = self._planned if self._epoch < self._epochs else 0
            self._run = self.consumed + planned + round(shares * self._total)
        return self._run
