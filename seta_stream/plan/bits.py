"""Masks as bits: eight samples to a byte, in order of ids, the first in the highest bit, as numpy.packbits has them.

Takes and gives packed arrays, and works on a piece at a time: a billion samples are 125 MB of bits, and would be 1 GB
of bytes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import PlanError

Int64s = NDArray[np.int64]
Bits = NDArray[np.uint8]
Packed = bytes | bytearray | memoryview | Bits

_PIECE: Final = 1 << 18
"""Bytes that are worked on at once: they and what is made of them stay in the processor's cache."""

_ONES: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
"""The ones in each byte: uint8 [256]. (numpy.bitwise_count came with numpy 2.)"""


def join_bits(parts: Sequence[Packed], begins: Int64s) -> Bits:
    """Return one mask made of those of several owners: uint8 [ceil(begins[-1] / 8)].

    Args:
        parts: of each owner, its mask packed from bit 0; bits after its last sample are 0.
        begins: int64 [owners + 1], the first id of each owner, ascending from 0, and the number of all samples.

    Raises:
        PlanError: a part has not as many bytes as its owner's samples need.
    """
    whole = np.zeros(-(-int(begins[-1]) // 8), np.uint8)
    for owner, part in enumerate(parts):
        begin, stop = int(begins[owner]), int(begins[owner + 1])
        bits = np.frombuffer(part, np.uint8)
        if len(bits) != -(-(stop - begin) // 8):
            raise PlanError(
                f"Process {owner} sent a mask of {len(bits)} bytes, and its {stop - begin} samples need "
                f"{-(-(stop - begin) // 8)}: the processes do not read the same corpus.",
                expected=-(-(stop - begin) // 8),
                found=len(bits),
            )
        _lay(whole, bits, begin)
    return whole


def _lay(whole: Bits, bits: Bits, begin: int) -> None:
    """Set the bits of a mask from bit `begin` on, where `whole` has zeros."""
    first, shift = divmod(begin, 8)
    for start in range(0, len(bits), _PIECE):
        piece = bits[start : start + _PIECE]
        at = first + start
        whole[at : at + len(piece)] |= piece >> shift
        if shift:
            # What is shifted out of a byte opens the next one; after the last byte of all there are zeros only.
            rest = whole[at + 1 : at + 1 + len(piece)]
            rest |= piece[: len(rest)] << (8 - shift)


def count_ones(bits: Bits, bounds: Int64s) -> Int64s:
    """Return how many ones lie between neighbouring bounds: int64 [bounds − 1].

    Args:
        bits: packed.
        bounds: int64, ascending numbers of bits.
    """
    counts: Int64s = np.diff(_ones_before(bits, bounds))
    return counts


def _ones_before(bits: Bits, bounds: Int64s) -> Int64s:
    """Return the ones before each bit of `bounds`, counted from the byte of the first: int64 [bounds]."""
    last = len(bits) - 1
    # axes: bound; whole bytes before it, and the ones among the bits of its own byte that come before it
    whole, rest = bounds // 8, (bounds % 8).astype(np.uint8)
    own = np.where(rest > 0, bits[np.minimum(whole, last)] >> ((8 - rest) % 8), 0) if len(bits) else rest
    before: Int64s = _whole_before(bits, whole) + _ONES[own]
    return before


def _whole_before(bits: Bits, bounds: Int64s) -> Int64s:
    """Return the ones in the bytes bounds[0] … bound − 1, for each bound: int64 [bounds]."""
    found = np.zeros(len(bounds), np.int64)
    before = 0
    for start, piece in _pieces(bits, int(bounds[0]), int(bounds[-1])):
        first, last = np.searchsorted(bounds, (start, start + len(piece)), side="left").tolist()
        # axes: stretch of bytes between the piece's begin, the bounds inside it, and its end; none is empty
        inside, back = np.unique(np.append(bounds[first:last] - start, 0), return_inverse=True)
        sums = np.add.reduceat(_ONES[piece], inside, dtype=np.int64)
        ends = before + np.cumsum(sums)
        found[first:last] = (ends - sums)[back[:-1]]
        before = int(ends[-1])
    found[bounds == bounds[-1]] = before
    return found


def _pieces(bits: Bits, begin: int, stop: int) -> Iterator[tuple[int, Bits]]:
    for start in range(begin, stop, _PIECE):
        yield start, bits[start : min(start + _PIECE, stop)]


def count_stretches(bits: Bits, breaks: Int64s) -> int:
    """Return how many stretches of neighbouring ones there are, none of them across a break.

    Args:
        bits: packed; those after the last sample are 0.
        breaks: int64, ascending numbers of bits, each the first after a break.
    """
    begins, before = 0, np.uint8(0)
    for _, piece in _pieces(bits, 0, len(bits)):
        # axes: byte; each bit beside the one before it, the lowest of a byte before the highest of the next
        carried = np.empty_like(piece)
        carried[0], carried[1:] = before, piece[:-1]
        begins += int(_ONES[piece & ~((piece >> 1) | (carried << 7))].sum(dtype=np.int64))
        before = piece[-1]
    inner = breaks[breaks > 0]
    return begins + int(np.count_nonzero(_bit(bits, inner) & _bit(bits, inner - 1)))


def _bit(bits: Bits, numbers: Int64s) -> Bits:
    """Return single bits: uint8 [numbers], 0 or 1; 0 after the end."""
    inside = numbers // 8 < len(bits)
    found = np.zeros(len(numbers), np.uint8)
    some = numbers[inside]
    found[inside] = (bits[some // 8] >> (7 - some % 8).astype(np.uint8)) & 1
    return found
