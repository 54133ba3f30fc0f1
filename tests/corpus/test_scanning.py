"""A shard on disk or in a bucket is scanned whatever its size of members and its compression."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpus_tars import END, body, header, index_of, samples_of, tar_bytes, unended

from seta_stream.corpus import scanning
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.scanning import scan_shard
from seta_stream.errors import ReadError, SetaStreamWarning, ShardChangedError, TarError
from seta_stream.store import LocalFile, store_for

FILES = [(f"{number:03d}.{ext}", b"x" * (number * 7)) for number in range(150) for ext in ("jpg", "txt")]


def same(left: ShardIndex, right: ShardIndex) -> bool:
    """Say whether two indexes point at the same places."""
    names = ("fields", "first_member", "member_offset", "member_size", "extent_start", "extent_stop", "digest")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)


def test_a_local_shard(tmp_path: Path) -> None:
    """The index knows the shard's size and modification time, and is that of its bytes."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(FILES))
    index = scan_shard(str(path))
    assert (index.shard_size, index.shard_version) == (path.stat().st_size, f"mtime:{path.stat().st_mtime_ns}")
    assert index.seekable
    assert same(index, index_of(path.read_bytes()))


def test_large_bodies_are_jumped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of members of 200 KB, at most a page each is read after the first few MB."""
    path = tmp_path / "photos.tar"
    path.write_bytes(
        tar_bytes([(f"{number:03d}.{ext}", b"x" * 200_000) for number in range(60) for ext in ("jpg", "png")])
    )
    read: list[int] = []
    plain = LocalFile.read
    monkeypatch.setattr(
        LocalFile, "read", lambda file, offset, length: read.append(length) or plain(file, offset, length)
    )
    index = scan_shard(str(path))
    assert index.samples == 60
    assert sum(read) < 4 * 2**20 + 120 * 4096 + 512
    assert same(index, index_of(path.read_bytes()))


def test_small_members_behind_large_ones(tmp_path: Path) -> None:
    """Changing from jumping to large reads and back loses nothing."""
    sizes = [150_000] * 90 + [100] * 3000 + [900_000] * 9
    path = tmp_path / "mixed.tar"
    path.write_bytes(tar_bytes([(f"{number:05d}.bin", b"x" * size) for number, size in enumerate(sizes)]))
    assert scan_shard(str(path)).member_size.tolist() == sizes


def test_a_sparse_9_gib_shard(tmp_path: Path) -> None:
    """A member of over 8 GiB costs no reading of its body."""
    size = 9 << 30
    path = tmp_path / "big.tar"
    with path.open("wb") as file:
        file.write(header(b"a.bin", size=b"\x80" + size.to_bytes(11, "big")))
        file.seek(512 + size)
        file.write(header(b"a.txt", size=1) + body(b"x") + END)
    index = scan_shard(str(path))
    assert index.member_offset.tolist() == [512, size + 1024]


OPENERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("name", OPENERS)
def test_compressed_shards(tmp_path: Path, name: str) -> None:
    """Compressed tars are told by their first bytes; offsets are those in the decompressed stream."""
    plain = tar_bytes([*FILES, ("z.bin", b"x" * 9_000_000)])
    path = tmp_path / "a.tar"
    path.write_bytes(OPENERS[name](plain))
    index = scan_shard(str(path))
    assert not index.seekable
    assert index.shard_size == path.stat().st_size
    assert samples_of(index, plain) == samples_of(index_of(plain), plain)
    assert same(ShardIndex.from_bytes(index.to_bytes()), index)


def test_compressed_bodies_are_skipped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies longer than a window are read past without being kept."""
    monkeypatch.setattr(scanning, "_WINDOW", 1024)
    plain = tar_bytes([("a.bin", b"x" * 100_000), ("b.txt", b"y")])
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(plain))
    assert scan_shard(str(path)).member_offset.tolist() == [512, 512 + 100_352 + 512]
    path.write_bytes(gzip.compress(plain[:50_000]))
    with pytest.raises(TarError, match=r"ends inside the body of 'a.bin', whose header is at byte 0"):
        scan_shard(str(path))
    path.write_bytes(gzip.compress(plain[: 100_864 + 100]))
    with pytest.raises(TarError, match=r"ends inside a header"):
        scan_shard(str(path))


