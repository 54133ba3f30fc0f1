"""Shards and indexes made to do harm: each is refused for what it is, before it takes memory or time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.making import tar
from fuzz.tars import scan
from limits import MIB, within

from seta_stream import SetaStream
from seta_stream.corpus import layout, places, scanning
from seta_stream.corpus.grouping import group
from seta_stream.corpus.header import EXTENSION_LIMIT, EXTENSIONS_AT_ONCE
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.index import MAGIC, MEMBERS_FREE, SUFFIX, VERSION, ShardIndex, head_bytes
from seta_stream.corpus.indexing import open_corpus
from seta_stream.corpus.scanning import scan_quietly
from seta_stream.corpus.sealed import seal
from seta_stream.errors import IndexFileError, ReadError, StateError, TarError
from seta_stream.losses.table import LossTable
from seta_stream.read.sequence import _read
from seta_stream.repack.units import units
from seta_stream.store import store_for

END = b"\0" * 1024


def head(name: bytes = b"a.txt", size: bytes = b"00000000001\0", kind: bytes = b"0") -> bytes:
    """Return one header block with any size field, its checksum right."""
    block = (
        name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size + b"0" * 11 + b"\0" + b" " * 8 + kind
    ).ljust(257, b"\0") + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def body(data: bytes) -> bytes:
    """Return a body with its padding."""
    return data + b"\0" * (-len(data) % 512)


def extension(kind: bytes, content: bytes) -> bytes:
    """Return an extension header with its body."""
    return head(b"x", b"%011o\0" % len(content), kind) + body(content)


def record(text: bytes) -> bytes:
    """Return a PAX record."""
    for digits in (1, 2, 3, 4, 5, 6, 7):
        length = digits + 1 + len(text) + 1
        if len(str(length)) == digits:
            return b"%d %s\n" % (length, text)
    raise AssertionError


MEMBER = head() + body(b"x")
TARS: dict[str, tuple[bytes, str]] = {
    "a size of 2^87": (head(size=b"\x80" + b"\xff" * 11) + END, "ends inside the body of 'a.txt'"),
    "a negative size": (head(size=b"\xff" * 12) + END, "not an octal or base-256 number"),
    "a size of 2^63 - 1": (head(size=b"\x80\0\0\0\x7f" + b"\xff" * 7) + END, "ends inside the body"),
    "a PAX size of 19 digits": (
        extension(b"x", record(b"size=" + b"9" * 19)) + MEMBER + END, "ends inside the body of 'a.txt'"),
    "a PAX size of 400 digits": (
        extension(b"x", record(b"size=" + b"9" * 400)) + MEMBER + END, "which is no number of bytes"),
    "a negative PAX size": (extension(b"x", record(b"size=-1")) + MEMBER + END, "which is no number of bytes"),
    "an extension of 8 GiB": (head(b"x", b"77777777777\0", b"x") + END, "at most 1048576 are read"),
    "many extensions": (
        extension(b"L", b"name\0") * (EXTENSIONS_AT_ONCE + 1) + MEMBER + END, "the last of 65 extension headers"),
    "much in extensions": (
        extension(b"L", b"n" * EXTENSION_LIMIT) * 5 + MEMBER + END, "the last of 4 extension headers, 4196352 bytes"),
    "a PAX path with a NUL": (extension(b"x", record(b"path=a\0b.txt")) + MEMBER + END, "a PAX path with a NUL"),
    "a PAX length that lies": (extension(b"x", b"999999999 path=a\n") + MEMBER + END, "a PAX record that is malformed"),
    "a record of length 0": (extension(b"x", b"0 path=a\n") + MEMBER + END, "a PAX record that is malformed"),
    "a hard link": (head(b"/etc/passwd", kind=b"1") + END, "is a hard link"),
    "a symbolic link": (head(b"../../etc/shadow", kind=b"2") + END, "is a symbolic link"),
    "a sparse member": (head(kind=b"S") + END, "is a sparse member"),
}  # fmt: skip


@pytest.mark.parametrize("window", [512, 4096, 1 << 20])
@pytest.mark.parametrize("name", TARS)
def test_a_malicious_tar_is_named(name: str, window: int) -> None:
    """Refused with what is wrong, in a few MiB."""
    data, told = TARS[name]
    with within(24 * MIB), pytest.raises(TarError, match=told):
        scan(data, window)


def test_as_many_extensions_as_are_read_are_read() -> None:
    """The limit is one that real tars do not meet."""
    data = extension(b"L", b"name.txt\0") * EXTENSIONS_AT_ONCE + MEMBER + END
    assert scan(data, 1 << 20).members().names == b"name.txt\0"


def test_a_million_small_records_take_what_they_are_long(tmp_path: Path) -> None:
    """PAX records by the hundred thousand, before each of some members: memory stays near one of them."""
    bomb = extension(b"x", b"".join(record(b"k%05d=" % number) for number in range(30_000)))
    place = tmp_path / "bomb.tar"
    place.write_bytes(b"".join(bomb + head(b"%d.txt" % number) + body(b"x") for number in range(4)) + END)
    with within(48 * MIB, 10):
        assert scan_quietly(str(place)).index.samples == 4


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.txt", "/etc/cron.d/x.txt", "a/../../b.txt", "\x1b[2J.txt", "\u202e.txt", "\\..\\x.txt"]
)
def test_names_are_keys_and_nothing_else(name: str, tmp_path: Path) -> None:
    """No name leads out of a folder: members are never files here, and what is written is named by shards alone."""
    (tmp_path / "in").mkdir()
    place = tmp_path / "in" / "x.tar"
    place.write_bytes(tar([(name, b"text")]))
    corpus = open_corpus([str(place)], progress=False)
    assert corpus.index(0).keys == [name.removesuffix(".txt")] if name.count(".") == 1 else corpus.index(0).samples
    stream = SetaStream(str(place), state=str(tmp_path / "state"))
    samples = list(stream)
    stream.record([sample["__index__"] for sample in samples], [1.0] * len(samples))
    stream.close()
    made = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert made == {"in", "state"}


# ---- compressed shards


def packed(pack: Callable[[bytes], bytes], times: int) -> bytes:
    """Return a compressed tar whose one member claims 8 GiB, with some MiB of zeros."""
    return pack(head(size=b"77777777777\0") + bytes(times * MIB))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_decompression_bomb_is_not_unpacked(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """A few KiB that would be 8 GiB are refused where that shows, which is at once."""
    place = tmp_path / "bomb.tar.x"
    place.write_bytes(packed(pack, 32))
    with within(48 * MIB, 5), pytest.raises(TarError, match=r"holds over 1,073,741,824 bytes.*unpack it"):
        scan_quietly(str(place))


def test_many_members_in_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers compress to nothing: their number is limited too."""
    monkeypatch.setattr(scanning, "MOST_UNPACKED_MEMBERS", 5000)
    monkeypatch.setattr(scanning, "_WINDOW", 1 << 20)
    place = tmp_path / "bomb.tar.gz"
    place.write_bytes(gzip.compress(MEMBER * 20_000 + END))
    with within(48 * MIB, 10), pytest.raises(TarError, match=r"or 5,000 members \(at byte"):
        scan_quietly(str(place))


