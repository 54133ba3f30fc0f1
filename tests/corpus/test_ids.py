"""Ids and places are turned into each other, and the table file gives back the table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.corpus.ids import MAGIC, VERSION, ShardTable
from seta_stream.corpus.sealed import seal, unseal
from seta_stream.errors import ArgumentError, IndexFileError


def table_of(samples: list[int]) -> ShardTable:
    """Return a table of shards with so many samples each."""
    count = len(samples)
    return ShardTable(
        urls=tuple(f"/d/{number}-\udcff.tar" for number in range(count)),
        sizes=np.arange(count, dtype=np.int64) * 1000,
        versions=tuple(f"mtime:{number}" for number in range(count)),
        samples=np.array(samples, np.int64),
        extent_bytes=np.array(samples, np.int64) * 2048,
        digests=tuple(bytes([number]) * 16 for number in range(count)),
        seekable=np.arange(count) % 2 == 0,
    )


GOLDEN = bytes.fromhex(
    "8953455441434f0a010000002e00000083a673686172647301a475726c7391c40a2f642f302dff2e746172a876657273"
    "696f6e7391c4076d74696d653a3000000000000000000200000000000000001000000000000001000000000000000000"
    "00000000000000e1fa554b"
)


@settings(max_examples=100, deadline=None)
@given(samples=st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_every_id_is_located(samples: list[int]) -> None:
    """Ids count through the shards in order, empty shards passed over."""
    table = table_of(samples)
    expected = [(shard, position) for shard, count in enumerate(samples) for position in range(count)]
    shard, position = table.locate(np.arange(table.total, dtype=np.int32))
    assert list(zip(shard.tolist(), position.tolist(), strict=True)) == expected
    assert (table.total, len(table)) == (sum(samples), len(samples))
    assert table.mean_bytes == (2048 if sum(samples) else 0)


@pytest.mark.parametrize(("ids", "worst"), [([0, -1], -1), ([4, 5], 5)])
def test_ids_outside_the_corpus_are_refused(ids: list[int], worst: int) -> None:
    """The error names the id and the range."""
    with pytest.raises(ArgumentError, match=rf"id {worst}: the corpus has 5 samples, whose ids are 0 … 4"):
        table_of([2, 3]).locate(np.array(ids))


def test_the_fingerprint_is_that_of_the_digests_in_order() -> None:
    """Other URLs and versions keep it; another order of shards does not."""
    table = table_of([2, 3])
    moved = ShardTable(
        ("/a", "/b"), table.sizes, ("", ""), table.samples, table.extent_bytes, table.digests, table.seekable
    )
    swapped = ShardTable(
        table.urls, table.sizes, table.versions, table.samples, table.extent_bytes, table.digests[::-1], table.seekable
    )
    assert moved.fingerprint() == table.fingerprint() != swapped.fingerprint()
    assert len(table.fingerprint()) == 16


@settings(max_examples=60, deadline=None)
@given(samples=st.lists(st.integers(0, 1 << 40), max_size=9), at=st.integers(0, 1 << 20), flip=st.integers(1, 255))
def test_the_table_file_round_trips_and_notices_any_flipped_byte(samples: list[int], at: int, flip: int) -> None:
    """What to_bytes gives, from_bytes takes; with any byte changed it is an IndexFileError."""
    table = table_of(samples)
    data = table.to_bytes()
    back = ShardTable.from_bytes(data)
    for name in ("urls", "versions", "digests"):
        assert getattr(back, name) == getattr(table, name)
    for name in ("sizes", "samples", "extent_bytes", "seekable", "first_id"):
        assert np.array_equal(getattr(back, name), getattr(table, name))
    damaged = bytearray(data)
    damaged[at % len(data)] ^= flip
    with pytest.raises(IndexFileError, match="Cannot read the table"):
        ShardTable.from_bytes(bytes(damaged), "the table")


def test_golden_bytes() -> None:
    """The format is pinned byte by byte; docs/formats/index.md explains this very file."""
    assert table_of([2]).to_bytes() == GOLDEN


@pytest.mark.parametrize(
    ("changes", "payload", "text"),
    [
        ({"urls": [b"one", b"two"]}, None, "list of URLs or versions"),
        ({"versions": ["text"]}, None, "list of URLs or versions"),
        ({}, b"short", "length of the columns"),
        ({}, b"\xff" * 41, "a number in the columns"),
        ({}, b"\0" * 15 + b"\x7f" + b"\0" * 25, "number of samples"),
        ({"shards": None}, None, "'shards' in the header"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, object], payload: bytes | None, text: str) -> None:
    """A table with a good checksum and impossible content is refused with what is wrong."""
    plain, columns = unseal(table_of([2]).to_bytes(), MAGIC, VERSION, "")
    with pytest.raises(IndexFileError, match=text):
        ShardTable.from_bytes(
            seal(MAGIC, VERSION, {**plain, **changes}, bytes(columns) if payload is None else payload)
        )
