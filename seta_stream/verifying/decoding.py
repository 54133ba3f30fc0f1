"""Every sample of one shard, decoded: which cannot be.

Takes a shard and its index; gives findings. Acts: reads the shard, in order, a window at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import IO, Final

from seta_stream.corpus.compressed import HEAD_BYTES, decompressing, opener_of
from seta_stream.corpus.index import ShardIndex
from seta_stream.errors import DecodeError, SetaStreamError, TarError
from seta_stream.read.decode import FieldDecode, decode_sample
from seta_stream.store import ObjectInfo, Options, store_for
from seta_stream.verifying.findings import Finding

NAMED: Final = 20
"""Samples of one shard that are named, each with why it cannot be decoded."""
_WINDOW: Final = 8 << 20
_SKIP: Final = 1 << 20


def undecodable(url: str, index: ShardIndex, decode: FieldDecode, options: Options | None) -> Iterator[Finding]:
    """Give a finding for each sample that cannot be decoded; the first are named, the rest counted.

    Args:
        url: the shard.
        index: of the shard as it is.
        decode: (field, bytes) → value.
        options: of its file system.

    Raises:
        ReadError: the shard cannot be read.
        ShardChangedError: it was replaced meanwhile.
    """
    failed = 0
    for sample, data in _samples(url, index, options):
        fields = _fields(index, sample, data)
        try:
            decode_sample({"__key__": index.keys[sample], "__url__": url, **fields}, decode)
        except DecodeError as error:
            failed += 1
            if failed <= NAMED:
                why = error.message.removesuffix(" Mend the sample, or use on_error='skip'.")
                yield Finding("decode-failed", why, url, index.keys[sample], int(index.extent_start[sample]))
    if failed > NAMED:
        what = f"{failed - NAMED} more samples of the shard cannot be decoded."
        yield Finding("decode-failed", what, url, count=failed - NAMED)


def _fields(index: ShardIndex, sample: int, data: bytes | memoryview) -> dict[str, bytes]:
    """Return a sample's fields from the bytes of its extent."""
    start = int(index.extent_start[sample])
    members = range(int(index.first_member[sample]), int(index.first_member[sample + 1]))
    fields = {}
    for member in members:
        at = int(index.member_offset[member]) - start
        fields[index.fields[index.member_field[member]]] = bytes(data[at : at + int(index.member_size[member])])
    return fields


def _samples(url: str, index: ShardIndex, options: Options | None) -> Iterator[tuple[int, bytes | memoryview]]:
    """Give each sample's number and the bytes of its extent."""
    if index.seekable:
        yield from _by_range(url, index, options)
    else:
        yield from _in_sequence(url, index, options)


def _by_range(url: str, index: ShardIndex, options: Options | None) -> Iterator[tuple[int, bytes | memoryview]]:
    file = store_for(url, options).open(url, ObjectInfo(index.shard_size, index.shard_version))
    starts, stops = index.extent_start.tolist(), index.extent_stop.tolist()
    try:
        first = 0
        while first < len(starts):
            stop = first + 1
            while stop < len(starts) and stops[stop] - starts[first] <= _WINDOW:
                stop += 1
            window = memoryview(file.read(starts[first], stops[stop - 1] - starts[first]))
            for sample in range(first, stop):
                yield sample, window[starts[sample] - starts[first] : stops[sample] - starts[first]]
            first = stop
        file.check()
    finally:
        file.close()


def _in_sequence(url: str, index: ShardIndex, options: Options | None) -> Iterator[tuple[int, bytes | memoryview]]:
    store = store_for(url, options)
    with store.open_stream(url) as raw:
        opener = opener_of(raw.read(HEAD_BYTES))
    at = 0
    failed = partial(_not_decompressed, url)
    # Not every stream can go back to its beginning.
    with store.open_stream(url) as raw, decompressing(failed), opener(raw) if opener else raw as stream:
        for sample in range(index.samples):
            start, stop = int(index.extent_start[sample]), int(index.extent_stop[sample])
            _skip(stream, start - at)
            data = stream.read(stop - start)
            if len(data) < stop - start:
                raise _not_decompressed(url, EOFError(f"it ends inside sample {index.keys[sample]!r}"))
            yield sample, data
            at = stop


def _skip(stream: IO[bytes], count: int) -> None:
    while count and (part := stream.read(min(_SKIP, count))):
        count -= len(part)


def _not_decompressed(url: str, error: Exception) -> SetaStreamError:
    return TarError(
        f"Cannot decode {url}: it cannot be decompressed ({error}). The shard is truncated or damaged: restore it.",
        shard=url,
        found=str(error),
    )
