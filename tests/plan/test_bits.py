"""Packed masks: joined, counted, and cut at any bit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.errors import PlanError
from seta_stream.plan import bits as packed
from seta_stream.plan.bits import count_ones, count_stretches, join_bits
from seta_stream.plan.epoch import Selection

masks = st.lists(st.lists(st.booleans(), max_size=40), min_size=1, max_size=9)


@pytest.fixture(params=[1, 3, packed._PIECE])
def _piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on so many bytes at once: pieces end everywhere, or nowhere."""
    monkeypatch.setattr(packed, "_PIECE", request.param)


def bounds_of(parts: list[list[bool]]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)


def flat(parts: list[list[bool]]) -> np.ndarray:
    return np.array([bit for part in parts for bit in part], bool)


@pytest.mark.usefixtures("_piece")
@given(masks)
def test_joined_masks_are_the_mask_of_all(parts: list[list[bool]]) -> None:
    """Owners may begin at any bit, and own nothing."""
    sent = [np.packbits(np.array(part, bool)).tobytes() for part in parts]
    joined = join_bits(sent, bounds_of(parts))
    assert joined.dtype == np.uint8
    assert joined.tolist() == np.packbits(flat(parts)).tolist()
    assert [len(part) for part in sent] == [-(-len(part) // 8) for part in parts], "the parts are left as they were"


def test_joined_masks_by_hand() -> None:
    """3 + 6 + 0 + 8 samples: 101, 110011, nothing, 00000001."""
    parts = [b"\xa0", memoryview(b"\xcc"), bytearray(), np.array([1], np.uint8)]
    assert join_bits(parts, np.array([0, 3, 9, 9, 17])).tolist() == [0b10111001, 0b10000000, 0b10000000]


def test_a_mask_of_another_corpus_is_refused() -> None:
    """A part that is too long or too short names its owner and both lengths."""
    with pytest.raises(PlanError, match="Process 1 sent a mask of 1 bytes, and its 9 samples need 2: the processes do"):
        join_bits([b"\0", b"\0"], np.array([0, 8, 17]))
    with pytest.raises(PlanError, match="Process 0 sent a mask of 2 bytes, and its 8 samples need 1"):
        Selection.joined([b"\0\0", b"\0"], np.array([0, 1, 2]), np.array([0, 8, 16]))


@pytest.mark.usefixtures("_piece")
@given(masks, st.data())
def test_ones_are_counted_between_any_bounds(parts: list[list[bool]], data: st.DataObject) -> None:
    """Bounds may repeat, lie inside a byte, and begin after the first bit."""
    mask = flat(parts)
    places = st.integers(0, len(mask))
    for bounds in (bounds_of(parts), np.array(sorted(data.draw(st.lists(places, min_size=1, max_size=8))), np.int64)):
        expected = [int(np.count_nonzero(mask[a:b])) for a, b in pairwise(bounds.tolist())]
        assert count_ones(np.packbits(mask), bounds).tolist() == expected


@pytest.mark.usefixtures("_piece")
@given(masks)
def test_stretches_end_at_breaks(parts: list[list[bool]]) -> None:
    """Neighbours make one stretch, but never across a shard's begin, an empty shard's too."""
    expected = sum(bit and not (place and part[place - 1]) for part in parts for place, bit in enumerate(part))
    assert count_stretches(np.packbits(flat(parts)), np.unique(bounds_of(parts))) == expected


@given(masks, st.data())
def test_a_joined_selection_is_that_of_the_whole_mask(shards: list[list[bool]], data: st.DataObject) -> None:
    """Whoever owns which shards."""
    first_id = bounds_of(shards)
    cuts = data.draw(st.lists(st.integers(0, len(shards)), max_size=4))
    owners = np.array([0, *sorted(cuts), len(shards)], np.int64)
    mask = flat(shards)
    parts = [np.packbits(mask[first_id[a] : first_id[b]]).tobytes() for a, b in pairwise(owners.tolist())]
    joined, whole = Selection.joined(parts, owners, first_id), Selection.of(mask, first_id)
    assert joined.bits.tolist() == whole.bits.tolist()
    assert joined.counts.tolist() == whole.counts.tolist() == [sum(shard) for shard in shards]
    assert joined.counts.dtype == np.int64
