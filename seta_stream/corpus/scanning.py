"""One shard → its index: drives the scanner over a file or bucket object.

Takes a URL; gives a ShardIndex. Acts: reads the shard (headers only where bodies are large) and warns.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import IO, Final

from seta_stream.corpus.compressed import (
    HEAD_BYTES,
    Opener,
    decompressing,
    opener_of,
)
from seta_stream.corpus.conditions import Conditions
from seta_stream.corpus.grouping import group
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.layout import MOST_UNPACKED_MEMBERS, most_unpacked
from seta_stream.corpus.remote_scan import scan_remote
from seta_stream.corpus.tar import TarScanner
from seta_stream.errors import SetaStreamWarning, ShardChangedError, TarError
from seta_stream.store import ObjectInfo, Options, ShardFile, Store, is_local, store_for

_WINDOW: Final = 4 << 20
"""Bytes per read where members are small: measured best here, of 0.5 to 8 MiB."""
_HOP: Final = 4096
"""Bytes per read where bodies are jumped over: one page."""
_HOP_STRIDE: Final = 64 << 10
"""Mean bytes per member from which jumping pays, in a local shard.

A cold page costs about 200 µs here, in which 400 KB are read in sequence (490 MB of photos with a label each: 1.2 s by
jumps, 0.25 s whole); from the page cache, or with slow sequential reads, jumps pay from 40 to 80 KB on.
"""

_FOREIGN: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}


@dataclass(frozen=True)
class Scan:
    """What scanning a shard gave: its index, and a warning for the user where there is one."""

    index: ShardIndex
    note: str | None


@dataclass(frozen=True)
class _Seen:
    """A scanner that has seen all of a shard, of which version, and how."""

    scanner: TarScanner
    info: ObjectInfo
    tar_size: int
    seekable: bool


def scan_shard(url: str, options: Options | None = None) -> ShardIndex:
    """Return the index of a shard, scanned now; a shard without end-of-archive blocks is warned about.

    Args:
        url: where the shard lies.
        options: what the fsspec file system is given.

    Raises:
        TarError: the shard is damaged, or holds a member that is refused.
        DuplicateFieldError: a sample holds one field twice.
        ShardChangedError: the shard was replaced meanwhile.
        ReadError: the shard cannot be read.
    """
    scan = scan_quietly(url, options)
    if scan.note:
        warnings.warn(scan.note, SetaStreamWarning, stacklevel=2)
    return scan.index


def scan_quietly(
    url: str,
    options: Options | None = None,
    *,
    info: ObjectInfo | None = None,
    conditions: Conditions | None = None,
) -> Scan:
    """Return what scan_shard does, the warning as a value: a worker process hands it to the one that has a terminal.

    Args:
        url: where the shard lies.
        options: what the fsspec file system is given.
        info: the version of a remote shard, where it is known from a listing.
        conditions: shared by the scans of remote shards that run at once in this process.
    """
    store = store_for(url, options)
    seen = _see_local(url, store) if is_local(url) else _see_remote(url, store, info, conditions or Conditions())
    index = ShardIndex.of(
        group(seen.scanner.members(), url),
        shard_size=seen.info.size,
        shard_version=seen.info.version,
        tar_size=seen.tar_size,
        seekable=seen.seekable,
    )
    note = None
    if seen.scanner.missing_end:
        note = (
            f"{url} has no end-of-archive blocks: it may have been cut at a member's end. Its {index.samples} samples "
            "are whole and are used; if there should be more, restore the shard."
        )
    return Scan(index, note)


def _see_local(url: str, store: Store) -> _Seen:
    file = store.open(url)
    try:
        opener = _decompressor(url, file.read(0, min(HEAD_BYTES, file.info.size)))
        if opener is not None:
            return _see_stream(url, store, file.info, opener)
        scanner = _scan_file(url, file)
        _refuse_change(url, file.info, store.info(url))
        return _Seen(scanner, file.info, file.info.size, seekable=True)
    finally:
        file.close()


def _see_remote(url: str, store: Store, info: ObjectInfo | None, conditions: Conditions) -> _Seen:
    """Every ranged request is bound to the version; what must be read in sequence is looked at again at the end."""
    info = info or store.info(url)
    opener: Opener | TarScanner
    if store.accepts_ranges(url):
        file = store.open(url, info, engine=conditions.engine)
        try:
            opener = scan_remote(url, file, conditions, partial(_decompressor, url))
        finally:
            file.close()
    else:
        with store.open_stream(url) as raw:
            head = raw.read(HEAD_BYTES)
        opener = _decompressor(url, head) or _as_it_is
    if isinstance(opener, TarScanner):
        return _Seen(opener, info, info.size, seekable=True)
    with conditions.seat():
        return _see_stream(url, store, info, opener)


def _see_stream(url: str, store: Store, info: ObjectInfo, opener: Opener) -> _Seen:
    failed = partial(_not_decompressed, url)
    # A web server may send more than it told, and go on for ever.
    most = info.size if opener is _as_it_is else most_unpacked(info.size)
    with store.open_stream(url) as raw, decompressing(failed), opener(raw) as stream:
        scanner, tar_size = _scan_stream(url, stream, most)
    _refuse_change(url, info, store.info(url))
    return _Seen(scanner, info, tar_size, seekable=False)


def _as_it_is(raw: IO[bytes]) -> IO[bytes]:
    return raw


def _scan_file(url: str, file: ShardFile) -> TarScanner:
    """Scan by position: large reads where members are small, one page per header where bodies are large."""
    scanner = TarScanner(url)
    size = file.info.size
    hops = 0
    while not scanner.finished:
        large = scanner.count >= 8 and scanner.offset >= _HOP_STRIDE * scanner.count
        hops += large
        if hops == 64:
            file.advise_scattered()
        left = max(0, size - scanner.offset)
        length = min(max(_HOP if large else _WINDOW, scanner.need), left)
        data = file.read(scanner.offset, length) if length else b""
        if length < scanner.need:
            scanner.end(size, data)
        else:
            scanner.feed(data)
    return scanner


def _scan_stream(url: str, stream: IO[bytes], most: int) -> tuple[TarScanner, int]:
    """Scan in sequence; return the scanner, and how many bytes of tar lie before the end mark, `most` at most."""
    scanner = TarScanner(url)
    # `data` holds what the stream gave from position `begin` on.
    data, begin = b"", 0
    while not scanner.finished:
        known = len(data)
        if scanner.offset > most or scanner.count > MOST_UNPACKED_MEMBERS:
            raise _too_large(url, scanner, most)
        if scanner.offset <= begin + known:
            data, begin = data[scanner.offset - begin :], scanner.offset
        else:
            begin += known + _skip(stream, scanner.offset - begin - known)
            data = b""
            if begin < scanner.offset:
                scanner.end(begin)
        more = stream.read(max(_WINDOW, scanner.need - len(data)))
        data += more
        if len(data) >= scanner.need:
            scanner.feed(data)
        elif not more:
            scanner.end(begin + len(data), data)
    return scanner, scanner.offset


def _too_large(url: str, scanner: TarScanner, most: int) -> TarError:
    return TarError(
        f"Cannot scan {url}: it is read in sequence, and holds over {most:,} bytes or {MOST_UNPACKED_MEMBERS:,} "
        f"members (at byte {scanner.offset}), more than its size lets expect. If it is yours, unpack it: that also "
        "lets a stream read only the samples it needs.",
        shard=url,
        offset=scanner.offset,
        expected=f"at most {most} bytes",
        found=scanner.offset,
    )


def _skip(stream: IO[bytes], count: int) -> int:
    """Read and drop up to `count` bytes; return how many there were."""
    skipped = 0
    while skipped < count:
        part = len(stream.read(min(_WINDOW, count - skipped)))
        if not part:
            break
        skipped += part
    return skipped


def _decompressor(url: str, head: bytes) -> Opener | None:
    """Return what opens the compressed stream of a shard, told by its first bytes; None for a plain tar."""
    opener = opener_of(head[:HEAD_BYTES])
    if opener is not None:
        return opener
    kind = next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), None)
    if kind:
        raise TarError(
            f"Cannot scan {url}: its first bytes (at byte 0) are those of {kind}. Read are plain tar files and those "
            "compressed by gzip, bzip2 or xz: unpack it, which also lets a stream read only the samples it needs.",
            shard=url,
            offset=0,
            expected="tar, gzip, bzip2 or xz",
            found=kind,
        )
    return None


def _not_decompressed(url: str, error: Exception) -> TarError:
    return TarError(
        f"Cannot scan {url}: it cannot be decompressed ({error}). The shard is truncated or damaged: restore it.",
        shard=url,
        expected="a whole compressed stream",
        found=str(error),
    )


def _refuse_change(url: str, before: ObjectInfo, now: ObjectInfo) -> None:
    if now != before:
        raise ShardChangedError(
            f"Cannot index {url}: it was replaced while it was scanned ({before.size} bytes, {before.version}; now "
            f"{now.size} bytes, {now.version}). Try again when nothing writes it.",
            shard=url,
            expected=before,
            found=now,
        )
