"""Loss rounding, order-preserving bins, and the histogram that stands for any number of losses.

Takes float32 scores; gives rounded losses, 20-bit bin codes and mergeable counts. Pure: no files, no clocks.

A bin is the float32's bits in order-preserving form, cut to 20 bits, so bins are 2^-11 wide relative to their value,
over the whole range and for negative scores too. `round_losses` leaves at most one distinct value per bin: a table, a
sidecar and a histogram of rounded losses hold the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.errors import LossError

BINS: Final = 1 << 20
FIRST_FINITE: Final = 0x00800
"""Code of the lowest finite float32; what lies below is -inf and NaN."""
STOP_FINITE: Final = 0xFF800
"""Code of +inf: the first one above all finite scores; from here on +inf and NaN."""

# 0-d arrays, which ufuncs take in half the time of numpy scalars: record() is called once a batch.
_SIGN: Final = np.array(0x80000000, np.uint32)
_MAGNITUDE: Final = np.array(0x7FFFFFFF, np.uint32)
_LOW_BITS: Final = np.array(0xFFF, np.uint32)
_HALF_LOWEST: Final = np.array(0x38800000, np.uint32)  # 2^-14, the lowest normal float16
_HALF_RANGE: Final = np.array(0x477FF000 - 0x38800000, np.uint32)  # up to 65520, where float16 rounds to infinity
_LOW_HALF_BITS: Final = np.array(0x1FFF, np.uint32)
_QUIET_NAN: Final = np.array(0x7FC00000, np.uint32)
_TWELVE: Final = np.array(12, np.uint32)
_ONE: Final = np.array(1, np.uint32)
_ZERO: Final = np.array(0, np.uint32)
_ZERO_LOSS: Final = np.array(0, np.float32)
_CHUNK: Final = 1 << 16


def round_losses(losses: ArrayLike) -> NDArray[np.float32]:
    """Return the losses as the table keeps them: float32 [n].

    From 2^-14 up to where float16 overflows, a loss is rounded to float16; elsewhere to 11 explicit mantissa bits;
    always to nearest, ties to even. Rounding twice changes nothing, order is kept, and -0.0 becomes 0.0. What is not
    finite stays so; a loss beyond the largest rounded float32 becomes infinite.

    Args:
        losses: float32 [n], or what converts to it.
    """
    given = np.atleast_1d(np.asarray(losses, dtype=np.float32))
    bits = given.view(np.uint32)
    magnitude = bits & _MAGNITUDE
    half = (magnitude - _HALF_LOWEST) < _HALF_RANGE  # what lies below wraps round to large numbers
    if np.logical_and.reduce(half):
        return given.astype(np.float16).astype(np.float32)
    half |= magnitude == _ZERO
    if np.logical_and.reduce(half):
        return (given + _ZERO_LOSS).astype(np.float16).astype(np.float32)
    return _rounded_bits(bits, magnitude, half).view(np.float32)


def _rounded_bits(
    bits: NDArray[np.uint32], magnitude: NDArray[np.uint32], half: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    np.minimum(magnitude, _QUIET_NAN, out=magnitude)  # adding to a longer NaN could carry into the sign
    low = np.where(half, _LOW_HALF_BITS, _LOW_BITS)
    odd = (magnitude & (low + _ONE)) != _ZERO
    rounded = magnitude
    rounded += low >> _ONE
    rounded += odd
    rounded &= ~low
    rounded |= (bits & _SIGN) * (rounded != _ZERO)  # -0.0 becomes 0.0
    return rounded


def codes(scores: ArrayLike) -> NDArray[np.int32]:
    """Return the bin of each score: int32 [n] in [0, BINS), ascending with the score.

    Finite scores lie in [FIRST_FINITE, STOP_FINITE), infinities and NaN outside. -0.0 and 0.0 share a bin.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN is still a NaN
        positive_zero = np.atleast_1d(np.asarray(scores, dtype=np.float32)) + np.float32(0)
    bits = positive_zero.view(np.uint32)
    flip = (positive_zero.view(np.int32) >> 31).view(np.uint32)  # all ones where the sign bit is set
    flip |= _SIGN
    flip ^= bits
    flip >>= _TWELVE
    return flip.view(np.int32)


def bin_values(bins: ArrayLike) -> NDArray[np.float32]:
    """Return the one rounded loss that each bin can hold, its end nearest to zero: float32 [n]."""
    return (_bits(bins) & ~_LOW_BITS).view(np.float32)


def bin_floors(bins: ArrayLike) -> NDArray[np.float32]:
    """Return the lowest float32 of each bin: `score >= floor` says the same as `code >= bin`. float32 [n]."""
    bits = _bits(bins)
    return np.where(bits & _SIGN, bits | _LOW_BITS, bits & ~_LOW_BITS).view(np.float32)


def _bits(bins: ArrayLike) -> NDArray[np.uint32]:
    ordered = np.atleast_1d(np.asarray(bins)).astype(np.uint32) << _TWELVE
    return np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered)


