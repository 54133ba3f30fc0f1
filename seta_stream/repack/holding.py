"""A stretch of one shard, read once in large spans and held, so that its samples can be copied in any order.

Takes URLs and the versions that are expected there; gives handles that are read by position. Acts: reads shards,
decompresses them, writes temporary files that have no name.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Final, Protocol

from seta_stream.corpus.compressed import HEAD_BYTES, decompressing, opener_of
from seta_stream.corpus.tar import TarScanner
from seta_stream.errors import ReadError, ShardChangedError, TarError
from seta_stream.repack.units import Read
from seta_stream.store import ObjectInfo, Options, ShardFile, Store, is_local, store_for

SPAN_BYTES: Final = 8 << 20
"""Bytes per request: a client reads 1 GB/s in these."""
GROUP_BYTES: Final = 64 << 20
"""Bytes under way at once."""

_WINDOW: Final = 4 << 20
"""Bytes per feed of the scanner: measured best in corpus/scanning.py."""


class Held(Protocol):
    """A stretch of a shard's tar."""

    @property
    def memory_bytes(self) -> int:
        """What it takes of memory."""
        ...

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Return bytes by their offset in the shard's tar."""
        ...

    def close(self) -> None:
        """Refuse a shard that changed while it was held (ShardChangedError), and give back what it took."""
        ...


@dataclass(frozen=True)
class Shard:
    """A shard of the corpus, as the corpus was opened.

    Args:
        url: where it lies.
        info: its version.
        seekable: whether the tar's offsets are the object's.
        tar_size: bytes of its tar.
        options: of its file system; may hold credentials.
    """

    url: str
    info: ObjectInfo
    seekable: bool
    tar_size: int
    options: Options | None = field(repr=False)


@dataclass
class Costs:
    """What reading cost.

    Args:
        bytes: that were read.
        requests: that a remote store was asked.
    """

    bytes: int = 0
    requests: int = 0


