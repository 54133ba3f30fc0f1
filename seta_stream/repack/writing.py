"""One task: reads its shards of the corpus, and writes, verifies and publishes new shards one after another.

Takes a Task; gives what each new shard cost. Acts: reads shards, writes shards, indexes and records. It runs in worker
processes too: a Task is plain and small (indexes as bytes, one loss per sample), and so is what comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.grouping import group
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.places import beside
from seta_stream.errors import CorpusError, UnsupportedError
from seta_stream.repack.drafts import Draft, draft_for, write_file
from seta_stream.repack.holder import Holder
from seta_stream.repack.holding import Costs, Held, Shard, read_at, scan
from seta_stream.repack.laid import Laid, difference, end_blocks, lay, stretches
from seta_stream.repack.outside import Globals, front_globals, kept_outside, reach, refuse_later_globals
from seta_stream.repack.plan import Order, Piece, Pieces, order_of
from seta_stream.repack.record import Record
from seta_stream.repack.units import GLOBAL
from seta_stream.store import Options, is_local

_CHUNK: Final = 1 << 20
"""Bytes per write: larger ones cost fresh pages each time, which took a third longer here."""


@dataclass(frozen=True)
class NewShard:
    """One shard to write.

    Args:
        number: among all new shards.
        url: where it goes.
        record_url: where its record goes.
        pieces: what it holds; shards are numbered as in the corpus.
        losses: float32 [samples], in corpus order, for the order by loss.
        fingerprint: of what decides its content.
        is_there: whether something of this name was there when the command began.
    """

    number: int
    url: str
    record_url: str
    pieces: Pieces
    losses: NDArray[np.float32] | None
    fingerprint: bytes
    is_there: bool


@dataclass(frozen=True)
class Task:
    """What one process does without asking.

    Args:
        shards: of the corpus, by number.
        indexes: their index files, by number.
        news: what is to be written, in corpus order.
        order: by what the samples are ordered.
        memory_bytes: what may be held in memory; what is more is held in temporary files.
        to_options: of the file system that is written to; may hold credentials.
    """

    shards: dict[int, Shard]
    indexes: dict[int, bytes]
    news: tuple[NewShard, ...]
    order: Order
    memory_bytes: int
    to_options: Options | None = field(repr=False)


@dataclass(frozen=True)
class Written:
    """A new shard that is finished.

    Args:
        number: among all new shards.
        samples, members: that it holds.
        extent_bytes: sum of its samples' extents.
        bytes_read: from the corpus, and read back from a bucket.
        bytes_written: of the shard, its index and its record.
        requests: to remote stores.
    """

    number: int
    samples: int
    members: int
    extent_bytes: int
    bytes_read: int
    bytes_written: int
    requests: int


@dataclass(frozen=True)
class _Source:
    """A piece that is held."""

    held: Held
    shard: Shard
    index: ShardIndex
    piece: Piece
    front: Globals
    front_bytes: bytes


Content = list[bytes | tuple[Held, int, int]]
"""What a shard consists of: bytes, and stretches of what is held (first byte, byte behind the last)."""


def write_task(task: Task) -> list[Written]:
    """Write the new shards of a task; what is written stays, whatever happens to a later one.

    Raises:
        ShardChangedError: a shard of the corpus was replaced meanwhile.
        CorpusError: what was written is not what was read, or a shard cannot be repacked.
        ReadError: a shard cannot be read, or a new one cannot be written.
    """
    indexes = {number: ShardIndex.from_bytes(data) for number, data in task.indexes.items()}
    last = {piece.shard: new.number for new in task.news for piece in new.pieces}
    with Holder(task.memory_bytes, last) as holder:
        return [_write(task, new, indexes, holder) for new in task.news]


def _write(task: Task, new: NewShard, indexes: dict[int, ShardIndex], holder: Holder) -> Written:
    costs = Costs()
    sources = _hold_all(task, new, indexes, holder, costs)
    laid = lay([source.index for source in sources], new.pieces)
    order = order_of(task.order, new.losses, laid.keys, new.url)
    wanted = laid.ordered(order)
    content = _front(sources, new.url)
    base = _size(content)
    content += [(sources[piece].held, begin, end) for piece, begin, end in stretches(wanted)]
    content.append(end_blocks(base + wanted.extent_bytes))
    with draft_for(new.url, _size(content), task.to_options, is_there=new.is_there) as draft:
        for chunk in chunks(content):
            draft.write(chunk)
        index = verified(new.url, draft, wanted, base, content)
        pieces = tuple((source.index.digest, source.piece.start, source.piece.stop) for source in sources)
        del sources, content
        holder.release(new.number)  # which looks at the shards again: only now the new one may be seen
        index = replace(index, shard_version=draft.publish(costs).version)
    return _record(task, new, index, pieces, order, costs)


def _hold_all(task: Task, new: NewShard, indexes: dict[int, ShardIndex], holder: Holder, costs: Costs) -> list[_Source]:
    """Hold the pieces; those of one shard together, with what lies between: one long read costs less than many."""
    sources: list[_Source] = []
    for shard, group_of in groupby(new.pieces, key=lambda piece: piece.shard):
        pieces = list(group_of)
        stretch = Piece(shard, pieces[0].start, pieces[-1].stop)
        held = _hold(task.shards[shard], indexes[shard], stretch, holder, costs)
        sources += [replace(held, piece=piece) for piece in pieces]
    return sources


def _hold(shard: Shard, index: ShardIndex, piece: Piece, holder: Holder, costs: Costs) -> _Source:
    """Hold a piece, and refuse what cannot be copied member by member."""
    begin, end = reach(index, piece)
    held = holder.part(shard, begin, end, costs) if shard.seekable else holder.whole(piece.shard, shard, costs)
    before = held
    if shard.seekable and piece.start and index.extent_start[0]:
        before = holder.part(shard, 0, int(index.extent_start[0]), costs)
    has_front = bool(not piece.start or index.extent_start[0])
    front = front_globals(before.read, index, shard.url) if has_front else Globals({}, ())
    refuse_later_globals(held.read, index, piece, front, shard.url)
    raw = b"".join(bytes(before.read(start, stop - start)) for start, stop in front.stretches)
    return _Source(held, shard, index, piece, front, raw)


def _front(sources: Sequence[_Source], url: str) -> Content:
    """Return what stands before the samples: global headers, and the members that belong to no sample.

    Raises:
        UnsupportedError: shards that are joined have different global headers.
    """
    first = sources[0]
    for source in sources[1:]:
        if source.front.records != first.front.records:
            raise UnsupportedError(
                f"Cannot repack {source.shard.url} and {first.shard.url} into one shard ({url}): their global PAX "
                "headers differ, and in one shard the last would hold for all members. Repack each by itself, without "
                "--shard-bytes and --shard-samples.",
                shard=source.shard.url,
                expected=dict(first.front.records),
                found=dict(source.front.records),
            )
    # A piece from the middle of a shard does not have the shard's own headers among what is copied.
    content: Content = [first.front_bytes] if first.piece.start and first.front.records else []
    found = [
        (source.held, unit)
        for source in sources
        for unit in kept_outside(source.held.read, source.index, source.piece, source.shard.url)
    ]
    if not any(source.piece.stop for source in sources):
        # tarfile reads no tar that ends with a global header, which is what dropped samples may leave.
        while found and found[-1][1].kind == GLOBAL:
            found.pop()
    return content + [(held, unit.start, unit.stop) for held, unit in found]


def chunks(content: Content) -> Iterator[bytes]:
    """Give the bytes of a content, about a megabyte at a time."""
    parts: list[bytes | memoryview] = []
    size = 0
    for item in content:
        for part in _parts(item):
            parts.append(part)
            size += len(part)
            if size >= _CHUNK:
                yield b"".join(parts)
                parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _parts(item: bytes | tuple[Held, int, int]) -> Iterator[bytes | memoryview]:
    if isinstance(item, bytes):
        yield item
        return
    held, begin, end = item
    for at in range(begin, end, _CHUNK):
        yield held.read(at, min(_CHUNK, end - at))


def _size(content: Content) -> int:
    return sum(len(item) if isinstance(item, bytes) else item[2] - item[1] for item in content)


def verified(url: str, draft: Draft, wanted: Laid, base: int, content: Content) -> ShardIndex:
    """Read a draft again, and return its index, which holds what it should; its version is still open.

    Raises:
        CorpusError: a header or a byte of it is not as it should be.
    """
    size = _size(content)
    scanner = scan(partial(read_at, draft.fd), 0, size, url)
    index = ShardIndex.of(group(scanner.members(), url), shard_size=size, shard_version="")
    wrong = difference(wanted, base, index)
    at = 0
    for chunk in chunks(content) if wrong is None else ():
        if chunk != read_at(draft.fd, at, len(chunk)):
            wrong = f"bytes {at} … {at + len(chunk) - 1} are not those that were written"
            break
        at += len(chunk)
    if wrong is not None:
        raise CorpusError(
            f"Cannot repack into {url}: what was written is not what was read: {wrong}. The shard was removed. Run the "
            "command again; if it happens again, the disk or the memory is at fault, or the corpus's index: make that "
            "anew by `seta-stream index --force`.",
            shard=url,
            expected="the samples of the corpus, byte for byte",
            found=wrong,
        )
    return index


def _record(
    task: Task,
    new: NewShard,
    index: ShardIndex,
    pieces: tuple[tuple[bytes, int, int], ...],
    order: NDArray[np.int64],
    costs: Costs,
) -> Written:
    """Write the index of a new shard beside it, and then the record that says that it is finished."""
    written = index.shard_size + write_file(beside(new.url), index.to_bytes(), task.to_options)
    record = Record(
        fingerprint=new.fingerprint,
        digest=index.digest,
        size=index.shard_size,
        version=index.shard_version,
        samples=index.samples,
        members=index.members,
        extent_bytes=index.extent_bytes,
        pieces=pieces,
        order=order,
    )
    written += write_file(new.record_url, record.to_bytes(), task.to_options)
    return Written(
        number=new.number,
        samples=index.samples,
        members=index.members,
        extent_bytes=index.extent_bytes,
        bytes_read=costs.bytes,
        bytes_written=written,
        requests=costs.requests + 2 * (not is_local(new.url)),
    )
