"""Which process owns which shards: each a stretch of the corpus, of about as many samples as the others'.

Takes the corpus's first ids and the number of processes; gives bounds. Pure, and the same on every process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Owners:
    """The owners of a corpus's losses.

    Args:
        first_id: int64 [shards + 1].
        world: processes.
    """

    first_id: Int64s
    world: int

    @cached_property
    def shards(self) -> Int64s:
        """Process r owns the shards from shards[r] to shards[r + 1]; some own none: int64 [world + 1]."""
        middles = (self.first_id[:-1] + self.first_id[1:]) // 2
        wanted = np.arange(1, self.world) * (int(self.first_id[-1]) / self.world)
        inner = np.searchsorted(middles, wanted)
        return np.concatenate([[0], inner, [len(middles)]]).astype(np.int64)

    @cached_property
    def ids(self) -> Int64s:
        """Process r owns the ids from ids[r] to ids[r + 1]: int64 [world + 1]."""
        return self.first_id[self.shards]

    def shards_of(self, rank: int) -> range:
        """Return the shards that a process owns."""
        return range(int(self.shards[rank]), int(self.shards[rank + 1]))

    def ids_of(self, rank: int) -> range:
        """Return the ids that a process owns."""
        return range(int(self.ids[rank]), int(self.ids[rank + 1]))

    def first_id_of(self, rank: int) -> Int64s:
        """Return `first_id` as if a process's own samples were all: the other shards are empty, numbers stay."""
        own = self.ids_of(rank)
        return np.clip(self.first_id, own.start, own.stop) - own.start

    def of(self, ids: NDArray[np.int64]) -> Int64s:
        """Return the owner of each id: int64 [n]."""
        # side="right" steps over processes that own nothing, which begin where the next one does.
        return np.searchsorted(self.ids, ids, side="right") - 1
