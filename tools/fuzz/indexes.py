"""Our own index files and shard tables, their checksums mended, so that what is inside is looked at.

The first byte says which reader is asked, and whether the rest is a file or changes of the header of a right one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fuzz.making import refusing, tar, with_crc, with_header
from fuzz.tars import check, scan
from seta_stream.corpus.grouping import group
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.index import ShardIndex, head_bytes, peek_header, read_header


def _right() -> list[bytes]:
    """Return an index of samples that are alike, one of odd ones, one of a compressed shard, and a shard table."""
    alike = [(f"{number:04d}.{field}", b"x" * 9) for number in range(20) for field in ("txt", "cls")]
    odd = [(f"k{number}/{number}.{'abc'[number % 3]}", b"x" * number**2) for number in range(12)]
    found = []
    for members, seekable in ((alike, True), (odd, True), (odd, False)):
        data = tar(members)
        samples = group(scan(data, 1 << 20).members(), "shard")
        size = len(data) if seekable else 300
        found.append(
            ShardIndex.of(samples, shard_size=size, shard_version="etag:1", tar_size=len(data), seekable=seekable)
        )
    table = ShardTable.of([f"s3://b/{number}.tar" for number in range(3)], found)
    return [*(index.to_bytes() for index in found), table.to_bytes()]


RIGHT = _right()


def seeds() -> Iterator[bytes]:
    """Give each file for its readers, and changes of each."""
    for number, data in enumerate(RIGHT):
        is_table = number == len(RIGHT) - 1
        for which in (2,) if is_table else (0, 4):  # even; 4 % 3 is 1
            yield bytes([which]) + data
        for odd in (1, 3, 5):
            yield bytes([6 * number + odd]) + bytes(range(number, 60, 2))


def one(data: bytes) -> None:
    """Read one file, and all that it claims to hold."""
    first, data = data[0] if data else 0, data[1:]
    which, right = first % 3, RIGHT[first // 6 % len(RIGHT)]
    data = with_header(right, data[:30], "<8sII") if first & 1 else with_crc(data)
    with refusing():
        if which == 0:
            index = ShardIndex.from_bytes(data, "a file")
            check(index, index.tar_size)
            assert len(index.keys) == index.samples, "a sample without a key"
            assert len(index.to_bytes()) < len(data) + 4096 + index.samples * 8, "a file that grows"
        elif which == 1:
            read_header(data, "a file")
            peek_header(data[: head_bytes(data, "a file")], "a file")
        else:
            table = ShardTable.from_bytes(data, "a file")
            assert (np.diff(table.first_id) >= 0).all(), "ids that go back"
            table.fingerprint()
            list(table.rows())
