"""spans.py: which byte ranges are asked for."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.read.spans import Spans, plan_spans


def spans(
    extents: list[tuple[int, int]], *, waste: float = 0.05, longest: int = 10**9, gap: int | None = None
) -> Spans:
    starts = np.array([a for a, _ in extents], np.int64)
    stops = np.array([b for _, b in extents], np.int64)
    return plan_spans(starts, stops, max_waste=waste, max_span_bytes=longest, max_gap_bytes=gap)


def ranges(found: Spans) -> list[tuple[int, int]]:
    return list(zip(found.starts.tolist(), found.stops.tolist(), strict=True))


def test_cases_by_hand() -> None:
    """Touching extents merge for nothing; the smallest gaps are bought first; the budget is a share of what is read."""
    touching = [(0, 100), (100, 200), (300, 400)]
    assert ranges(spans(touching, waste=0)) == [(0, 200), (300, 400)]
    assert ranges(spans(touching, waste=0.25)) == [(0, 400)]
    assert ranges(spans(touching, waste=0.24)) == [(0, 200), (300, 400)]
    two_gaps = [(0, 100), (110, 210), (230, 330)]
    assert ranges(spans(two_gaps, waste=0.04)) == [(0, 210), (230, 330)]
    assert ranges(spans(two_gaps, waste=0.10)) == [(0, 330)]
    assert ranges(spans(two_gaps, waste=1)) == [(0, 330)]
    assert ranges(spans(two_gaps, waste=1, gap=15)) == [(0, 210), (230, 330)]
    assert ranges(spans([])) == []


def test_cuts_fall_on_gaps_first() -> None:
    """A span that is too long is cut where bytes are wasted, and only then at a joint."""
    extents = [(0, 100), (110, 200), (200, 300), (300, 400)]
    assert ranges(spans(extents, waste=1, longest=350)) == [(0, 100), (110, 400)]
    assert ranges(spans(extents[1:], waste=1, longest=200)) == [(110, 300), (300, 400)]
    assert ranges(spans([(0, 1000)], longest=100)) == [(0, 1000)]


extent_lists = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 200)), min_size=1, max_size=60)


@settings(max_examples=300, deadline=None)
@given(steps=extent_lists, waste=st.floats(0, 1), longest=st.integers(1, 2000), gap=st.none() | st.integers(0, 60))
def test_properties(steps: list[tuple[int, int]], waste: float, longest: int, gap: int | None) -> None:
    """Every extent lies in its span; spans ascend; waste keeps to the budget; no span is too long for more than one."""
    extents, place = [], 0
    for skipped, size in steps:
        extents.append((place + skipped, place + skipped + size))
        place += skipped + size
    found = spans(extents, waste=waste, longest=longest, gap=gap)
    owner = found.span_of_extent
    assert len(owner) == len(extents)
    for (a, b), span in zip(extents, owner.tolist(), strict=True):
        assert found.starts[span] <= a < b <= found.stops[span]
    assert (found.starts[1:] >= found.stops[:-1]).all()
    needed = sum(b - a for a, b in extents)
    assert found.bytes_fetched - needed <= waste * found.bytes_fetched + 1e-6
    per_span = np.diff(found.first_extent)
    assert (per_span >= 1).all()
    assert ((found.stops - found.starts <= longest) | (per_span == 1)).all()
