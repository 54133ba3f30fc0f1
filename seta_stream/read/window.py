"""Windows: the next samples in the order of the plan, fetched together.

Takes ids in the order in which they are wanted; gives items in that order. Effects: reads, through open shards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from seta_stream.read.ahead import plan_window
from seta_stream.read.board import COUNTERS
from seta_stream.read.fetch import Late, Sample, Wanted, read_pieces
from seta_stream.read.opening import Opener
from seta_stream.read.options import Reading
from seta_stream.read.shards import OpenShard, OpenShards
from seta_stream.read.spans import SMALLEST_SPAN, span_bytes_ahead
from seta_stream.store import Options

if TYPE_CHECKING:
    from seta_stream.corpus.indexing import Corpus
    from seta_stream.plan.epoch import EpochPlan
    from seta_stream.plan.weights import LineWeights
    from seta_stream.read.cache import OpenCache
    from seta_stream.store.engine import Engine

Int64s = NDArray[np.int64]
Part = tuple[OpenShard, Int64s, Int64s]
"""A shard, ascending positions in it, and their places among the ids wanted."""

SMALLEST_WINDOW: Final = SMALLEST_SPAN
_RETRIES: Final = COUNTERS.index("retries")
_FETCHED: Final = [COUNTERS.index(name) for name in ("bytes_fetched", "requests")]
_SERVED: Final = [
    COUNTERS.index(name) for name in ("cache_hits", "cache_hit_bytes", "cache_misses", "cache_miss_bytes")
]


class Asking(Protocol):
    """Samples that are fetched together, ahead of their turn."""

    needed: int
    """Bytes of the samples' extents."""
    fetched: int
    """Bytes asked of the store."""
    requests: int

    @property
    def bytes(self) -> int:
        """Bytes that wait in memory once they have come."""
        ...

    held_bytes: int
    """Those of them that were not given back yet."""

    def ask(self) -> None:
        """Begin to fetch."""
        ...

    def chunks(self) -> Iterator[Sequence[Sample | Late]]:
        """Yield the items in order as their bytes come."""
        ...

    def cancel(self) -> None:
        """Give up what is under way."""
        ...


class Here:
    """Samples of which every byte lies on this machine, read as they are due; the reading counts itself.

    Args:
        read: gives the items.
    """

    needed = fetched = requests = bytes = held_bytes = 0

    def __init__(self, read: Callable[[], Iterator[Sequence[Sample | Late]]]) -> None:
        self.chunks = read

    def ask(self) -> None:
        """Nothing is asked ahead."""

    def cancel(self) -> None:
        """Nothing is under way."""


def _next_chunk(
    under_way: deque[tuple[Asking, Iterator[Sequence[Sample | Late]]]],
) -> Iterator[Sequence[Sample | Late]]:
    """Yield the next chunk of the oldest window, which goes when it is done."""
    chunk = next(under_way[0][1], None)
    if chunk is None:
        under_way.popleft()
    else:
        yield chunk


