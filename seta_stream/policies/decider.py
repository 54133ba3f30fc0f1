"""The arithmetic of a selection: from scores and random words to a mask.

Takes the steps of a rule as tables; gives decisions for arrays of samples. Pure, and free of temporaries larger than
what it is given at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seta_stream.draws import WORD_RANGE
from seta_stream.losses.histogram import BINS, FIRST_FINITE, STOP_FINITE, codes


def step_table(edges: NDArray[np.float32]) -> NDArray[Any]:
    """Return the step of each bin; NaN and infinities map to one more, the unseen step: uint8 or wider [BINS]."""
    steps = len(edges) + 1
    table = np.repeat(np.arange(steps, dtype=np.min_scalar_type(steps)), np.diff(step_cuts(edges)))
    table[:FIRST_FINITE] = steps
    table[STOP_FINITE:] = steps
    return table


def step_cuts(edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the bins at which the steps begin, and the end of the last: int64 [steps + 1]."""
    inner = codes(edges) if len(edges) else np.empty(0, np.int64)
    return np.concatenate([[0], inner, [BINS]]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Decider:
    """A rule made ready for one epoch. Per step, a sample is kept if its word lies in [start, start + length) mod 2^32.

    Args:
        step_of_bin: the steps' numbers [BINS], from `step_table`.
        weight: float32 [steps + 1], the last for the unseen; as all that follow.
        start: uint32 [steps + 1].
        last: uint32 [steps + 1]: length - 1, so that the full circle fits.
        possible: bool [steps + 1]: false where the length is 0.
        draws: whether any step needs words: each of the others keeps all or nothing.
    """

    step_of_bin: NDArray[Any]
    weight: NDArray[np.float32]
    start: NDArray[np.uint32]
    last: NDArray[np.uint32]
    possible: NDArray[np.bool_]
    draws: bool

    @classmethod
    def of(
        cls,
        step_of_bin: NDArray[Any],
        chances: NDArray[np.float64],
        weight: NDArray[np.float32],
        turn: int | None = None,
    ) -> Decider:
        """Return the decider for these keep probabilities [steps + 1].

        Args:
            step_of_bin: from `step_table`.
            chances: the keep probability of each step, the unseen one last.
            weight: of each step, the unseen one last.
            turn: the epoch, where samples take turns; None where each draw stands for itself.
        """
        arcs = [(0, _threshold(chance)) if turn is None else _arc(chance, turn) for chance in chances.tolist()]
        length = np.array([stop - start for start, stop in arcs], np.int64)
        return cls(
            step_of_bin=step_of_bin,
            weight=weight,
            start=np.array([start % WORD_RANGE for start, _ in arcs], np.uint32),
            last=np.maximum(length - 1, 0).astype(np.uint32),
            possible=length > 0,
            draws=bool(((length > 0) & (length < WORD_RANGE)).any()),
        )

    @property
    def weighted(self) -> bool:
        """Whether any sample that can be kept has another weight than 1."""
        return bool((self.weight[self.possible] != 1).any())

    def steps(self, scores: NDArray[np.float32]) -> NDArray[Any]:
        """Return each sample's step [samples]."""
        return self.step_of_bin[codes(scores)] if len(scores) else self.step_of_bin[:0]

    def mask(self, steps: NDArray[Any], words: NDArray[np.uint32] | None) -> NDArray[np.bool_]:
        """Return which samples are kept: bool [samples].

        Args:
            steps: the sample's step [samples].
            words: uint32 [samples]; None where `draws` is false.
        """
        if words is None:
            certain: NDArray[np.bool_] = self.possible[steps]
            return certain
        place = words - self.start[steps] if self.start.any() else words  # wraps round the circle
        kept: NDArray[np.bool_] = place <= self.last[steps]
        if not self.possible.all():
            kept &= self.possible[steps]
        return kept


def _threshold(chance: float) -> int:
    # Exact: a float64 of at most 1 times 2^32 keeps all its bits.
    return round(chance * WORD_RANGE)


def _arc(chance: float, turn: int) -> tuple[int, int]:
    """Return the slice of a turn; the slices of all turns tile the line, so 1/chance turns take every word once."""
    if chance == 1:
        return 0, WORD_RANGE
    return _threshold(round(turn * chance, 9)), _threshold(round((turn + 1) * chance, 9))
