"""One shard: scanned, compared with its indexes, looked through and, if asked for, decoded.

Takes a ShardTask, gives a ShardLook: both plain and small, since this runs in worker processes. Acts: reads the shard
and the files that may be its index; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.ids import ShardRow
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.interop import came_along
from seta_stream.corpus.places import Place, fits
from seta_stream.corpus.scanning import scan_quietly
from seta_stream.errors import CorpusError, IndexFileError, ReadError, SetaStreamError, ShardChangedError
from seta_stream.read.decode import decoder
from seta_stream.store import ObjectInfo, Options, store_for
from seta_stream.verifying.contents import (
    FieldSet,
    difference,
    empty_samples,
    field_sets,
    key_hashes,
    repeated_keys,
)
from seta_stream.verifying.decoding import undecodable
from seta_stream.verifying.findings import Finding


@dataclass(frozen=True)
class ShardTask:
    """One shard to look at.

    Args:
        number: among the shards.
        url: where it lies.
        info: its size and version as listed; None where they could not be had.
        places: files that may be its index, best first.
        target: where its index should lie, if there is none.
        options: of its file system; may hold credentials.
        decode: name of a decoder; None decodes nothing.
    """

    number: int
    url: str
    info: ObjectInfo | None
    places: tuple[Place, ...]
    target: Place
    options: Options | None = field(repr=False)
    decode: str | None

    @property
    def size(self) -> int:
        """Bytes of the shard, as far as is known."""
        return 0 if self.info is None else self.info.size


@dataclass(frozen=True, eq=False)
class ShardLook:
    """What was seen of a shard.

    Args:
        number: among the shards.
        findings: about it and its indexes.
        row: what a shard table holds of it; None where it could not be scanned.
        hashes: uint64 [samples], of its keys.
        sets: the sets of fields that its samples have.
        members: how many they have.
    """

    number: int
    findings: tuple[Finding, ...]
    row: ShardRow | None = None
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    sets: tuple[FieldSet, ...] = ()
    members: int = 0


def look(task: ShardTask) -> ShardLook:
    """Return what is wrong with a shard and with the files that may be its index; damage is a finding, never raised."""
    try:
        scan = scan_quietly(task.url, task.options, info=task.info)
    except SetaStreamError as error:
        return ShardLook(task.number, (_unscanned(task, error), *_index_files(task, None)))
    index, url = scan.index, task.url
    findings = [Finding("shard-cut", scan.note, url)] if scan.note else []
    findings += _index_files(task, index)
    hashes = key_hashes(index.keys)
    findings += repeated_keys(index, hashes, url)
    findings += empty_samples(index, url)
    if task.decode is not None:
        findings += _decoded(task, index)
    row = ShardRow(
        index.shard_size, index.shard_version, index.seekable, index.samples, index.extent_bytes, index.digest
    )
    return ShardLook(task.number, tuple(findings), row, hashes, field_sets(index, url), index.members)


def keys_at(task: ShardTask, position: int) -> tuple[str, int]:
    """Return the key and the offset of one sample, from an index that fits, else from the shard itself."""
    for place in task.places:
        stored = _stored(place)
        if isinstance(stored, ShardIndex) and task.info is not None and fits(stored, task.info):
            return stored.keys[position], int(stored.extent_start[position])
    index = scan_quietly(task.url, task.options).index
    return index.keys[position], int(index.extent_start[position])


def _unscanned(task: ShardTask, error: SetaStreamError) -> Finding:
    kind = "shard-unreadable"
    if isinstance(error, CorpusError) and not isinstance(error, ShardChangedError):
        kind = "shard-damaged"
    return Finding(kind, error.message, task.url, error.key, error.offset)


def _decoded(task: ShardTask, index: ShardIndex) -> Iterator[Finding]:
    decode: Any = decoder(task.decode)
    try:
        yield from undecodable(task.url, index, decode, task.options)
    except SetaStreamError as error:
        yield _unscanned(task, error)


def _index_files(task: ShardTask, scanned: ShardIndex | None) -> Iterator[Finding]:
    """Give findings about the files that may be the shard's index."""
    if not task.places:
        if scanned is not None:
            what = "The shard has no index, so each machine that opens the corpus scans it."
            yield Finding("index-missing", what, task.url, file=task.target.url)
        return
    found: list[tuple[Place, Finding | None]] = [(place, _index_file(place, task, scanned)) for place in task.places]
    has_good = any(finding is None for _, finding in found)
    for place, finding in found:
        # What an older version of the shard left in the user's cache folder is in nobody's way.
        if finding is not None and not (has_good and place.home == "cache" and finding.kind == "index-stale"):
            yield finding


def _index_file(place: Place, task: ShardTask, scanned: ShardIndex | None) -> Finding | None:
    stored = _stored(place)
    if isinstance(stored, str):
        return Finding("index-damaged", stored, task.url, file=place.url)
    info = task.info if scanned is None else ObjectInfo(scanned.shard_size, scanned.shard_version)
    if info is None:
        return None
    # One that was made on a disk and copied along with its shard serves: its content decides below.
    if not fits(stored, info) and (scanned is None or not came_along(stored, info)):
        same = scanned is not None and scanned.digest == stored.digest
        what = (
            f"The index is of another version of the shard ({stored.shard_size} bytes, {stored.shard_version}; now "
            f"{info.size} bytes, {info.version}){', with the same samples' if same else ''}."
        )
        return Finding("index-stale", what, task.url, file=place.url)
    told = None if scanned is None else difference(stored, scanned)
    if told is None:
        return None
    what, key, offset = told
    return Finding("index-wrong", f"The index does not agree with the shard: {what}.", task.url, key, offset, place.url)


def _stored(place: Place) -> ShardIndex | str:
    """Return the index in a file, its keys too; or why it cannot be used."""
    try:
        index = ShardIndex.from_bytes(store_for(place.url, place.options).read(place.url), place.url)
        assert len(index.keys) == index.samples  # noqa: S101  (unpacks the keys, or raises)
    except (IndexFileError, ReadError) as error:
        return error.message
    return index
