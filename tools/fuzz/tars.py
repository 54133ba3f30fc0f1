"""Tar bytes: the scanner in windows of several lengths, grouping, and the walk of `repack`.

The first byte of an input says how it is fed; the rest is the tar. Odd first bytes mend the headers' checksums.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from fuzz.making import MEMBERS, refusing, tar, with_checksums
from seta_stream.corpus.grouping import group
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.tar import TarScanner
from seta_stream.repack.units import units

SHARD = "/data/fuzzed.tar"
LONGEST_BYTES = 24 << 10
WINDOWS = (512, 1536, 4096, 1 << 20)


def seeds() -> Iterator[bytes]:
    """Give tars of all dialects, long names, and many short members, which take the fast path."""
    long = [("k" * 150 + "/" + "d" * 120 + ".txt", b"x"), *MEMBERS]
    many = [(f"{number:04d}.txt", b"x") for number in range(20)]
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for first in (b"\x01", b"\x07"):
            yield first + tar(MEMBERS, form)
    yield b"\x03" + tar(long, tarfile.GNU_FORMAT)
    yield b"\x03" + tar(long, tarfile.PAX_FORMAT, mtime=1.5)
    yield b"\x07" + tar(many, tarfile.USTAR_FORMAT)  # long enough for the fast path
    yield b"\x07" + tar(many[:9], tarfile.PAX_FORMAT, mtime=1.5)
    yield b"\x06" + tar(MEMBERS, tarfile.GNU_FORMAT)[:-1024]


def one(data: bytes) -> None:
    """Scan, group and index one tar."""
    if not data:
        return
    window, data = WINDOWS[data[0] >> 1 & 3], with_checksums(data[1:]) if data[0] & 1 else data[1:]
    with refusing():
        scanner = scan(data, window)
        index = ShardIndex.of(group(scanner.members(), SHARD), shard_size=len(data), shard_version="mtime:1")
        check(index, len(data))
        again = ShardIndex.from_bytes(index.to_bytes())
        assert again.keys == index.keys, "an index that was written is another when it is read"
    with refusing():
        walked = list(units(lambda at, length: data[at : at + length], 0, len(data), SHARD))
        assert all(unit.start < unit.stop for unit in walked), "a member of no length"


def scan(data: bytes, window: int) -> TarScanner:
    """Feed a scanner as a driver does; it must go forward with every step."""
    scanner = TarScanner(SHARD)
    while not scanner.finished:
        left = max(0, len(data) - scanner.offset)
        length, before = min(max(window, scanner.need), left), (scanner.offset, scanner.need)
        if length < scanner.need:
            scanner.end(len(data), data[scanner.offset : scanner.offset + length])
        else:
            scanner.feed(data[scanner.offset : scanner.offset + length])
            assert scanner.finished or (scanner.offset, scanner.need) > before, "the scan stands still"
    return scanner


def check(index: ShardIndex, size: int) -> None:
    """Refuse an index that points outside its shard, or whose samples overlap."""
    assert (index.member_offset >= 512).all(), "a body without a header"
    assert (index.member_size >= 0).all(), "a body of negative length"
    assert (index.extent_start >= 0).all(), "a sample before the shard"
    assert (index.extent_start < index.extent_stop).all(), "a sample of no length"
    assert (index.extent_stop[:-1] <= index.extent_start[1:]).all(), "samples that overlap"
    assert not index.samples or int(index.extent_stop[-1]) <= size + 511, "a sample behind the shard"