@pytest.mark.parametrize("name", OPENERS)
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:40] + b"rubbish!" + data[48:]]
)
def test_damaged_compression_is_named(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    """A truncated or garbled compressed stream is a TarError that names the shard."""
    path = tmp_path / "a.tar.x"
    path.write_bytes(damage(OPENERS[name](tar_bytes([("a.bin", os.urandom(40_000))]))))
    with pytest.raises(TarError, match="cannot be decompressed") as caught:
        scan_shard(str(path))
    assert caught.value.shard == str(path)


@pytest.mark.parametrize(("magic", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip")])
def test_foreign_containers_are_named(tmp_path: Path, magic: bytes, name: str) -> None:
    """What we do not read is called by its name, with the way round."""
    path = tmp_path / "a.tar.zst"
    path.write_bytes(magic + b"\0" * 600)
    with pytest.raises(TarError, match=rf"those of {name}\..*unpack it"):
        scan_shard(str(path))


def test_missing_end_blocks_are_warned_about(tmp_path: Path) -> None:
    """The shard is accepted, and the warning gives the number of samples."""
    path = tmp_path / "a.tar"
    path.write_bytes(unended(FILES))
    with pytest.warns(SetaStreamWarning, match=r"a\.tar has no end-of-archive blocks.* 150 samples are whole"):
        assert scan_shard(str(path)).samples == 150


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """The path stands in the message."""
    with pytest.raises(ReadError, match=r"none\.tar: there is no such file"):
        scan_shard(str(tmp_path / "none.tar"))


def test_a_shard_that_changes_while_it_is_scanned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of half the old and half the new shard would be misread for ever."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(FILES))
    plain = LocalFile.read

    def read(file: LocalFile, offset: int, length: int) -> bytes:
        os.utime(path, ns=(1, 1))
        return plain(file, offset, length)

    monkeypatch.setattr(LocalFile, "read", read)
    with pytest.raises(ShardChangedError, match="replaced while it was scanned"):
        scan_shard(str(path))


def test_a_bucket_object() -> None:
    """An object behind fsspec is scanned by ranged requests, compressed ones by its stream."""
    url = "memory://scanning/a.tar"
    plain = tar_bytes(FILES)
    store_for(url).write(url, plain)
    assert same(scan_shard(url), index_of(plain))
    store_for(url).write(url + ".gz", gzip.compress(plain))
    assert same(scan_shard(url + ".gz"), index_of(plain))


def test_gnu_tar_reads_the_same(tmp_path: Path) -> None:
    """Where GNU tar wrote the shard, with its own formats, the samples are those of the files."""
    import shutil
    import subprocess

    tar = shutil.which("tar")
    if tar is None:
        pytest.skip("no tar program here")
    for name in ("a.txt", "deep/" + "n" * 120 + ".txt", "é.TXT"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    for form in ("gnu", "oldgnu", "posix", "pax"):
        path = tmp_path / f"{form}.tar"
        subprocess.run([tar, "-C", tmp_path / "in", f"--format={form}", "-cf", path, "."], check=True)
        data = path.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(data)) as reader:
            expected = [(info.name, info.offset_data) for info in reader if info.isreg()]
        index = scan_shard(str(path))
        names = [f"{key}.{ext}" for key, ext in zip(index.keys, ["txt"] * 3, strict=True)]
        assert sorted(names) == sorted(name.replace(".TXT", ".txt") for name, _ in expected)
        assert index.member_offset.tolist() == [offset for _, offset in expected]
