"""Which byte ranges to ask for: wanted extents in, spans out. Pure.

A span covers one or more extents and perhaps gaps between them. Bytes in gaps are waste; merging across a gap saves
one request and costs the gap, so the smallest gaps go first, until the waste budget is spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

SPANS_AHEAD: Final = 32
SMALLEST_SPAN: Final = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Byte ranges of one shard.

    Attributes:
        starts, stops: int64 [spans], ascending, apart from each other.
        first_extent: int64 [spans + 1]; extents first_extent[i] … first_extent[i + 1] − 1 lie in span i.
    """

    starts: Int64s
    stops: Int64s
    first_extent: Int64s

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def span_of_extent(self) -> Int64s:
        """The span of each extent: int64 [extents]."""
        return np.repeat(np.arange(len(self.starts)), np.diff(self.first_extent))

    @property
    def bytes_fetched(self) -> int:
        """Bytes that the spans cover."""
        return int((self.stops - self.starts).sum())


def span_bytes_ahead(max_span_bytes: int, held_bytes: int) -> int:
    """Return how long a span may be where `held_bytes` are asked for ahead: so many fit that latencies overlap.

    One connection gives 50 to 100 MB/s: 8 spans of 8 MiB took 2.7 times as long as 64 of 1 MiB (photos, 20 ms).
    """
    return min(max_span_bytes, max(held_bytes // SPANS_AHEAD, SMALLEST_SPAN))


def plan_spans(
    starts: Int64s,
    stops: Int64s,
    *,
    max_waste: float,
    max_span_bytes: int,
    max_gap_bytes: int | None = None,
    free_gap_bytes: int = 0,
) -> Spans:
    """Return the spans that cover some extents of one shard.

    Args:
        starts, stops: int64 [extents], in bytes, ascending and not overlapping.
        max_waste: share of the fetched bytes that may lie outside the extents; 1 merges everything.
        max_span_bytes: a span is no longer, unless one extent alone is; cuts fall on gaps before they fall on joints.
        max_gap_bytes: larger gaps are never merged; None for no bound.
        free_gap_bytes: gaps up to this are merged whatever the budget: the request would cost more than they do.
    """
    if len(starts) == 0:
        empty = np.empty(0, np.int64)
        return Spans(empty, empty, np.zeros(1, np.int64))
    gaps = starts[1:] - stops[:-1]
    merged = gaps <= free_gap_bytes
    if max_waste > 0 and not merged.all():
        merged |= _merge(gaps, int((stops - starts).sum()), max_waste, max_gap_bytes)
    cuts = np.flatnonzero(~merged) + 1
    firsts = np.concatenate([[0], cuts])
    lasts = np.concatenate([cuts, [len(starts)]])
    if (stops[lasts - 1] - starts[firsts]).max() > max_span_bytes:
        firsts = _cut(firsts, lasts, starts, stops, max_span_bytes)
    bounds = np.append(firsts, len(starts))
    return Spans(starts[firsts], stops[bounds[1:] - 1], bounds)


def _merge(gaps: Int64s, needed: int, max_waste: float, max_gap_bytes: int | None) -> NDArray[np.bool_]:
    """Say which gaps to read across: the smallest first, while their sum keeps to the budget."""
    largest = int(gaps.max()) if max_gap_bytes is None else max_gap_bytes
    if max_waste >= 1:
        return gaps <= largest
    budget = needed * max_waste / (1 - max_waste)
    by_size = np.argsort(gaps, kind="stable")
    affordable = np.searchsorted(np.cumsum(gaps[by_size]), budget, side="right")
    merged = np.zeros(len(gaps), bool)
    merged[by_size[:affordable]] = True
    return merged & (gaps <= largest)


def _cut(firsts: Int64s, lasts: Int64s, starts: Int64s, stops: Int64s, max_span_bytes: int) -> Int64s:
    """Return the first extents of spans after cutting the long ones."""
    out: list[int] = []
    for begin, end in zip(firsts.tolist(), lasts.tolist(), strict=True):
        first = begin
        out.append(first)
        while stops[end - 1] - starts[first] > max_span_bytes:
            fits = int(np.searchsorted(stops[first:end], starts[first] + max_span_bytes, side="right"))
            last = first + max(fits, 1)  # the first extent that no longer fits
            inner = np.flatnonzero(starts[first + 1 : last + 1] > stops[first:last])[-1:] + first + 1
            first = int(inner[0]) if len(inner) and last < end else last
            if first >= end:
                break
            out.append(first)
    return np.array(out, np.int64)
