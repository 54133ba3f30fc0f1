"""Samples of one shard: asks for the bytes and cuts them into fields.

Takes an open shard that lies on this machine (or in its cache) and ascending positions; gives items: samples as dicts
of bytes, or (for large members) what is needed to read one late. Effects: reads, and this process's counters.

Small samples are read in spans and sliced, a shard's part of a window at once. Large members are read one by one,
as late as possible: a second copy would cost more than a second call, and nothing waits in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise, repeat
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seta_stream.read.options import Reading
from seta_stream.read.shards import OpenShard
from seta_stream.read.spans import Spans, plan_spans

Int64s = NDArray[np.int64]
Sample = dict[str, Any]

PAGE_BYTES: Final = 4096
PIECE_BYTES: Final = 256 << 10
"""Local bytes that are read before they are cut: what the processor's cache holds is cut three times as fast."""


class Wanted(NamedTuple):
    """Samples of one shard, by ascending position; lists run over samples."""

    positions: Int64s
    ids: list[int]
    weights: list[float] | None

    def pick(self, where: Int64s) -> Wanted:
        """Return some of them."""
        places = where.tolist()
        weights = None if self.weights is None else [self.weights[i] for i in places]
        return Wanted(self.positions[where], [self.ids[i] for i in places], weights)

    def part(self, here: slice) -> Wanted:
        """Return a stretch of them."""
        return Wanted(self.positions[here], self.ids[here], None if self.weights is None else self.weights[here])


class Late(NamedTuple):
    """One sample that is read when it is due; lists run over its fields."""

    read: Callable[[list[tuple[int, int]]], list[bytes]]
    key: str
    url: str
    id: int
    weight: float
    names: tuple[str, ...]
    spans: list[tuple[int, int]]

    def sample(self) -> Sample:
        """Read the members."""
        read, key, url, number, weight, names, spans = self
        sample: Sample = {"__key__": key, "__url__": url, "__index__": number, "__weight__": weight}
        sample.update(zip(names, read(spans), strict=True))
        return sample


def read_pieces(
    shard: OpenShard, wanted: Wanted, reading: Reading, counters: NDArray[np.int64]
) -> Iterator[Sequence[Sample | Late]]:
    """Yield one item per wanted sample, in the same order, in pieces; counts bytes needed, fetched, and requests."""
    read: Callable[..., Iterator[Sequence[Sample | Late]]] = _plan_late if shard.is_large else _read_now
    layout = shard.layout_of(wanted.positions)
    if (layout == layout[0]).all():
        yield from read(shard, wanted, int(layout[0]), reading, counters)
        return
    items: list[Sample | Late] = [{}] * len(layout)
    for number in np.unique(layout).tolist():
        where = np.flatnonzero(layout == number)
        some = chain.from_iterable(read(shard, wanted.pick(where), number, reading, counters))
        for place, item in zip(where.tolist(), some, strict=True):
            items[place] = item
    yield items


def _plan_late(
    shard: OpenShard, wanted: Wanted, layout: int, _reading: Reading, counters: NDArray[np.int64]
) -> Iterator[Sequence[Late]]:
    """Yield what reads each sample's members later."""
    members = shard.members_of(wanted.positions, layout)
    sizes = shard.index.member_size[members]
    in_members = int(sizes.sum())
    needed = in_members
    if shard.wanted is None:
        needed = int(shard.sizes_of(wanted.positions).sum())
    counters[:3] += (needed, 0, 0) if shard.counts_itself else (needed, in_members, sizes.size)
    columns = (
        repeat(shard.read_spans),
        shard.keys(wanted.positions),
        repeat(shard.url),
        wanted.ids,
        repeat(1.0) if wanted.weights is None else wanted.weights,
        repeat(shard.layouts[layout]),
        map(list, map(zip, shard.index.member_offset[members].tolist(), sizes.tolist())),
    )
    yield list(map(Late, *columns))


def _read_now(
    shard: OpenShard, wanted: Wanted, layout: int, reading: Reading, counters: NDArray[np.int64]
) -> Iterator[Sequence[Sample]]:
    """Read samples that all have one layout, a piece at a time."""
    names, offsets, sizes, starts, stops = shard.extents_of(wanted.positions, layout)
    per_sample = starts.shape[1]
    starts, stops = starts.reshape(-1), stops.reshape(-1)
    spans = _plan(shard, starts, stops, reading, counters)
    # axes: sample × (1 or field), which broadcasts over the fields
    span = spans.span_of_extent.reshape(len(offsets), per_sample)
    begins = offsets - spans.starts[span] if len(spans) else offsets
    ends = begins + sizes
    keys = shard.keys(wanted.positions)
    for first, last, here in _pieces(spans, per_sample, len(offsets)):
        lengths = (spans.stops[first:last] - spans.starts[first:last]).tolist()
        buffers = shard.file.read_spans(list(zip(spans.starts[first:last].tolist(), lengths, strict=True)))
        held = [(span[here, place] - first).tolist() for place in range(per_sample)]
        columns = [
            _cut(buffers, held[min(field, per_sample - 1)], begins[here, field], ends[here, field])
            for field in range(len(names))
        ]
        yield assemble(keys[here], shard.url, wanted.part(here), names, columns)


def _pieces(spans: Spans, per_sample: int, samples: int) -> Iterator[tuple[int, int, slice]]:
    """Yield (first span, last span, samples) of each piece; where members are read singly, all is one."""
    if per_sample != 1:
        yield 0, len(spans), slice(0, samples)
        return
    piece = np.cumsum(spans.stops - spans.starts) // PIECE_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(spans)]
    for first, last in pairwise(cuts):
        yield first, last, slice(int(spans.first_extent[first]), int(spans.first_extent[last]))


def _plan(shard: OpenShard, starts: Int64s, stops: Int64s, reading: Reading, counters: NDArray[np.int64]) -> Spans:
    """Plan the spans that cover some extents, and count them."""
    spans = plan_spans(
        starts,
        stops,
        max_waste=reading.max_waste,
        max_span_bytes=min(reading.max_span_bytes, PIECE_BYTES),
        max_gap_bytes=PAGE_BYTES if reading.max_waste < 1 else None,
    )
    fetched = (0, 0) if shard.counts_itself else (spans.bytes_fetched, len(spans))
    counters[:3] += (int((stops - starts).sum()), *fetched)
    return spans


def _cut(buffers: list[bytes], held: list[int], begins: Int64s, ends: Int64s) -> list[bytes]:
    """Return buffers[held][begin:end] for each."""
    if len(buffers) == 1:
        only = buffers[0]
        return [only[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
    return [buffers[k][a:b] for k, a, b in zip(held, begins.tolist(), ends.tolist(), strict=True)]


def assemble(
    keys: list[str], url: str, wanted: Wanted, names: tuple[str, ...], columns: list[list[bytes]]
) -> list[Sample]:
    """Return the dicts; two fields, the usual number, in one display, which takes a third less time."""
    weights = repeat(1.0) if wanted.weights is None else wanted.weights
    if len(names) == 2:
        a, b = names
        return [
            {"__key__": key, "__url__": url, "__index__": i, "__weight__": w, a: x, b: y}
            for key, i, w, x, y in zip(keys, wanted.ids, weights, *columns, strict=False)
        ]
    samples: list[Sample] = [
        {"__key__": key, "__url__": url, "__index__": i, "__weight__": w}
        for key, i, w in zip(keys, wanted.ids, weights, strict=False)
    ]
    for name, column in zip(names, columns, strict=True):
        for sample, value in zip(samples, column, strict=True):
            sample[name] = value
    return samples
