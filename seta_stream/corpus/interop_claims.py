"""What another tool's index says of a shard, and whether it can be so at all.

Takes numbers and names as they came out of a foreign file; gives Claims whose members lie in order, apart, on whole
blocks and inside the shard, or raises IndexFileError. Pure. Nothing here is trusted yet: interop_checking.py compares
the claims with the shard's own headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.header import BLOCK
from seta_stream.corpus.index import ShardIndex
from seta_stream.corpus.layout import padded
from seta_stream.errors import IndexFileError, UnsupportedError

Offsets = NDArray[np.int64]

_SLACK: Final = 64 << 10
_LARGEST_FILE: Final = 512 << 20
"""No index file of one shard is read that is larger; a million members take about 100 MB as JSON."""


@dataclass(frozen=True, eq=False)
class Listed:
    """The members that an index lists, in shard order.

    Args:
        data: int64 [members], offset of each body, ascending.
        size: int64 [members], bytes of each body.
        names: [members] raw names; None where the format does not hold them.
        exts: [members] raw extensions; None where there are names, or neither.
    """

    data: Offsets
    size: Offsets
    names: tuple[bytes, ...] | None = None
    exts: tuple[bytes, ...] | None = None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def stops(self) -> Offsets:
        """int64 [members], the padded end of each body."""
        return self.data + padded(self.size)

    @property
    def befores(self) -> Offsets:
        """int64 [members], the padded end of what lies before each: there its headers begin, or those of others."""
        return np.concatenate([[0], self.stops])[: len(self)].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Claims:
    """What a foreign index says; `None` is what its format does not hold.

    Args:
        source: URL of the index, for messages.
        kind: "energon", "dali", "webshart", "ratarmount" or "seta".
        starts: int64 [samples], first header of each sample, extension headers included.
        end: where the members end.
        members: the members it lists.
        are_folded: whether the names' fields were lower-cased.
        are_exact: whether the offsets are right where the index is; DALI's tool errs behind extension headers.
    """

    source: str
    kind: str
    starts: Offsets | None = None
    end: int | None = None
    members: Listed | None = None
    are_folded: bool = False
    are_exact: bool = True


def refusal(
    source: str,
    why: str,
    *,
    shard: str | None = None,
    key: str | None = None,
    offset: int | None = None,
    expected: object = None,
    found: object = None,
) -> IndexFileError:
    """Return the error of a foreign index that is damaged, hostile or of another shard."""
    return IndexFileError(
        f"Cannot use {source}: {why}. It is damaged, or of another version of the shard: make it anew with the tool "
        "that wrote it, or remove it and run `seta-stream index`.",
        shard=shard,
        key=key,
        offset=offset,
        expected=expected,
        found=found,
    )


def largest_file(shard_size: int) -> int:
    """Return how many bytes an index of a shard may have: names stand in the shard too, so it is never much larger."""
    return min(_LARGEST_FILE, _SLACK + 4 * shard_size)


def most_members(shard_size: int) -> int:
    """Return how many members fit into a shard: each has a header of one block."""
    return shard_size // BLOCK


def claimed_starts(source: str, kind: str, offsets: Offsets, shard_size: int) -> Claims:
    """Return claims of samples' first headers, of which the last number is the members' end.

    Args:
        source, kind: as in Claims.
        offsets: uint64 or int64 [samples+1], one at least.
        shard_size: bytes of the shard.

    Raises:
        IndexFileError: an offset lies outside the shard, not on a whole block, or not behind the one before.
    """
    if int(offsets.max()) > shard_size or int(offsets.min()) < 0:
        worst = int(offsets.max()) if int(offsets.max()) > shard_size else int(offsets.min())
        raise refusal(
            source, f"it points at byte {worst} of a shard of {shard_size}", offset=worst, expected=shard_size
        )
    numbers = offsets.astype(np.int64)
    _refuse_cut_blocks(source, numbers)
    # [samples]: bytes from one sample to the next; a sample has at least a header.
    if len(numbers) > 1 and int(np.diff(numbers).min()) < BLOCK:
        row = int(np.argmin(np.diff(numbers)))
        raise refusal(
            source,
            f"its sample {row + 1} begins at byte {numbers[row + 1]}, not behind sample {row} at byte {numbers[row]}",
            offset=int(numbers[row + 1]),
            expected=f"> {numbers[row]}",
            found=int(numbers[row + 1]),
        )
    return Claims(source=source, kind=kind, starts=numbers[:-1], end=int(numbers[-1]))


def listed(
    source: str,
    *,
    data: Sequence[int] | Offsets,
    size: Sequence[int] | Offsets,
    names: Sequence[bytes] | None,
    exts: Sequence[bytes] | None = None,
    shard_size: int,
    are_exact: bool = True,
) -> Listed:
    """Return members sorted by offset.

    Args:
        source: URL of the index, for messages.
        data, size, names, exts: [members], in any order; the numbers fit 63 bits.
        shard_size: bytes of the shard.
        are_exact: as in Claims.

    Raises:
        IndexFileError: two members overlap, one lies outside the shard or not on whole blocks, or a name holds a NUL.
    """
    at, length = np.asarray(data, np.int64), np.asarray(size, np.int64)
    room = most_members(shard_size)
    if len(at) > room:
        raise refusal(
            source,
            f"it lists {len(at)} members, and a shard of {shard_size} bytes has room for {room}",
            expected=room,
            found=len(at),
        )
    order = np.argsort(at, kind="stable")
    rows = order.tolist()
    members = Listed(
        at[order],
        length[order],
        None if names is None else tuple(names[row] for row in rows),
        None if exts is None else tuple(exts[row] for row in rows),
    )
    if any(b"\0" in name or not name for name in members.names or ()):
        raise refusal(source, "it lists a member whose name is empty or holds a NUL, which no tar does")
    _refuse_cut_blocks(source, members.data)
    _refuse_outside(source, members, shard_size)
    _refuse_overlaps(source, members, are_exact=are_exact)
    return members


def _refuse_cut_blocks(source: str, offsets: Offsets) -> None:
    cut = np.flatnonzero(offsets % BLOCK)
    if len(cut):
        raise refusal(
            source,
            f"its offset {offsets[cut[0]]} is no multiple of {BLOCK}, as everything in a tar is",
            offset=int(offsets[cut[0]]),
            expected=f"a multiple of {BLOCK}",
            found=int(offsets[cut[0]]),
        )


def _refuse_outside(source: str, members: Listed, shard_size: int) -> None:
    data, size = members.data, members.size
    # Compared without a sum, which could wrap around.
    outside = np.flatnonzero((data < BLOCK) | (size < 0) | (data > shard_size) | (size > shard_size - data))
    if len(outside):
        row = outside[0]
        raise refusal(
            source,
            f"it puts a member of {size[row]} bytes at byte {data[row]} of a shard of {shard_size} bytes",
            offset=int(data[row]),
            expected=f"{BLOCK} … {shard_size}",
            found=int(data[row]),
        )


def _refuse_overlaps(source: str, members: Listed, *, are_exact: bool) -> None:
    """Refuse members without room for a header between them; where offsets may err, bodies at one place."""
    room = members.data - members.befores if are_exact else np.diff(members.data, prepend=0)
    lacking = np.flatnonzero(room < BLOCK)
    if len(lacking):
        row = lacking[0]
        raise refusal(
            source,
            f"its member at byte {members.data[row]} has no room for a header behind the one before, which ends at "
            f"byte {members.befores[row]}",
            offset=int(members.data[row]),
            expected=f">= {members.befores[row] + BLOCK}",
            found=int(members.data[row]),
        )


def claims_of(index: ShardIndex, source: str, shard: str) -> Claims:
    """Return what an index of ours says, so that it is compared with the shard like any other.

    Raises:
        UnsupportedError: the shard is compressed.
        IndexFileError: the index's keys do not decompress.
    """
    if not index.seekable:
        raise UnsupportedError(
            f"Cannot convert the index of {shard}: the shard is compressed, so no tool can read a sample of it by "
            "range. Unpack it and index it again.",
            shard=shard,
            expected="a plain tar",
            found="a compressed one",
        )
    names: tuple[bytes, ...] | None = None
    if "__bad__" not in index.fields:  # else samples were dropped, which other tools keep: all headers are read
        keys = [key.encode("utf-8", "surrogateescape") for key in index.keys]
        fields = [b"." + field.encode("utf-8", "surrogateescape") for field in index.fields]
        # sample [members]: whose key each member has
        sample = np.repeat(np.arange(index.samples), np.diff(index.first_member)).tolist()
        pairs = zip(sample, index.member_field.tolist(), strict=True)
        names = tuple(keys[owner] + fields[field] for owner, field in pairs)
    return Claims(
        source=source,
        kind="seta",
        starts=index.extent_start,
        members=Listed(index.member_offset, index.member_size, names),
        are_folded=True,
    )
