"""Where members and samples lie, from the few numbers that an index file keeps, and back.

Takes and gives arrays. Pure; what comes out of a file is not trusted.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.header import BLOCK
from seta_stream.corpus.sealed import malformed

UNPACKED_FREE: Final = 1 << 30
UNPACKED_PER_BYTE: Final = 200
"""A compressed shard may hold a GiB in any case, and so many times its size: captions in their padded headers take a
thirtieth, and a few bytes of some kinds of streams unpack to a thousand or a million times as many."""
MOST_UNPACKED_MEMBERS: Final = 1 << 24


def most_unpacked(size: int) -> int:
    """Return how many bytes a compressed shard of some size may hold."""
    return max(UNPACKED_FREE, UNPACKED_PER_BYTE * size)


def members_of(
    shapes: list[Any], shape: NDArray[np.int64], members: int, fields: int, source: str
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Return first_member and member_field from each sample's shape.

    Args:
        shapes: lists of field numbers, as they came out of a file.
        shape: int64 [samples], number in `shapes`.
        members: how many there must be.
        fields: how many fields there are.
        source: what is being read, for messages.

    Raises:
        IndexFileError: the shapes are malformed, or do not add up to `members`.
    """
    if not all(
        type(numbers) is list and numbers and all(type(n) is int and 0 <= n < fields for n in numbers)
        for numbers in shapes
    ) or (len(shape) and int(shape.max()) >= len(shapes)):
        raise malformed("the shapes of samples", source)
    # lengths [shapes] and starts [shapes] in the shapes laid end to end
    lengths = np.array([len(numbers) for numbers in shapes], np.int64)
    laid = np.array([number for numbers in shapes for number in numbers], np.uint16)
    counts = lengths[shape]
    # As floats, because crafted counts could wrap around; the exact sum is compared once it is known to be small.
    if float(counts.sum(dtype=np.float64)) != members:
        raise malformed("the number of members", source)
    first_member = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1][shape] - first_member[:-1]
    return first_member, laid[np.repeat(starts, counts) + np.arange(members)]


def places_of(
    first_member: NDArray[np.int64],
    lead: NDArray[np.int64],
    gap: NDArray[np.int64],
    size: NDArray[np.int64],
    tar_size: int,
    source: str,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return member_offset, extent_start and extent_stop; everything follows from sums of what lies before it.

    Args:
        first_member: int64 [samples+1].
        lead: int64 [samples], blocks between the extent before and this one.
        gap: int64 [members], blocks between what lies before a body and the body.
        size: int64 [members], bytes of body.
        tar_size: bytes that there are.
        source: what is being read, for messages.

    Raises:
        IndexFileError: a member has no room for a header, or lies beyond `tar_size`.
    """
    bodies = padded(size) // BLOCK
    total = sum(float(part.sum(dtype=np.float64)) for part in (bodies, gap, lead))
    if total > tar_size // BLOCK or (len(gap) and int(gap.min()) < 1):
        raise malformed("the place of a member", source)
    ends = np.cumsum(gap + bodies) + np.repeat(np.cumsum(lead), np.diff(first_member))
    starts = ends - gap - bodies
    return (ends - bodies) * BLOCK, starts[first_member[:-1]] * BLOCK, ends[first_member[1:] - 1] * BLOCK


def shapes_of(
    first_member: NDArray[np.int64], member_field: NDArray[np.uint16]
) -> tuple[list[list[int]], NDArray[np.int64]]:
    """Return the distinct lists of fields that samples have, and int64 [samples] with each sample's number."""
    counts = np.diff(first_member)
    if not len(counts):
        return [], counts
    pattern = member_field[: counts[0]]
    if (counts == counts[0]).all() and (member_field.reshape(-1, counts[0]) == pattern).all():
        return [pattern.tolist()], np.zeros(len(counts), np.int64)
    raw = member_field.astype("<u2").tobytes()
    bounds = (first_member * 2).tolist()
    seen = [raw[start:stop] for start, stop in pairwise(bounds)]
    number = {shape: place for place, shape in enumerate(dict.fromkeys(seen))}
    shapes = [np.frombuffer(shape, "<u2").tolist() for shape in number]
    return shapes, np.fromiter(map(number.__getitem__, seen), np.int64, len(seen))


def padded(size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return int64 [members]: bodies with their padding."""
    return -(-size // BLOCK) * BLOCK