def hold(shard: Shard, begin: int, end: int, memory_bytes: int, costs: Costs) -> Held:
    """Read bytes begin … end−1 of a shard's tar, and hold them in memory or, above `memory_bytes`, in a file.

    A local shard above that is read where it lies. A compressed one is read and held whole.

    Args:
        shard: the shard.
        begin, end: the bytes.
        memory_bytes: what memory may take.
        costs: is added to.

    Raises:
        ShardChangedError: the shard is not the one that the corpus was opened with.
        ReadError: it cannot be read, or a temporary file cannot be written.
    """
    store = store_for(shard.url, shard.options)
    is_near = is_local(shard.url)
    costs.requests += 0 if is_near else 2 + 2 * (not shard.seekable)
    check_version(shard, store)
    if not shard.seekable:
        costs.bytes += shard.info.size
        return _Sink(0, shard.tar_size, memory_bytes, shard.url).fill(_parts_of_stream(shard, store))
    costs.bytes += end - begin
    if is_near and end - begin > memory_bytes:
        return _Direct(shard, store, store.open(shard.url, shard.info))
    costs.requests += 0 if is_near else -(-(end - begin) // SPAN_BYTES)
    return _Sink(begin, end - begin, memory_bytes, shard.url).fill(_parts_of_file(shard, store, begin, end))


def check_version(shard: Shard, store: Store) -> None:
    """Refuse a shard that is not the object that the corpus was opened with.

    Raises:
        ShardChangedError: its size, or its time or ETag, is another.
    """
    found = store.info(shard.url)
    if found != shard.info:
        raise ShardChangedError(
            f"Cannot repack {shard.url}: it was replaced since the corpus was opened ({shard.info.size} bytes, "
            f"{shard.info.version}; now {found.size} bytes, {found.version}). What is written stays; run the command "
            "again when nothing writes the shard.",
            shard=shard.url,
            expected=shard.info,
            found=found,
        )


def scan(read: Read, begin: int, end: int, shard: str) -> TarScanner:
    """Return a scanner that was fed with the members between two offsets; all its offsets are the shard's.

    Raises:
        TarError: there are no whole members.
    """
    scanner = TarScanner(shard)
    scanner.offset = begin
    while not scanner.finished:
        length = min(max(_WINDOW, scanner.need), max(0, end - scanner.offset))
        data = bytes(read(scanner.offset, length)) if length else b""
        if length < scanner.need:
            scanner.end(end, data)
        else:
            scanner.feed(data)
    return scanner


@dataclass
class _InMemory:
    _begin: int
    _data: memoryview

    @property
    def memory_bytes(self) -> int:
        return len(self._data)

    def read(self, offset: int, length: int) -> memoryview:
        at = offset - self._begin
        return self._data[at : at + length]

    def close(self) -> None:
        self._data = memoryview(b"")


@dataclass
class _InFile:
    """A temporary file without a name: nothing is left of it however the process ends."""

    _begin: int
    _file: IO[bytes]
    memory_bytes: int = 0

    def read(self, offset: int, length: int) -> bytes:
        return read_at(self._file.fileno(), offset - self._begin, length)

    def close(self) -> None:
        self._file.close()


@dataclass
class _Direct:
    """A local shard that is read where it lies."""

    _shard: Shard
    _store: Store
    _file: ShardFile
    memory_bytes: int = 0

    def read(self, offset: int, length: int) -> bytes:
        return self._file.read(offset, length)

    def close(self) -> None:
        try:
            self._file.check()
            check_version(self._shard, self._store)
        finally:
            self._file.close()


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Return exactly `length` bytes of one of our own files; one call of the system gives at most 2 GiB."""
    parts = []
    while length:
        part = os.pread(fd, length, offset)
        if not part:
            raise ReadError(
                f"A temporary file ended {length} bytes early: something else cut it. Run the command again.",
                offset=offset,
                expected=length,
                found=0,
            )
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _parts_of_file(shard: Shard, store: Store, begin: int, end: int) -> Iterator[bytes | memoryview]:
    """Give bytes begin … end−1 in spans, and then look whether they are all of one version."""
    file = store.open(shard.url, shard.info)
    try:
        for group in range(begin, end, GROUP_BYTES):
            stop = min(group + GROUP_BYTES, end)
            yield from file.read_spans([(at, min(SPAN_BYTES, stop - at)) for at in range(group, stop, SPAN_BYTES)])
        file.check()
    finally:
        file.close()
    check_version(shard, store)


def _parts_of_stream(shard: Shard, store: Store) -> Iterator[bytes]:
    """Give the bytes of a tar that is read in sequence, which goes on to the end: there stands its checksum."""
    left = shard.tar_size
    with decompressing(partial(_not_decompressed, shard.url)):
        with store.open_stream(shard.url) as raw:
            opener = opener_of(raw.read(HEAD_BYTES)) or _as_it_is
        # Not every stream can go back to its beginning.
        with store.open_stream(shard.url) as raw, opener(raw) as stream:
            while data := stream.read(SPAN_BYTES):
                yield data[:left]
                left -= min(left, len(data))
    if left:
        raise _not_decompressed(shard.url, EOFError(f"it ends {left} bytes before its last member does"))
    check_version(shard, store)


def _as_it_is(raw: IO[bytes]) -> IO[bytes]:
    return raw


class _Sink:
    """Takes bytes in sequence: into memory where they fit, else into a file."""

    def __init__(self, begin: int, size: int, memory_bytes: int, url: str) -> None:
        self._begin = begin
        self._size = size
        self._fits = size <= memory_bytes
        self._url = url

    def fill(self, parts: Iterator[bytes | memoryview]) -> Held:
        """Take all parts and return what is held."""
        if self._fits:
            data, at = bytearray(self._size), 0
            for part in parts:
                data[at : at + len(part)] = part
                at += len(part)
            return _InMemory(self._begin, memoryview(data))
        file = tempfile.TemporaryFile()  # noqa: SIM115  (it stays open in what is returned)
        try:
            for part in parts:
                self._write(file, part)
        except BaseException:
            file.close()
            raise
        return _InFile(self._begin, file)

    def _write(self, file: IO[bytes], data: bytes | memoryview) -> None:
        try:
            file.write(data)
            file.flush()
        except OSError as error:
            raise ReadError(
                f"Cannot hold {self._url} in a temporary file in {tempfile.gettempdir()}: {error}. Free space there, "
                "or name another folder in the environment variable TMPDIR, and run the command again.",
                shard=self._url,
                expected="room for the shard",
                found=str(error),
            ) from error


def _not_decompressed(url: str, error: Exception) -> TarError:
    return TarError(
        f"Cannot repack {url}: it cannot be decompressed ({error}). The shard is truncated or damaged: restore it.",
        shard=url,
        expected="a whole compressed stream",
        found=str(error),
    )