class Fetcher:
    """Fetches windows of one corpus for one process.

    Args:
        corpus: the corpus.
        plan: of the epoch that is read.
        reading: how to read.
        fields: the fields wanted; None for all.
        options: of the file system.
        weights: of this rank's part of the line; None where all are 1.
        counters: this process's row of the board.
        held_bytes: most bytes of samples that wait in memory at once.
        engine: of remote shards; None where all are local.
        cache: keeps what is fetched; None for none.
    """

    def __init__(
        self,
        corpus: Corpus,
        plan: EpochPlan,
        reading: Reading,
        *,
        fields: Sequence[str] | None,
        options: Options | None,
        weights: LineWeights | None,
        counters: NDArray[np.int64],
        held_bytes: int,
        engine: Engine | None,
        cache: OpenCache | None = None,
    ) -> None:
        self._first_id = corpus.table.first_id
        opener = Opener(options, engine, cache)
        self._shards = OpenShards(corpus, fields, opener, plan, weights)
        self._counts = opener.counts
        self._engine = engine
        self._reading = reading
        if engine is not None:
            self._reading = replace(reading, max_span_bytes=span_bytes_ahead(reading.max_span_bytes, held_bytes))
        self._counters = counters
        self._held_bytes = held_bytes
        self._window_bytes = max(held_bytes // 2, SMALLEST_WINDOW)

    def items(self, rounds: Iterable[Int64s]) -> Iterator[Sequence[Sample | Late]]:
        """Yield the items of rounds of ids in their order, in lists."""
        if self._engine is None:
            for ids in rounds:
                yield from self.windows(ids)
                self._count_files()
        else:
            yield from self._ahead(rounds, self._engine)

    def _ahead(self, rounds: Iterable[Int64s], engine: Engine) -> Iterator[Sequence[Sample | Late]]:
        """Ask for what comes next while it fits beside what was asked for and is not delivered yet."""
        under_way: deque[tuple[Asking, Iterator[Sequence[Sample | Late]]]] = deque()
        told = engine.retries
        try:
            for window in self._planned(rounds):
                while under_way and sum(one.held_bytes for one, _ in under_way) + window.bytes > self._held_bytes:
                    yield from _next_chunk(under_way)
                    told = self._count(engine, told)
                self._counters[:3] += (window.needed, window.fetched, window.requests)
                window.ask()
                under_way.append((window, window.chunks()))
            while under_way:
                yield from _next_chunk(under_way)
                told = self._count(engine, told)
        finally:
            self._count(engine, told)
            for window, _ in under_way:
                window.cancel()

    def _count(self, engine: Engine, told: int) -> int:
        """Count what the engine and the files did since the last call; return the attempts told of."""
        now = engine.retries
        self._counters[_RETRIES] += now - told
        self._count_files()
        return now

    def _count_files(self) -> None:
        fetched, requests, *served = self._counts.take()
        self._counters[_FETCHED] += (fetched, requests)
        self._counters[_SERVED] += served

    def _planned(self, rounds: Iterable[Int64s]) -> Iterator[Asking]:
        """Yield windows in order, none larger than what may be held; what lies on this machine is read as it is due."""
        for ids in rounds:
            self._shards.prepare(self._shards_of(ids))
            sizes = np.empty(len(ids), np.int64)
            for shard, positions, where in self._by_shard(ids):
                sizes[where] = shard.sizes_of(positions)
            ends = np.cumsum(sizes)
            # Equal parts, so that no window is a small rest that lies scattered over the round's stretches.
            count = max(1, round(int(ends[-1]) / self._window_bytes))
            cuts = np.searchsorted(ends, np.arange(1, count) * (int(ends[-1]) / count), side="left") + 1
            bounds = np.unique(np.concatenate([[0], cuts, [len(ids)]])).tolist()
            for begin, end in pairwise(bounds):
                yield from self._fitting(ids[begin:end])

    def _fitting(self, ids: Int64s) -> Iterator[Asking]:
        """Yield one window for some ids, or several where its spans are too large together."""
        parts = list(self._by_shard(ids))
        if all(shard.reads_locally for shard, _, _ in parts):
            yield Here(lambda: self.windows(ids))
            return
        wanted = [(shard, self._wanted(shard, positions), where) for shard, positions, where in parts]
        window = plan_window(wanted, self._reading)
        if window.needed < window.bytes > self._held_bytes > window.needed:
            # Fewer gaps are read across, so that it fits.
            share = 1 - window.needed / self._held_bytes
            window = plan_window(wanted, replace(self._reading, max_waste=share))
        if window.bytes <= self._held_bytes or len(ids) == 1:
            yield window
            return
        half = len(ids) // 2
        yield from self._fitting(ids[:half])
        yield from self._fitting(ids[half:])

    def windows(self, ids: Int64s) -> Iterator[Sequence[Sample | Late]]:
        """Yield items for `ids` in their order, read as they are due, in lists that hold half of `held_bytes`."""
        parts = list(self._by_shard(ids))
        if (ids[1:] > ids[:-1]).all():
            for part in parts:
                yield from self._pieces(part)
            return
        sizes = np.empty(len(ids), np.int64)
        for shard, positions, where in parts:
            sizes[where] = 0 if shard.is_large else shard.sizes_of(positions)
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
        item = next(iter(self.items([np.array([number], np.int64)])))[0]
        return item.sample() if isinstance(item, Late) else item

    def _shards_of(self, ids: Int64s) -> list[int]:
        shards: list[int] = np.unique(np.searchsorted(self._first_id, ids, side="right") - 1).tolist()
        return shards

    def _wanted(self, shard: OpenShard, positions: Int64s) -> Wanted:
        ids = positions + self._first_id[shard.number]
        weights = None if shard.weights is None else shard.weights[positions].tolist()
        return Wanted(positions, ids.tolist(), weights)

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
        return read_pieces(shard, self._wanted(shard, positions), self._reading, self._counters)

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
