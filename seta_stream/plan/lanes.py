"""Steps and lanes: which stretch of an epoch each row of each step reads.

Takes counts; gives array arithmetic on positions in the epoch's line of selected samples. Pure.

The selected samples of an epoch stand in one line (shard after shard). The line is cut into rows × width lanes, and
lane (i, j) holds row i of the steps t ≡ j (mod width): one contiguous stretch, so a lane touches few shards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import PlanError

Int64s = NDArray[np.int64]


def divisors(whole: int) -> list[int]:
    """Return the numbers of equal parts that `whole` samples can be cut into, ascending."""
    small = [parts for parts in range(1, math.isqrt(whole) + 1) if whole % parts == 0]
    return small + [whole // parts for parts in reversed(small) if parts * parts != whole]


@dataclass(frozen=True)
class Lanes:
    """How a line of `selected` samples falls into steps of rows × batch samples.

    Args:
        rows: R, the parts of a step; ranks at the run's first start.
        width: W, the lanes a row cycles through.
        batch: b, samples per row of a step.
        selected: M, samples in the line.
        drop_last: leave out what does not fill a step; False needs one row.
    """

    rows: int
    width: int
    batch: int
    selected: int
    drop_last: bool = True

    def __post_init__(self) -> None:
        if min(self.rows, self.width, self.batch) < 1:
            raise PlanError(
                f"Lanes need at least one row, one lane and one sample per step; got rows={self.rows}, "
                f"width={self.width}, batch={self.batch}."
            )
        if not self.drop_last and self.rows != 1:
            raise PlanError(
                f"drop_last=False gives the last step fewer samples, which {self.rows} ranks cannot share equally: "
                "use drop_last=True, or one process."
            )

    @property
    def global_batch(self) -> int:
        """G: samples per step over all rows."""
        return self.rows * self.batch

    @property
    def steps(self) -> int:
        """T: steps of the epoch."""
        whole, rest = divmod(self.selected, self.global_batch)
        return whole + (1 if rest and not self.drop_last else 0)

    @property
    def planned(self) -> int:
        """Samples that the epoch's steps hold."""
        return min(self.steps * self.global_batch, self.selected)

    @property
    def left_out(self) -> int:
        """Selected samples that no step holds; fewer than one global batch."""
        return self.selected - self.planned

    @cached_property
    def lengths(self) -> Int64s:
        """Samples per lane, rows × width in order (i, j): int64 [rows * width]."""
        # axes: row × lane of the row
        turns = (self.steps - np.arange(self.width) + self.width - 1) // self.width
        lengths = np.tile(np.maximum(turns, 0) * self.batch, (self.rows, 1))
        if self.steps and self.planned < self.steps * self.global_batch:
            lengths[0, (self.steps - 1) % self.width] -= self.steps * self.global_batch - self.planned
        return lengths.reshape(-1).astype(np.int64)

    @cached_property
    def starts(self) -> Int64s:
        """Where each lane begins in the line: int64 [rows * width]."""
        return np.cumsum(self.lengths) - self.lengths

    def size_of(self, step: int) -> int:
        """Samples per row in one step: the batch, but for a short last step."""
        return self.batch if step < self.steps - 1 else (self.planned - step * self.global_batch) // self.rows
