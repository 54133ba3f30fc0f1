"""Windows: the next samples in the order of the plan, fetched together.

Takes ids in the order in which they are wanted; gives items in that order. Effects: reads, through open shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seta_stream.read.fetch import Late, Sample, Wanted, read_pieces
from seta_stream.read.options import Reading
from seta_stream.read.shards import OpenShard, OpenShards
from seta_stream.store import Options

if TYPE_CHECKING:
    from seta_stream.corpus.indexing import Corpus
    from seta_stream.plan.epoch import EpochPlan

Int64s = NDArray[np.int64]
Part = tuple[OpenShard, Int64s, Int64s]
"""A shard, ascending positions in it, and their places among the ids wanted."""


class Fetcher:
    """Fetches windows of one corpus for one process.

    Args:
        corpus: the corpus.
        plan: of the epoch that is read.
        reading: how to read.
        fields: the fields wanted; None for all.
        options: of the file system.
        weights: float32 [total], loss weights by id; None where all are 1.
        counters: this process's row of the board.
        window_bytes: most bytes of samples that wait in memory at once.
    """

    def __init__(
        self,
        corpus: Corpus,
        plan: EpochPlan,
        reading: Reading,
        *,
        fields: Sequence[str] | None,
        options: Options | None,
        weights: NDArray[np.float32] | None,
        counters: NDArray[np.int64],
        window_bytes: int,
    ) -> None:
        self._first_id = corpus.table.first_id
        self._shards = OpenShards(corpus, fields, options, plan)
        self._reading = reading
        self._weights = weights
        self._counters = counters
        self._window_bytes = window_bytes

    def windows(self, ids: Int64s) -> Iterator[Sequence[Sample | Late]]:
        """Yield items for `ids` in their order, in lists that hold at most `window_bytes`."""
        parts = list(self._by_shard(ids))
        if (ids[1:] > ids[:-1]).all():
            for part in parts:
                yield from self._pieces(part)
            return
        sizes = np.empty(len(ids), np.int64)
        for shard, positions, where in parts:
            index = shard.index
            sizes[where] = 0 if shard.is_large else index.extent_stop[positions] - index.extent_start[positions]
        ends = np.cumsum(sizes)
        if ends[-1] <= self._window_bytes:
            yield self._in_order(len(ids), parts)
            return
        start = 0
        while start < len(ids):
            reached = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, reached + self._window_bytes, side="right")))
            yield self._in_order(stop - start, list(self._by_shard(ids[start:stop])))
            start = stop

    def one(self, number: int) -> Sample:
        """Return the sample with one id."""
        item = next(self.windows(np.array([number], np.int64)))[0]
        return item.sample() if isinstance(item, Late) else item

    def _by_shard(self, ids: Int64s) -> Iterator[Part]:
        """Yield (shard, ascending positions, their places in `ids`)."""
        order = np.argsort(ids, kind="stable")
        ascending = ids[order]
        first, last = np.searchsorted(self._first_id, ascending[[0, -1]], side="right") - 1
        bounds = np.searchsorted(ascending, self._first_id[first : last + 2])
        filled = np.flatnonzero(np.diff(bounds))
        for offset in filled.tolist():
            begin, end = int(bounds[offset]), int(bounds[offset + 1])
            shard = int(first) + offset
            yield self._shards.get(shard), ascending[begin:end] - self._first_id[shard], order[begin:end]

    def _pieces(self, part: Part) -> Iterator[Sequence[Sample | Late]]:
        """Fetch one shard's part, by ascending position."""
        shard, positions, _ = part
        ids = positions + self._first_id[shard.number]
        weights = None if self._weights is None else self._weights[ids].tolist()
        return read_pieces(shard, Wanted(positions, ids.tolist(), weights), self._reading, self._counters)

    def _in_order(self, count: int, parts: list[Part]) -> list[Sample | Late]:
        """Fetch all parts and put their items in the order wanted."""
        items = [item for part in parts for piece in self._pieces(part) for item in piece]
        where = np.concatenate([places for _, _, places in parts])
        place = np.empty(count, np.int64)
        place[where] = np.arange(count)
        return [items[i] for i in place.tolist()]

    def check(self) -> None:
        """Refuse shards that were written to while they were read."""
        self._shards.check()

    def close(self) -> None:
        """Close the shards."""
        self._shards.close()