def test_a_well_packed_shard_is_read(tmp_path: Path) -> None:
    """Short captions pack to a fiftieth; that is no bomb."""
    place = tmp_path / "fine.tar.gz"
    place.write_bytes(gzip.compress(tar([(f"{number:06d}.txt", b"a caption") for number in range(3000)])))
    assert scan_quietly(str(place)).index.samples == 3000


def test_what_a_stream_lacks_takes_no_memory() -> None:
    """A claimed length is asked for in pieces: of 2^50 bytes only those are held that there are."""

    class Few(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 <= size <= 64 * MIB
            return super().read(size)

    with within(8 * MIB):
        assert _read(Few(b"abc"), 1 << 50) == b"abc"


# ---- indexes


KEYS = zlib.compress(b"a\0b\0c\0d\0")


def sealed(payload: bytes = KEYS, **changes: Any) -> bytes:
    """Return an index file of four samples of one member, with a right checksum, whatever it says."""
    header: dict[str, Any] = {
        "shard_size": 1 << 40, "shard_version": b"x", "tar_size": 1 << 40, "seekable": True, "samples": 4, "members": 4,
        "extent_bytes": 4096, "digest": b"d" * 16, "fields": [b"txt"], "shapes": [[0]],
        "columns": [[0, 0], [0, 0], [0, 1], [0, 10]], "keys": [len(payload), 8],
    }  # fmt: skip
    return seal(MAGIC, VERSION, header | changes, payload)


INDEXES: dict[str, bytes] = {
    "2^31 members of constant columns": sealed(members=1 << 31),
    "one more member than few bytes may tell": sealed(members=MEMBERS_FREE + 64 * len(KEYS)),
    "2^40 samples": sealed(samples=1 << 40, members=1 << 40),
    "70,000 fields": sealed(
        fields=[b"a"] * 70_000, columns=[[0, 0], [0, 0], [0, 1], *[[0, 1]] * 70_000], shapes=[[69_999]]),
    "a shape of no field": sealed(shapes=[[7]]),
    "a shape that repeats": sealed(shapes=[[0] * 60_000]),
    "a member behind the shard": sealed(columns=[[0, 0], [0, 0], [0, 1 << 50], [0, 10]]),
    "a negative gap": sealed(columns=[[0, 0], [0, 0], [0, -1], [0, 10]]),
    "no gap, so bodies overlap headers": sealed(columns=[[0, 0], [0, 0], [0, 0], [0, 10]]),
    "sizes whose sum wraps around": sealed(columns=[[0, 0], [0, 0], [0, 1], [0, (1 << 62) - 1]]),
    "a size of 2^63": sealed(columns=[[0, 0], [0, 0], [0, 1], [0, 1 << 63]]),
    "a compressed shard of 2^60 bytes in 100": sealed(seekable=False, shard_size=100, tar_size=1 << 60),
    "keys of a GiB": sealed(keys=[len(KEYS), 1 << 30]),
    "floats for numbers": sealed(members=4.0),
    "text for a list": sealed(columns="abcd"),
    "nesting": MAGIC + struct.pack("<II", VERSION, 5000) + b"\x91" * 5000 + struct.pack("<I", zlib.crc32(
        MAGIC + struct.pack("<II", VERSION, 5000) + b"\x91" * 5000)),
}  # fmt: skip


@pytest.mark.parametrize("name", INDEXES)
def test_a_malicious_index_is_refused(name: str) -> None:
    """Though its checksum holds, and before anything is made in the sizes that it claims."""
    with within(48 * MIB), pytest.raises(IndexFileError, match="Remove it; it is made again by `seta-stream index`"):
        ShardIndex.from_bytes(INDEXES[name], "a file")


def test_keys_that_unpack_to_more_than_they_say() -> None:
    """A bomb of keys gives as many bytes as the header says, and one more to tell."""
    bomb = zlib.compress(bytes(64 * MIB))
    index = ShardIndex.from_bytes(sealed(bomb, keys=[len(bomb), 8]), "a file")
    with within(8 * MIB), pytest.raises(IndexFileError, match="the keys cannot be as it is"):
        _ = index.keys


def test_as_many_fields_as_there_can_be_take_no_time() -> None:
    """65,536 fields of a member each: sorted once, not looked for 65,536 times."""
    count = 1 << 16
    data = sealed(
        samples=4, members=4 * count, fields=[b"f"] * count, shapes=[list(range(count))],
        columns=[[0, 0], [0, 0], [0, 1], *[[0, 1]] * count], extent_bytes=4 * count * 1024,
    )  # fmt: skip
    with within(160 * MIB, 5):
        index = ShardIndex.from_bytes(data, "a file")
    assert index.members == 4 * count
    assert (np.diff(index.member_offset) == 1024).all()


def test_few_and_many_fields_are_read_alike() -> None:
    """The two ways to give members their sizes agree."""
    names = [f"k{number // 40:03d}.{number % 40:02d}" for number in range(400)]
    samples = group(scan(tar([(name, b"x" * (at % 7)) for at, name in enumerate(names)]), 1 << 20).members(), "shard")
    index = ShardIndex.of(samples, shard_size=1 << 20, shard_version="x")
    again = ShardIndex.from_bytes(index.to_bytes())
    assert len(index.fields) == 40
    assert again.member_size.tolist() == index.member_size.tolist()


def test_a_header_longer_than_any_is_not_asked_for() -> None:
    """The first 16 bytes of a remote index may claim 4 GiB of header."""
    with pytest.raises(IndexFileError, match="the length of the header cannot be as it is"):
        head_bytes(MAGIC + struct.pack("<II", VERSION, 0xFFFFFFFF), "a file")


def test_an_index_longer_than_any_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read; the shard is scanned instead, and a warning tells."""
    place = tmp_path / "x.tar"
    place.write_bytes(tar())
    monkeypatch.setattr(places, "LARGEST_BYTES", 1000)
    (tmp_path / f"x.tar{SUFFIX}").write_bytes(b"x" * 1001)
    with pytest.warns(match=r"its length \(1001 bytes; 1000 at most are read\).*It is not used"):
        assert open_corpus([str(place)], progress=False).table.total == 2


def test_an_index_that_lies_is_not_believed_over_its_shard(tmp_path: Path) -> None:
    """Offsets inside the shard that are wrong give wrong bytes at most, from the shard itself: never another file's."""
    place = tmp_path / "x.tar"
    place.write_bytes(tar())
    info = store_for(str(place)).info(str(place))
    lies = sealed(
        shard_size=info.size, tar_size=info.size, shard_version=info.version.encode(), samples=1, members=1,
        extent_bytes=1024, shapes=[[0]], columns=[[0, 0], [0, 0], [0, 1], [0, 300]], keys=[len(KEYS), 8],
    )  # fmt: skip
    (tmp_path / f"x.tar{SUFFIX}").write_bytes(lies)
    with pytest.raises(IndexFileError, match="the keys cannot be as it is"):
        list(SetaStream(str(place)))


def test_a_table_of_more_samples_than_memory_holds() -> None:
    """A state's shard table can claim any number: what it asks for is refused in words, not by the interpreter."""
    with (
        within(16 * MIB, traced=False),
        pytest.raises(StateError, match=r"Cannot keep the losses of 1099511627776 samples"),
    ):
        LossTable([1 << 40])
    data = ShardTable.of(["a"], [ShardIndex.from_bytes(sealed())]).to_bytes()
    assert ShardTable.from_bytes(data).total == 4


def test_a_member_larger_than_memory(tmp_path: Path) -> None:
    """A sparse file can hold a member of a TiB: an error says which, and what to do."""
    place = tmp_path / "sparse.tar"
    with place.open("wb") as file:
        file.write(head(size=b"\x80\0\0\0\0\0\0\1" + b"\0" * 4))  # 2^32 bytes
        file.truncate((1 << 32) + 2048)
    corpus = open_corpus([str(place)], progress=False)
    index = corpus.index(0)
    assert index.member_size.tolist() == [1 << 32]
    file = store_for(str(place)).open(str(place))
    with within(64 * MIB), pytest.raises(ReadError, match=r"Cannot read 4,294,967,296 bytes at byte 512 of .*fields="):
        file.read(512, 1 << 32)
    file.close()


# ---- walking beside samples


def test_units_are_held_to_their_end() -> None:
    """What `repack` walks through beside samples may claim no bytes behind it either."""
    for data in (head(size=b"77777777777\0"), head(b"x", b"77777777777\0", b"g"), head(size=b"\x80" + b"\xff" * 11)):
        with within(8 * MIB), pytest.raises(TarError, match=r"would end at byte \d+, behind byte 2560"):
            list(units(lambda at, length, data=data: (data + bytes(2048))[at : at + length], 0, 2560, "x.tar"))
    long = extension(b"g", b"n" * (EXTENSION_LIMIT + 1)) + MEMBER
    with pytest.raises(TarError, match="an extension header of over 1048576 bytes"):
        list(units(lambda at, length: long[at : at + length], 0, len(long), "x.tar"))


def test_limits_stand_where_the_documents_say() -> None:
    """Constants that docs/security.md tells."""
    assert layout.most_unpacked(1) == 1 << 30
    assert layout.most_unpacked(10 << 30) == 2000 << 30