@dataclass(frozen=True)
class Merged:
    """A histogram in fewer bins, for drawing and for the history.

    Args:
        edges: float32 [bins + 1]: the lowest score of each merged bin, and the highest of the last.
        counts: int64 [bins].
    """

    edges: NDArray[np.float32]
    counts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Integer counts of scores over the fixed bins; two of them add up, whatever was counted where.

    Args:
        counts: int64 [BINS], 0 outside the finite codes.
        unseen: how many scores were NaN (or infinite).
        minimum: the lowest score, exact; NaN where none was seen.
        maximum: the highest score, exact; NaN where none was seen.
    """

    counts: NDArray[np.int64]
    unseen: int
    minimum: float
    maximum: float

    @classmethod
    def of(cls, scores: ArrayLike) -> Histogram:
        """Return the histogram of float32 scores [n]; NaN is unseen, and so is what is not finite."""
        flat = np.asarray(scores, dtype=np.float32).reshape(-1)
        counts = np.zeros(BINS, np.int64)
        lowest = highest = np.float32(np.nan)
        for start in range(0, len(flat), _CHUNK):
            chunk = flat[start : start + _CHUNK]
            np.add.at(counts, codes(chunk), 1)
            low, high = _range(chunk)
            lowest, highest = np.fmin(lowest, low), np.fmax(highest, high)
        counts[:FIRST_FINITE] = counts[STOP_FINITE:] = 0
        return cls(counts, len(flat) - int(counts.sum()), float(lowest), float(highest))

    @classmethod
    def of_bins(
        cls, bins: NDArray[np.int64], counts: NDArray[np.int64], unseen: int, minimum: float, maximum: float
    ) -> Histogram:
        """Return the histogram that holds `counts` in `bins`, ascending, all of them finite and occupied."""
        dense = np.zeros(BINS, np.int64)
        dense[bins] = counts
        histogram = cls(dense, unseen, minimum, maximum)
        vars(histogram)["bins"] = bins  # known here; looking for them takes milliseconds
        return histogram

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(
            self.counts + other.counts,
            self.unseen + other.unseen,
            float(np.fmin(self.minimum, other.minimum)),
            float(np.fmax(self.maximum, other.maximum)),
        )

    @cached_property
    def seen(self) -> int:
        """How many scores were finite."""
        return int(self.counts.sum())

    @property
    def total(self) -> int:
        """How many scores there were, unseen ones included."""
        return self.seen + self.unseen

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """The codes of the bins that hold something, ascending: int64 [occupied]."""
        return np.flatnonzero(self.counts)

    def values(self) -> NDArray[np.float64]:
        """Return the rounded loss of each occupied bin, ascending: float64 [occupied]."""
        return bin_values(self.bins).astype(np.float64)

    def weights(self) -> NDArray[np.int64]:
        """Return the count of each occupied bin: int64 [occupied]."""
        return self.counts[self.bins]

    def quantiles(self, shares: ArrayLike) -> NDArray[np.float64]:
        """Return the scores below which these shares of the seen samples lie: float64 [shares].

        Raises:
            LossError: where nothing was seen.
        """
        if not self.seen:
            raise LossError("Cannot take quantiles of the losses: no sample has one yet. Record losses first.")
        ranks = np.ceil(np.round(np.asarray(shares, np.float64) * self.seen, 9)).clip(1, self.seen)
        return self.values()[np.searchsorted(np.cumsum(self.weights()), ranks)]

    @cached_property
    def mean(self) -> float:
        """Mean of the seen scores, by their bins; NaN where none was seen."""
        return float(self.values() @ self.weights() / self.seen) if self.seen else float("nan")

    def with_scores(self, score: float, count: int) -> Histogram:
        """Return this histogram with `count` of the unseen samples counted as if their score were `score`."""
        if not count:
            return self
        counts = self.counts.copy()
        counts[codes(score)[0]] += count
        lowest, highest = float(np.fmin(self.minimum, score)), float(np.fmax(self.maximum, score))
        return Histogram(counts, self.unseen - count, lowest, highest)

    def merged(self, limit: int = 512) -> Merged:
        """Return the histogram in at most `limit` bins, narrow where the samples are many: Merged."""
        if not self.seen:
            return Merged(np.empty(0, np.float32), np.empty(0, np.int64))
        values, weights = self.values(), self.weights()
        starts = merge_starts(values, weights, limit)
        edges = np.append(values[starts], values[-1]).astype(np.float32)
        return Merged(edges, np.add.reduceat(weights, starts))


def _range(chunk: NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    with np.errstate(invalid="ignore"):
        low, high = np.fmin.reduce(chunk), np.fmax.reduce(chunk)
    if np.isinf(low) or np.isinf(high):
        finite = chunk[np.isfinite(chunk)]
        return (finite.min(), finite.max()) if len(finite) else (np.float32(np.nan), np.float32(np.nan))
    return low, high


def merge_starts(values: NDArray[np.float64], weights: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return where each of at most `limit` merged bins begins, so that little is lost: int64 [merged].

    Cuts follow density^(1/3), which loses the least squared error for a given number of bins; a gap that is worth a
    cut by itself (before an outlier) gets exactly one and leaves the others to the body.

    Args:
        values: float64 [bins], ascending.
        weights: int64 [bins], positive.
        limit: at least 1.
    Source:
        Panter and Dite 1951, "Quantization distortion in pulse-count modulation".
    """
    if len(values) <= limit:
        return np.arange(len(values))
    if limit == 1:
        return np.zeros(1, np.int64)
    # One number per gap between neighbouring bins [bins - 1]; the scale of the losses cancels out.
    gap = np.diff(values / max(abs(values[0]), abs(values[-1])))
    worth = np.cbrt((weights[1:] + weights[:-1]) * 0.5) * np.cbrt(gap) ** 2
    ranked = np.sort(worth)[::-1]
    rest = np.cumsum(ranked[::-1])[::-1][: limit - 1]  # what the gaps from each rank on are worth together
    cap = rest / np.arange(limit - 1, 0, -1)
    alone = int(np.argmax(ranked[: limit - 1] <= cap)) if (ranked[: limit - 1] <= cap).any() else limit - 2
    slots = np.minimum(worth / cap[alone], 1 + 1e-9)
    slot = np.floor(np.cumsum(slots))
    starts = np.flatnonzero(np.diff(slot, prepend=0.0)) + 1
    return np.concatenate([[0], starts[: limit - 1]])
