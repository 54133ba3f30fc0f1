"""Windows of remote samples: planned whole, asked for ahead of the training loop, cut in its order.

Takes parts of open shards and the places at which their samples are wanted; gives samples as soon as their bytes have
come. Effects: requests, and this process's counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seta_stream.read.fetch import PAGE_BYTES, Sample, Wanted, assemble
from seta_stream.read.options import Reading
from seta_stream.read.shards import Extents, OpenShard
from seta_stream.read.spans import Spans, plan_spans
from seta_stream.store import Answer, Bytes

Int64s = NDArray[np.int64]

HEADER_BYTES: Final = 1024
"""A header and the padding before it: what lies between two members of a sample that are read by themselves."""
CHUNK_BYTES: Final = 1 << 20
CHUNK_SAMPLES: Final = 256
"""What is delivered at once: small enough that the first sample does not wait for many spans."""


class Group(NamedTuple):
    """Samples of one shard that have the same fields, by ascending place in the window."""

    places: Int64s
    wanted: Wanted
    shard: OpenShard
    names: tuple[str, ...]
    span: Int64s
    """axes: sample × (1, or field where each is read by itself); the number of the span in the window."""
    begins: Int64s
    ends: Int64s
    """axes: sample × field; in the span."""


class Asked(NamedTuple):
    """One span of a window."""

    shard: OpenShard
    offset: int
    length: int
    first_place: int
    last_place: int


class Window:
    """Samples that are fetched together.

    Args:
        groups: what they are cut from.
        spans: what is asked for.
        sizes: int64 [samples of the window], bytes of each one.
    """

    def __init__(self, groups: Sequence[Group], spans: Sequence[Asked], sizes: Int64s) -> None:
        self._groups = groups
        self._spans = spans
        self._ends = np.cumsum(sizes)
        self.needed = int(sizes.sum())
        self.bytes = sum(span.length for span in spans)
        far = [span.length for span in spans if not span.shard.counts_itself]
        self.fetched, self.requests = sum(far), len(far)
        self.held_bytes = 0
        self._answers: list[Answer | None] = [None] * len(spans)
        self._buffers: list[Bytes] = [b""] * len(spans)

    def ask(self) -> None:
        """Begin to fetch, what is wanted first at first."""
        self.held_bytes = self.bytes
        some = [number for number, span in enumerate(self._spans) if span.length]
        some.sort(key=lambda number: self._spans[number].first_place)
        for _, run in groupby(some, key=lambda number: self._spans[number].shard.number):
            numbers = list(run)
            spans = [(self._spans[number].offset, self._spans[number].length) for number in numbers]
            for number, answer in zip(numbers, self._spans[numbers[0]].shard.ask(spans), strict=True):
                self._answers[number] = answer

    def chunks(self) -> Iterator[list[Sample]]:
        """Yield the samples in order, a few at a time; bytes are given back once they are cut."""
        by_end = sorted(range(len(self._spans)), key=lambda number: self._spans[number].last_place)
        given_back = 0
        for first, last in self._bounds():
            samples: list[Sample] = [{}] * (last - first)
            for group in self._groups:
                begin, end = np.searchsorted(group.places, (first, last)).tolist()
                if begin < end:
                    places = (group.places[begin:end] - first).tolist()
                    for place, sample in zip(places, self._cut(group, slice(begin, end)), strict=True):
                        samples[place] = sample
            while given_back < len(by_end) and self._spans[by_end[given_back]].last_place < last:
                number = by_end[given_back]
                self._answers[number], self._buffers[number] = None, b""
                self.held_bytes -= self._spans[number].length
                given_back += 1
            yield samples

    def _bounds(self) -> Iterator[tuple[int, int]]:
        first = 0
        while first < len(self._ends):
            before = int(self._ends[first - 1]) if first else 0
            fits = int(np.searchsorted(self._ends, before + CHUNK_BYTES, side="right"))
            last = max(first + 1, min(fits, first + CHUNK_SAMPLES, len(self._ends)))
            yield first, last
            first = last

    def _cut(self, group: Group, here: slice) -> list[Sample]:
        """Wait for the bytes of some samples and cut them out."""
        span = group.span[here]
        answers, buffers = self._answers, self._buffers
        for number in np.unique(span).tolist():
            answer = answers[number]
            if answer is not None and not len(buffers[number]):
                buffers[number] = answer.result()
        held = [span[:, place].tolist() for place in range(span.shape[1])]
        columns = [
            [
                bytes(buffers[number][begin:end])
                for number, begin, end in zip(
                    held[min(field, len(held) - 1)],
                    group.begins[here, field].tolist(),
                    group.ends[here, field].tolist(),
                    strict=True,
                )
            ]
            for field in range(len(group.names))
        ]
        wanted, keys = group.wanted.part(here), group.shard.index.keys
        here_keys = [keys[position] for position in wanted.positions.tolist()]
        return assemble(here_keys, group.shard.url, wanted, group.names, columns)

    def cancel(self) -> None:
        """Give up what is under way."""
        for answer in self._answers:
            if answer is not None:
                answer.cancel()


def plan_window(parts: Sequence[tuple[OpenShard, Wanted, Int64s]], reading: Reading) -> Window:
    """Return the window of some samples.

    Args:
        parts: (shard, samples by ascending position, their places in the window).
        reading: how to merge.
    """
    groups: list[Group] = []
    asked: list[Asked] = []
    sizes = np.zeros(sum(len(places) for _, _, places in parts), np.int64)
    for shard, wanted, places in parts:
        more, spans, sizes[places] = _plan_part(shard, wanted, places, reading, len(asked))
        groups += more
        asked += spans
    return Window(groups, asked, sizes)


def _plan_part(
    shard: OpenShard, wanted: Wanted, places: Int64s, reading: Reading, first_span: int
) -> tuple[list[Group], list[Asked], Int64s]:
    """Return one shard's groups, spans, and the bytes of each sample; its samples may be of several layouts."""
    layout = shard.layout_of(wanted.positions)
    whose = [np.flatnonzero(layout == number) for number in np.unique(layout).tolist()]
    found = [shard.extents_of(wanted.positions[some], int(layout[some[0]])) for some in whose]
    # axes: extent, of all layouts one after another, each by sample × extent of the sample
    starts = np.concatenate([one.starts.reshape(-1) for one in found])
    stops = np.concatenate([one.stops.reshape(-1) for one in found])
    used_at = np.concatenate(
        [np.repeat(places[some], one.starts.shape[1]) for some, one in zip(whose, found, strict=True)]
    )
    order = np.argsort(starts, kind="stable")
    spans = plan_spans(
        starts[order],
        stops[order],
        max_waste=reading.max_waste,
        max_span_bytes=reading.max_span_bytes,
        max_gap_bytes=PAGE_BYTES if shard.is_near and reading.max_waste < 1 else None,
        free_gap_bytes=HEADER_BYTES,
    )
    number = np.empty(len(order), np.int64)
    number[order] = spans.span_of_extent
    groups: list[Group] = []
    sizes = np.empty(len(places), np.int64)
    taken = 0
    for some, one in zip(whose, found, strict=True):
        span = number[taken : taken + one.starts.size].reshape(one.starts.shape)
        taken += one.starts.size
        sizes[some] = (one.stops - one.starts).sum(axis=1)
        groups.append(_group(shard, wanted.pick(some), places[some], one, span, spans.starts, first_span))
    return groups, _asked(shard, spans, used_at[order]), sizes


def _group(
    shard: OpenShard,
    wanted: Wanted,
    places: Int64s,
    extents: Extents,
    span: Int64s,
    span_starts: Int64s,
    first_span: int,
) -> Group:
    """Return samples of one layout by ascending place; `span` is numbered within the shard, `first_span` its first."""
    by_place = np.argsort(places)
    base = span_starts[span]  # axes: sample × (1 or field), which broadcasts over the fields
    return Group(
        places[by_place],
        wanted.pick(by_place),
        shard,
        extents.names,
        span[by_place] + first_span,
        (extents.offsets - base)[by_place],
        (extents.offsets + extents.sizes - base)[by_place],
    )


def _asked(shard: OpenShard, spans: Spans, used_at: Int64s) -> list[Asked]:
    """Return the spans with the places at which they are used first and last; `used_at` is by extent."""
    if not len(spans):
        return []
    begins = spans.first_extent[:-1]
    first, last = np.minimum.reduceat(used_at, begins), np.maximum.reduceat(used_at, begins)
    columns = (spans.starts, spans.stops - spans.starts, first, last)
    return [Asked(shard, *row) for row in zip(*(column.tolist() for column in columns), strict=True)]
