"""Samples of one shard: asks for the bytes and cuts them into fields.

Takes an open shard and ascending positions; gives items: samples as dicts of bytes, or (for large members of local
files) what is needed to read one late. Effects: reads, and this process's counters.

Small samples are read in spans and sliced, a shard's part of a window at once. Large members of local files are read
one by one, as late as possible: a second copy would cost more than a second call, and nothing waits in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seta_stream.read.options import Reading
from seta_stream.read.shards import OpenShard
from seta_stream.read.spans import Spans, plan_spans

Int64s = NDArray[np.int64]
Sample = dict[str, Any]

PAGE_BYTES: Final = 4096
LARGE_BYTES: Final = 32 << 10
"""Mean bytes per sample from which local members are read one by one."""


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


class Late(NamedTuple):
    """One sample that is read when it is due; lists run over its fields."""

    read: Callable[[int, int], bytes]
    key: str
    url: str
    id: int
    weight: float
    names: tuple[str, ...]
    offsets: list[int]
    sizes: list[int]

    def sample(self) -> Sample:
        """Read the members."""
        sample: Sample = {"__key__": self.key, "__url__": self.url, "__index__": self.id, "__weight__": self.weight}
        read = self.read
        for name, offset, size in zip(self.names, self.offsets, self.sizes, strict=True):
            sample[name] = read(offset, size)
        return sample


def is_large(shard: OpenShard) -> bool:
    """Say whether the members of a shard are read one by one."""
    index = shard.index
    return shard.is_local and index.seekable and index.samples > 0 and index.shard_size >= LARGE_BYTES * index.samples


def read_items(
    shard: OpenShard, wanted: Wanted, reading: Reading, counters: NDArray[np.int64]
) -> Sequence[Sample | Late]:
    """Return one item per wanted sample, in the same order; counts bytes needed, bytes fetched and requests."""
    read: Callable[..., Sequence[Sample | Late]] = _plan_late if is_large(shard) else _read_now
    layout = shard.layout_of(wanted.positions)
    if (layout == layout[0]).all():
        return read(shard, wanted, int(layout[0]), reading, counters)
    items: list[Sample | Late] = [{}] * len(layout)
    for number in np.unique(layout).tolist():
        where = np.flatnonzero(layout == number)
        for place, item in zip(where.tolist(), read(shard, wanted.pick(where), number, reading, counters), strict=True):
            items[place] = item
    return items


def _plan_late(
    shard: OpenShard, wanted: Wanted, layout: int, _reading: Reading, counters: NDArray[np.int64]
) -> Sequence[Late]:
    """Return what reads each sample's members later."""
    members = shard.members_of(wanted.positions, layout)
    sizes = shard.index.member_size[members]
    in_members = int(sizes.sum())
    needed = in_members
    if shard.wanted is None:
        index = shard.index
        needed = int((index.extent_stop[wanted.positions] - index.extent_start[wanted.positions]).sum())
    counters[:3] += (needed, in_members, sizes.size)
    columns = (
        repeat(shard.file.read),
        _keys(shard, wanted.positions),
        repeat(shard.url),
        wanted.ids,
        repeat(1.0) if wanted.weights is None else wanted.weights,
        repeat(shard.layouts[layout]),
        shard.index.member_offset[members].tolist(),
        sizes.tolist(),
    )
    return list(map(Late, *columns))


def _read_now(
    shard: OpenShard, wanted: Wanted, layout: int, reading: Reading, counters: NDArray[np.int64]
) -> Sequence[Sample]:
    """Read samples that all have one layout."""
    names, index = shard.layouts[layout], shard.index
    members = shard.members_of(wanted.positions, layout)
    # axes: sample × field
    offsets, sizes = index.member_offset[members], index.member_size[members]
    if shard.wanted is None:
        starts, stops = index.extent_start[wanted.positions], index.extent_stop[wanted.positions]
        per_sample = 1
    else:
        starts, stops = offsets.reshape(-1), (offsets + sizes).reshape(-1)
        per_sample = len(names)
    spans, buffers = _fetch(shard, starts, stops, reading, counters)
    # axes: sample × (1 or field), which broadcasts over the fields
    span = spans.span_of_extent.reshape(len(offsets), per_sample)
    begins = offsets - spans.starts[span] if len(spans) else offsets
    ends = begins + sizes
    columns = [
        _cut(buffers, span[:, min(field, per_sample - 1)], begins[:, field], ends[:, field])
        for field in range(len(names))
    ]
    return _assemble(_keys(shard, wanted.positions), shard.url, wanted, names, columns)


def _keys(shard: OpenShard, positions: Int64s) -> list[str]:
    keys: list[str] = shard.index.keys
    first, last = int(positions[0]), int(positions[-1])
    if last - first + 1 == len(positions):
        return keys[first : last + 1]
    return [keys[position] for position in positions.tolist()]


def _fetch(
    shard: OpenShard, starts: Int64s, stops: Int64s, reading: Reading, counters: NDArray[np.int64]
) -> tuple[Spans, list[bytes]]:
    """Read the spans that cover some extents."""
    spans = plan_spans(
        starts,
        stops,
        max_waste=reading.max_waste,
        max_span_bytes=reading.max_span_bytes,
        max_gap_bytes=PAGE_BYTES if shard.is_local and reading.max_waste < 1 else None,
    )
    lengths = (spans.stops - spans.starts).tolist()
    counters[:3] += (int((stops - starts).sum()), sum(lengths), len(lengths))
    return spans, shard.file.read_spans(list(zip(spans.starts.tolist(), lengths, strict=True)))


def _cut(buffers: list[bytes], span: Int64s, begins: Int64s, ends: Int64s) -> list[bytes]:
    """Return buffers[span][begin:end] for each."""
    bounds = zip(begins.tolist(), ends.tolist(), strict=True)
    if len(buffers) == 1:
        only = buffers[0]
        return [only[a:b] for a, b in bounds]
    return [buffers[k][a:b] for k, (a, b) in zip(span.tolist(), bounds, strict=True)]


def _assemble(
    keys: list[str], url: str, wanted: Wanted, names: tuple[str, ...], columns: list[list[bytes]]
) -> list[Sample]:
    """Return the dicts; two fields, the usual number, in one display, which takes a third less time."""
    weights = repeat(1.0) if wanted.weights is None else wanted.weights
    heads = zip(keys, wanted.ids, weights, strict=False)
    if len(names) == 2:
        a, b = names
        return [
            {"__key__": key, "__url__": url, "__index__": i, "__weight__": w, a: x, b: y}
            for (key, i, w), x, y in zip(heads, *columns, strict=True)
        ]
    samples: list[Sample] = [{"__key__": key, "__url__": url, "__index__": i, "__weight__": w} for key, i, w in heads]
    for name, column in zip(names, columns, strict=True):
        for sample, value in zip(samples, column, strict=True):
            sample[name] = value
    return samples
