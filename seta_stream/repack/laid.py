"""What a new shard must hold: the samples of its pieces, and the same samples in their new order. Pure.

Takes indexes and pieces; gives arrays to copy by, and compares them with the index of what was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.header import BLOCK
from seta_stream.corpus.index import ShardIndex
from seta_stream.repack.plan import Piece

RECORD: Final = 10_240
"""Tars end on a multiple of this, as tar and tarfile write them."""


@dataclass(frozen=True, eq=False)
class Laid:
    """Samples and where their bytes lie.

    Args:
        keys: one per sample.
        piece: int64 [samples], number of the piece that holds each.
        begin: int64 [samples], first byte of the extent in its shard.
        end: int64 [samples], byte behind it.
        first_member: int64 [samples+1].
        field: int64 [members], number in `fields`.
        offset: int64 [members], of the body from the beginning of its sample's extent.
        size: int64 [members].
        fields: distinct field names.
    """

    keys: list[str]
    piece: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    first_member: NDArray[np.int64]
    field: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    fields: tuple[str, ...]

    @property
    def extent_bytes(self) -> int:
        """Sum of the extents."""
        return int((self.end - self.begin).sum())

    def ordered(self, order: NDArray[np.int64]) -> Laid:
        """Return the samples in another order: int64 [samples], positions in this one."""
        counts = np.diff(self.first_member)[order]
        first_member = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # rows [members]: for each member of the new order, where it stands in this one
        rows = np.repeat(self.first_member[:-1][order] - first_member[:-1], counts) + np.arange(first_member[-1])
        return Laid(
            keys=[self.keys[sample] for sample in order.tolist()],
            piece=self.piece[order],
            begin=self.begin[order],
            end=self.end[order],
            first_member=first_member,
            field=self.field[rows],
            offset=self.offset[rows],
            size=self.size[rows],
            fields=self.fields,
        )


def lay(indexes: Sequence[ShardIndex], pieces: Sequence[Piece]) -> Laid:
    """Return the samples of pieces, in corpus order.

    Args:
        indexes: of the pieces' shards, one each.
        pieces: what is taken of them.
    """
    number: dict[str, int] = {}
    parts: list[list[NDArray[Any]]] = [[] for _ in range(7)]
    keys: list[str] = []
    for place, (index, piece) in enumerate(zip(indexes, pieces, strict=True)):
        samples = slice(piece.start, piece.stop)
        members = slice(int(index.first_member[piece.start]), int(index.first_member[piece.stop]))
        counts = np.diff(index.first_member[piece.start : piece.stop + 1])
        own = np.array([number.setdefault(field, len(number)) for field in index.fields], np.int64)
        keys += index.keys[samples]
        columns = (
            np.full(piece.stop - piece.start, place, np.int64),
            index.extent_start[samples],
            index.extent_stop[samples],
            counts,
            own[index.member_field[members]],
            index.member_offset[members] - np.repeat(index.extent_start[samples], counts),
            index.member_size[members],
        )
        for part, column in zip(parts, columns, strict=True):
            part.append(column)
    piece_of, begin, end, counts, field, offset, size = (np.concatenate(part).astype(np.int64) for part in parts)
    first_member = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Laid(keys, piece_of, begin, end, first_member, field, offset, size, tuple(number))


def stretches(laid: Laid) -> list[tuple[int, int, int]]:
    """Return what to copy: (piece, first byte, byte behind), neighbours that are neighbours in their shard in one."""
    if not len(laid.begin):
        return []
    # bool [samples]: does a new stretch begin here?
    begins = np.ones(len(laid.begin), np.bool_)
    begins[1:] = (laid.begin[1:] != laid.end[:-1]) | (laid.piece[1:] != laid.piece[:-1])
    firsts = np.flatnonzero(begins)
    lasts = np.append(firsts[1:], len(begins)) - 1
    columns = (laid.piece[firsts].tolist(), laid.begin[firsts].tolist(), laid.end[lasts].tolist())
    return list(zip(*columns, strict=True))


def end_blocks(size: int) -> bytes:
    """Return what ends a tar of `size` bytes so far: two zero blocks, and zeros up to a whole record."""
    return b"\0" * (2 * BLOCK + -(size + 2 * BLOCK) % RECORD)


def difference(wanted: Laid, base: int, found: ShardIndex) -> str | None:
    """Say what differs between the samples that should stand in a shard and its index; None where nothing does.

    Args:
        wanted: the samples in the shard's order.
        base: bytes before the first of them.
        found: the index of the shard as it was scanned.
    """
    if found.samples != len(wanted.keys):
        return f"{len(wanted.keys)} samples were written and {found.samples} are found"
    if found.keys != wanted.keys:
        place = next(place for place, key in enumerate(wanted.keys) if key != found.keys[place])
        return f"sample {place} should be {wanted.keys[place]!r} and is {found.keys[place]!r}"
    lengths = wanted.end - wanted.begin
    starts = base + np.cumsum(lengths) - lengths
    # A field that is not among the wanted ones gets -1, which equals none.
    own = np.array([wanted.fields.index(f) if f in wanted.fields else -1 for f in found.fields], np.int64)
    same = (
        ("the number of members", wanted.first_member[1:], found.first_member[1:], None),
        ("a field", wanted.field, own[found.member_field], wanted.first_member),
        ("a member's size", wanted.size, found.member_size, wanted.first_member),
        ("the first byte", starts, found.extent_start, None),
        ("the last byte", starts + lengths, found.extent_stop, None),
        ("a member's place", np.repeat(starts, np.diff(wanted.first_member)) + wanted.offset, found.member_offset,
         wanted.first_member),
    )  # fmt: skip
    for what, expected, is_there, members in same:
        wrong = np.flatnonzero(expected != is_there)
        if len(wrong):
            place = int(wrong[0]) if members is None else int(np.searchsorted(members, wrong[0], side="right")) - 1
            return (
                f"{what} of sample {wanted.keys[place]!r} should be {int(expected[wrong[0]])} and is "
                f"{int(is_there[wrong[0]])}"
            )
    return None
