"""An index file gives back what was indexed, in few bytes, and nothing else is ever taken for one."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from corpus_tars import END, body, header, index_of, tar_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.corpus.columns import pack, unpack
from seta_stream.corpus.index import MAGIC, VERSION, ShardIndex, read_header
from seta_stream.corpus.sealed import seal, unseal
from seta_stream.errors import IndexFileError

GOLDEN = bytes.fromhex(
    "895345544149580a01000000b90000008caa73686172645f73697a65cd2800ad73686172645f76657273696f6ec4076d"
    "74696d653a31a87461725f73697a65cd2800a87365656b61626c65c3a773616d706c657302a76d656d6265727304ac65"
    "7874656e745f6279746573cd1400a6646967657374c4108823d159179675f655fe4015124286baa66669656c647392c4"
    "036a7067c403747874a673686170657391920001a7636f6c756d6e73959200009201019200019502cd02bc0101029201"
    "01a46b657973920c0400010058020103785e4b6448620000024c00c4d8581627"
)
SMALL = tar_bytes([("a.jpg", b"1" * 600), ("a.txt", b"2"), ("dir/", b""), ("b.jpg", b"1" * 700), ("b.txt", b"345")])


def same(left: ShardIndex, right: ShardIndex) -> bool:
    """Say whether two indexes agree in everything."""
    names = [*ShardIndex.__dataclass_fields__, "keys"]
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)


FILES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "é", "\udcff", "n" * 150]),
        st.sampled_from([".jpg", ".txt", ".json", "", "/"]),
        st.sampled_from([0, 1, 300, 600, 70_000]),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(files=FILES, form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_round_trip(files: list[tuple[str, str, int]], form: int) -> None:
    """Whatever the samples, skipped members and extension headers, every array and key comes back."""
    data = tar_bytes([(f"{stem}{number}{ext}", b"x" * size) for number, (stem, ext, size) in enumerate(files)], form)
    index = index_of(data)
    assert same(ShardIndex.from_bytes(index.to_bytes()), index)
    head = read_header(index.to_bytes())
    assert (head.samples, head.members, head.extent_bytes) == (index.samples, index.members, index.extent_bytes)
    assert (head.digest, head.shard_size, head.shard_version) == (index.digest, len(data), "mtime:1")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_two_member_samples_take_at_most_10_bytes_besides_keys(form: int) -> None:
    """Photos of 60–100 KB with captions, even with PAX headers and unequal samples among them, stay under 10 bytes."""
    rows = []
    for number in range(1000):
        size = 60_000 + (number * 7919) % 40_000
        name = ("k" * 120 if number % 3 == 0 and form == tarfile.PAX_FORMAT else "k") + f"{number:06d}"
        rows += [(name + ".jpg", size), (name + ".txt", number % 100)]
        rows += [(name + ".json", 5)] if number % 97 == 0 else []
    # The tar is made with empty bodies, and the sizes are put in afterwards: 80 MB of bodies would tell no more.
    index = index_of(tar_bytes([(name, b"") for name, _ in rows], form))
    sizes = np.array([size for _, size in rows])
    pads = np.concatenate([[0], np.cumsum(-(-sizes // 512) * 512)])
    moved = ShardIndex(
        **{name: getattr(index, name) for name in ShardIndex.__dataclass_fields__}
        | {
            "member_offset": index.member_offset + pads[:-1],
            "member_size": sizes,
            "extent_start": index.extent_start + pads[index.first_member[:-1]],
            "extent_stop": index.extent_stop + pads[index.first_member[1:]],
            "shard_size": 1 << 30,
            "tar_size": 1 << 30,
        }
    )
    data = moved.to_bytes()
    assert same(ShardIndex.from_bytes(data), moved)
    assert (len(data) - len(moved.packed_keys)) / 1000 <= 10


def test_golden_bytes() -> None:
    """The format is pinned byte by byte; docs/formats/index.md explains this very file."""
    index = ShardIndex.from_bytes(GOLDEN)
    assert index.keys == ["a", "b"]
    assert index.fields == ("jpg", "txt")
    assert index.first_member.tolist() == [0, 2, 4]
    assert index.member_field.tolist() == [0, 1, 0, 1]
    assert index.member_offset.tolist() == [512, 2048, 3584, 5120]
    assert index.member_size.tolist() == [600, 1, 700, 3]
    assert index.extent_start.tolist() == [0, 3072]
    assert index.extent_stop.tolist() == [2560, 5632]
    assert (index.shard_size, index.shard_version, index.seekable) == (10240, "mtime:1", True)
    assert index.digest == index_of(SMALL).digest
    assert index.to_bytes() == GOLDEN


def test_a_digest_depends_on_keys_fields_and_sizes_alone() -> None:
    """A shard copied, or written anew in another dialect, keeps its digest; another key, field or size changes it."""
    files = [("a.jpg", b"12"), ("a.txt", b"3")]
    digest = index_of(tar_bytes(files)).digest
    assert index_of(tar_bytes([("dir/", b""), *files], tarfile.PAX_FORMAT, mtime=2.5)).digest == digest
    others = [
        [("b.jpg", b"12"), ("b.txt", b"3")],
        [("a.png", b"12"), ("a.txt", b"3")],
        [("a.jpg", b"1"), ("a.txt", b"3")],
    ]
    assert all(index_of(tar_bytes(other)).digest != digest for other in others)


def test_a_9_gib_member_is_indexed() -> None:
    """Offsets behind a member of over 8 GiB are exact."""
    from seta_stream.corpus.grouping import group
    from seta_stream.corpus.tar import TarScanner

    size = 9 << 30
    scanner = TarScanner("big")
    scanner.feed(header(b"a.bin", size=b"\x80" + size.to_bytes(11, "big")))
    scanner.feed(header(b"a.txt", size=1) + body(b"x") + END)
    index = ShardIndex.of(group(scanner.members(), "big"), shard_size=size + 4096, shard_version="")
    assert ShardIndex.from_bytes(index.to_bytes()).member_offset.tolist() == [512, size + 1024]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_noticed(data: st.DataObject) -> None:
    """No changed byte, lost byte or added byte is read as an index."""
    whole = index_of(SMALL).to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), whole[:at], whole + b"\0"):
        with pytest.raises(IndexFileError, match="Cannot read here"):
            ShardIndex.from_bytes(damaged, "here")


def test_foreign_and_future_files_are_named() -> None:
    """The message says what the file is and what to do."""
    whole = index_of(SMALL).to_bytes()
    with pytest.raises(IndexFileError, match=r"x\.idx: it does not begin with .*Remove it"):
        ShardIndex.from_bytes(b"v1.2 300\n" * 9, "x.idx")
    future = seal(MAGIC, VERSION + 1, *unseal(whole, MAGIC, VERSION, ""))
    with pytest.raises(IndexFileError, match=r"of version 2, and this release reads version 1"):
        read_header(future)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.binary(max_size=20), st.text(max_size=3)
)
VALUES = st.one_of(
    LEAVES, st.lists(st.integers(-1, 5), max_size=5), st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=5)
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_crafted_files_with_a_good_checksum_are_refused_or_lie_in_the_shard(data: st.DataObject) -> None:
    """Arbitrary headers and columns raise IndexFileError, or give members inside the shard, in order and apart."""
    plain, payload = unseal(index_of(SMALL).to_bytes(), MAGIC, VERSION, "")
    crafted = dict(plain)
    for name in data.draw(st.lists(st.sampled_from(sorted(plain)), max_size=2)):
        crafted[name] = data.draw(st.one_of(VALUES, st.integers(0, 40)))
    if data.draw(st.booleans()):
        columns = [list(column) for column in plain["columns"]]
        columns[data.draw(st.integers(0, 4))] = data.draw(st.lists(st.integers(0, 1 << 63), max_size=5))
        crafted["columns"] = columns
    if crafted["tar_size"] == crafted["shard_size"] or not crafted["seekable"]:
        raw = bytearray(payload)
        for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
            raw[at] = data.draw(st.integers(0, 255))
        payload = memoryview(bytes(raw[: data.draw(st.integers(0, len(raw))) or None]))
    if isinstance(crafted["tar_size"], int) and crafted["tar_size"] > 1 << 24:
        return
    try:
        index = ShardIndex.from_bytes(seal(MAGIC, VERSION, crafted, bytes(payload)))
        keys = index.keys
    except IndexFileError:
        return
    stops = index.member_offset + index.member_size
    assert len(keys) == index.samples
    assert (index.member_offset[1:] >= stops[:-1]).all()
    assert not len(stops) or (index.member_offset[0] >= 512 and stops[-1] <= index.tar_size)
    assert (index.extent_start[1:] >= index.extent_stop[:-1]).all()


def resealed(**changes: Any) -> bytes:
    """Return the small index with some header values changed and a good checksum."""
    plain, payload = unseal(index_of(SMALL).to_bytes(), MAGIC, VERSION, "")
    return seal(MAGIC, VERSION, {**plain, **changes}, bytes(payload))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"samples": -1}, "'samples' in the header"),
        ({"samples": 5}, "number of samples, members or bytes"),
        ({"members": 1 << 61, "tar_size": 1 << 40}, "number of samples, members or bytes"),
        ({"digest": b"short"}, "digest or size"),
        ({"tar_size": 20480}, "digest or size"),
        ({"fields": [b"jpg"]}, "fields or columns"),
        ({"columns": [[0, 0], [0, 0], [1, 3], [1, 2], [1, 1]]}, "description of a column"),
        ({"columns": [[0, 0], [1, 1], [0, 1], [1, 4], [1, 8]]}, "length of a column"),
        ({"columns": [[0, 0], [0, 0], [0, 0], [1, 2], [1, 1]]}, "place of a member"),
        ({"columns": [[0, 0], [0, 9], [0, 1], [1, 2], [1, 1]]}, "place of a member"),
        ({"columns": [[0, 0], [1, 1], [0, 1], [0, 600], [0, 1]], "extent_bytes": 512}, "sum of extents"),
        ({"columns": [[0, 0], [0, 0], [2, 1, 3, 1, 1], [0, 1], [0, 1]]}, "positions of a sparse column"),
        ({"columns": [[0, 1], [0, 0], [0, 1], [1, 2], [1, 1]]}, "shapes of samples"),
        ({"shapes": [[0, 7]]}, "shapes of samples"),
        ({"shapes": [[0]]}, "number of members"),
        ({"keys": [10, 3]}, "length of the keys"),
        ({"keys": [2, 4]}, "length of the keys"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, Any], text: str) -> None:
    """Each impossible header value is refused with what is wrong, before anything is built of it."""
    with pytest.raises(IndexFileError, match=text):
        ShardIndex.from_bytes(resealed(**changes))


def test_headers_that_are_no_map_are_refused() -> None:
    """A frame that holds another msgpack value, no msgpack, or a length beyond the file, is refused."""
    for packed in (msgpack.packb([1]), b"\xc1", b""):
        data = MAGIC + (VERSION).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
        with pytest.raises(IndexFileError, match="the header cannot be"):
            read_header(data + zlib.crc32(data).to_bytes(4, "little"))
    data = MAGIC + (VERSION).to_bytes(4, "little") + (99).to_bytes(4, "little")
    with pytest.raises(IndexFileError, match="length of the header"):
        read_header(data + zlib.crc32(data).to_bytes(4, "little"))


def test_keys_that_do_not_decompress_are_refused_when_asked_for() -> None:
    """Damaged keys, too many and too few of them, are an IndexFileError."""
    index = index_of(SMALL)
    fields = {name: getattr(index, name) for name in ShardIndex.__dataclass_fields__}
    for packed in (b"rubbish", zlib.compress(b"a\0b\0c\0"), zlib.compress(b"abc\0"), zlib.compress(b"a\0bb")):
        with pytest.raises(IndexFileError, match="the keys cannot be"):
            _ = ShardIndex(**fields | {"packed_keys": packed}).keys


@settings(max_examples=200, deadline=None)
@given(
    values=st.one_of(
        st.lists(st.integers(0, (1 << 62) - 1), max_size=40),
        st.lists(st.sampled_from([5, 5, 5, 5, 5, 5, 5, 700]), max_size=600),
        st.lists(st.integers(0, 300), max_size=40),
    )
)
def test_columns_round_trip(values: list[int]) -> None:
    """Any column of numbers comes back, from no more bytes than its widest number needs per entry."""
    plain, data = pack(np.array(values, np.int64))
    numbers, used = unpack(plain, len(values), memoryview(data + b"more"), "")
    assert (numbers.tolist(), used) == (values, len(data))
    widest = next(width for width in (1, 2, 4, 8) if max(values, default=0) < 1 << 8 * width)
    assert len(data) <= len(values) * widest


def test_a_number_too_large_for_an_offset_is_refused() -> None:
    """A 64-bit number over 2^62 in a column is refused: sums of it would wrap around."""
    with pytest.raises(IndexFileError, match="a number in a column"):
        unpack([1, 8], 1, memoryview(b"\xff" * 8), "x")


def documented(language: str) -> bytes:
    """Return the bytes of a hex dump in docs/formats/index.md."""
    text = (Path(__file__).parents[2] / "docs" / "formats" / "index.md").read_text()
    lines = text.partition(f"```{language}\n")[2].partition("```")[0].splitlines()
    return b"".join(bytes.fromhex(line[6:53]) for line in lines)


def test_the_documentation_shows_the_golden_bytes() -> None:
    """The hex dumps in docs/formats/index.md are the files that the tests pin."""
    from test_ids import GOLDEN as TABLE

    assert documented("index") == GOLDEN
    assert documented("table") == TABLE
