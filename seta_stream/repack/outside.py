"""What stands in a shard beside its samples: members that belong to none, and global PAX headers.

Takes a held shard and its index; gives what is copied to the front of a new shard. Reads what is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.grouping import split_name
from seta_stream.corpus.header import BLOCK, REGULAR, checks
from seta_stream.corpus.index import ShardIndex
from seta_stream.errors import UnsupportedError
from seta_stream.repack.holding import SPAN_BYTES
from seta_stream.repack.plan import Piece
from seta_stream.repack.units import GLOBAL, Read, Unit, units

_COMMENT: Final = "comment"
"""The one keyword that POSIX says is about nothing; `git archive` writes it."""
_ABOUT_ONE: Final = ("path", "size", "linkpath")

Stretch = tuple[int, int]
"""First byte, and the byte behind the last."""


@dataclass(frozen=True)
class Globals:
    """The global PAX headers before a shard's first sample.

    Args:
        records: what holds for all members, comments left out.
        stretches: where the headers stand.
    """

    records: Mapping[str, bytes]
    stretches: tuple[Stretch, ...]


def reach(index: ShardIndex, piece: Piece) -> Stretch:
    """Return the bytes of a shard that go with a piece.

    What stands before a sample goes with it, what stands behind the last one with that.
    """
    begin = int(index.extent_stop[piece.start - 1]) if piece.start else 0
    return begin, index.tar_size if piece.stop == index.samples else int(index.extent_stop[piece.stop - 1])


def kept_outside(read: Read, index: ShardIndex, piece: Piece, shard: str) -> list[Unit]:
    """Return the members that belong to no sample, in their order: folders, `__meta__`, names without a field.

    Global headers are among them.

    Samples that webdataset drops (their field `__bad__` is not empty) are not among them: beside a sample of the same
    key they would become a part of it.

    Raises:
        TarError: a header between two samples is garbled.
    """
    begin, end = reach(index, piece)
    samples = slice(piece.start, piece.stop)
    # gaps [samples+1]: from the end of each extent to the beginning of the next
    befores = np.concatenate([[begin], index.extent_stop[samples]]).tolist()
    afters = np.concatenate([index.extent_start[samples], [end]]).tolist()
    found: list[Unit] = []
    for before, after in zip(befores, afters, strict=True):
        if after > before:
            found += [
                unit
                for unit in units(read, before, after, shard)
                if unit.kind not in REGULAR or split_name(unit.name) is None
            ]
    return found


def front_globals(read: Read, index: ShardIndex, shard: str) -> Globals:
    """Return the global headers before the first sample.

    Args:
        read: of the bytes before it, at least.
        index: of the shard.
        shard: URL for messages.

    Raises:
        UnsupportedError: they give each member one and the same name or size.
    """
    end = int(index.extent_start[0]) if index.samples else index.tar_size
    none = np.zeros(0, np.int64)
    records: dict[str, bytes] = {}
    places: list[Stretch] = []
    for unit in _globals(read, (0, end), (none, none), shard):
        places.append((unit.start, unit.stop))
        records |= unit.records
    records.pop(_COMMENT, None)
    about_one = [name for name in _ABOUT_ONE if name in records]
    if about_one:
        raise UnsupportedError(
            f"Cannot repack {shard}: a global PAX header at byte {places[0][0]} gives every member the same "
            f"{about_one[0]}. Write the shard again, with tar or tarfile, without that header.",
            shard=shard,
            offset=places[0][0],
            expected="global headers that say nothing of single members",
            found=about_one[0],
        )
    return Globals(records, tuple(places))


def refuse_later_globals(read: Read, index: ShardIndex, piece: Piece, front: Globals, shard: str) -> None:
    """Refuse a global header behind the first sample that says something new: it would hold for other members.

    Args:
        read: of the piece's bytes.
        index, piece: what is copied.
        front: what holds from the first sample on.
        shard: URL for messages.

    Raises:
        UnsupportedError: there is one.
    """
    begin, end = reach(index, piece)
    if index.samples:
        begin = max(begin, int(index.extent_start[0]))
    bodies = (index.member_offset, index.member_offset + index.member_size)
    for unit in _globals(read, (begin, end), bodies, shard):
        new = {name for name, value in unit.records.items() if name != _COMMENT and front.records.get(name) != value}
        if new:
            raise UnsupportedError(
                f"Cannot repack {shard}: a global PAX header at byte {unit.start} sets {', '.join(sorted(new))} for "
                "all members behind it, and in another order these would be other members. Write the shard again, with "
                "tar or tarfile, so that each member has its own header.",
                shard=shard,
                offset=unit.start,
                expected="global headers before the first sample only",
                found=sorted(new),
            )


def _globals(
    read: Read, part: Stretch, bodies: tuple[NDArray[np.int64], NDArray[np.int64]], shard: str
) -> Iterator[Unit]:
    """Give each global header; nearly always there is none, which costs little."""
    candidates = _candidates(read, part)
    starts, stops = bodies
    # places [candidates]: number of the last body that begins at or before each; -1 for none
    places = np.searchsorted(starts, np.array(candidates, np.int64), side="right") - 1
    rows = zip(candidates, places.tolist(), strict=True)
    if any(place < 0 or offset >= int(stops[place]) for offset, place in rows):
        # It may still stand in the body of a member that belongs to no sample: now go by headers.
        yield from (unit for unit in units(read, *part, shard) if unit.kind == GLOBAL)


def _candidates(read: Read, part: Stretch) -> list[int]:
    """Return the offsets of the blocks that are global headers by their looks."""
    begin, end = part
    found: list[int] = []
    for at in range(begin, end, SPAN_BYTES):
        length = min(SPAN_BYTES, end - at) // BLOCK * BLOCK
        if not length:
            break
        # blocks: uint8 of shape [n, 512]
        blocks = np.frombuffer(read(at, length), np.uint8).reshape(-1, BLOCK)
        rows = np.flatnonzero((blocks[:, 156] == GLOBAL) & (blocks[:, 257] == ord("u")))
        found += [at + row * BLOCK for row in rows.tolist() if checks(blocks[row].tobytes())]
    return found
