"""The cache's files, byte by byte."""

from __future__ import annotations

import zlib
from pathlib import Path

from cache_fakes import FakeShard, files_of, opened, run_of, take
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.read.cache_format import Layout, name_of, place_of

NAME = "63fff2408743ed64a418f6af22356566"
GOLDEN = bytes.fromhex(
    "89534554414342 0a 01000000 04000000 0a00000000000000 63fff2408743ed64a418f6af22356566 e9276d7f"
    + 20 * "00"
    + "7d9d66a6 e09c59e7  eba30c4d ff1c372c  0c264309 d118a586"
)


def test_the_file_is_pinned(tmp_path: Path) -> None:
    """The format is pinned byte by byte; docs/formats/cache.md explains this very file."""
    shard = FakeShard(b"0123456789", url="s3://bucket/a.tar", version="etag:1")
    _, (file,) = opened(run_of(tmp_path, shard, block=4), shard)
    take(file, [(0, 10)])
    (path,) = files_of(tmp_path)
    assert path.name == f"{NAME}.blocks"
    assert path.read_bytes() == GOLDEN.ljust(4096, b"\0") + b"0123456789"


def test_the_documentation_shows_the_golden_bytes() -> None:
    """The hex dump in docs/formats/cache.md is the file that the test above pins."""
    text = (Path(__file__).parents[2] / "docs" / "formats" / "cache.md").read_text()
    lines = text.partition("```blocks\n")[2].partition("```")[0].splitlines()
    assert b"".join(bytes.fromhex(line[6:53]) for line in lines) == GOLDEN


def test_the_name_is_pinned() -> None:
    """These very names come on every machine; another one would lose every cache there is."""
    assert name_of("s3://bucket/a.tar", 10, "etag:1", place_of(None)).hex() == NAME
    options = {"endpoint_url": "http://minio:9000", "key": "AKIA", "client_kwargs": {"endpoint_url": "http://other"}}
    assert place_of(options) == b"[('endpoint_url', 'http://minio:9000'), ('endpoint_url', 'http://other')]"


def test_the_blocks_begin_on_a_page() -> None:
    """Header and table are filled up to whole pages: 504 entries fit the first one."""
    assert [Layout(bytes(16), blocks * 7, 7).data_at for blocks in (0, 1, 504, 505, 1016, 1017)] == [
        4096, 4096, 4096, 8192, 8192, 12288,
    ]  # fmt: skip
    assert Layout(bytes(16), 10, 4).bounds(1, 3) == (4, 6)
    assert [Layout(bytes(16), 10, 4).touched(*span) for span in ((0, 4), (3, 2), (4, 0), (9, 1))] == [
        (0, 1), (0, 2), (1, 1), (2, 3),
    ]  # fmt: skip


@given(
    name=st.binary(min_size=16, max_size=16),
    size=st.integers(1, 5000),
    block=st.integers(1, 700),
    data=st.data(),
)
def test_entries_are_there_or_not(name: bytes, size: int, block: int, data: st.DataObject) -> None:
    """An entry is read as it was written; zeros, a part of it, another place or another shard's are no entries."""
    layout = Layout(name, size, block)
    sums = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=layout.blocks, max_size=layout.blocks))
    table = layout.entries(0, sums)
    found, are_there = layout.table(table)
    assert found.tolist() == sums
    assert are_there.all()
    stop = data.draw(st.integers(0, layout.blocks))
    cut = layout.table(table[: 8 * stop])[1]
    assert cut[:stop].all()
    empty = layout.table(b"")[1]
    # One number in 2^32 has the mark 0, and then a checksum of 0 stands there, which no block of zeros has.
    assert empty.sum() <= 1
    assert (cut[stop:] == empty[stop:]).all()
    first = data.draw(st.integers(0, layout.blocks - 1))
    assert layout.entries(first, sums[first:]) == table[8 * first :]
    if layout.blocks > 1:
        assert not layout.table(table[8:] + table[:8])[1].any()
    other = Layout(bytes(byte ^ 1 for byte in name), size, block)
    assert not other.table(table)[1].any()


def test_a_checksum_is_the_crc_of_its_block(tmp_path: Path) -> None:
    """Each block's CRC-32 stands in its entry, the short last one's too."""
    shard = FakeShard(bytes(range(256)) * 3)
    _, (file,) = opened(run_of(tmp_path, shard, block=500), shard)
    take(file, [(600, 10)])
    layout = Layout(bytes.fromhex(files_of(tmp_path)[0].stem), 768, 500)
    sums, are_there = layout.table(files_of(tmp_path)[0].read_bytes()[64 : 64 + 16])
    assert are_there.tolist() == [False, True]
    assert sums[1] == zlib.crc32(shard.data[500:])
