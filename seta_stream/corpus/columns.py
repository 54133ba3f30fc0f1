"""Columns of whole numbers, as small as they get without being compressed.

Takes int64 arrays of numbers ≥ 0; gives a short description and bytes, and back. Pure. One of three forms:

* constant: all numbers are equal; no bytes;
* full: each number in the narrowest of uint8, uint16, uint32, uint64, little-endian;
* sparse: nearly all are equal; the positions of the others and their values.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.sealed import malformed

Column = NDArray[np.int64]
Plain = list[int]
"""A description: [0, value], [1, width] or [2, value, count, position width, value width]."""

_CONSTANT: Final = 0
_FULL: Final = 1
_SPARSE: Final = 2
_WIDTHS: Final = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_LARGEST: Final = 1 << 62


def width_of(largest: int) -> Literal[1, 2, 4, 8]:
    """Return the narrowest width in bytes that holds 0 … largest."""
    if largest < 1 << 8:
        return 1
    if largest < 1 << 16:
        return 2
    return 4 if largest < 1 << 32 else 8


def pack(values: Column) -> tuple[Plain, bytes]:
    """Return a description of the column and its bytes, in the smallest form."""
    if not len(values):
        return [_CONSTANT, 0], b""
    low, high = int(values.min()), int(values.max())
    if low == high:
        return [_CONSTANT, low], b""
    width = width_of(high)
    common = _most_common(values)
    others = np.flatnonzero(values != common)
    position_width, value_width = width_of(len(values) - 1), width_of(int(values[others].max()))
    if len(others) * (position_width + value_width) < len(values) * width:
        data = others.astype(_WIDTHS[position_width]).tobytes() + values[others].astype(_WIDTHS[value_width]).tobytes()
        return [_SPARSE, common, len(others), position_width, value_width], data
    return [_FULL, width], values.astype(_WIDTHS[width]).tobytes()


def _most_common(values: Column) -> int:
    """Return a value that more than half of the numbers share, if there is one: the middle of the sorted column."""
    return int(np.partition(values, len(values) // 2)[len(values) // 2])


def unpack(plain: Any, count: int, data: memoryview, source: str) -> tuple[Column, int]:
    """Return a column of `count` numbers, int64, and how many bytes of `data` it took.

    Args:
        plain: the description, as it came out of the file.
        count: how many numbers the column has.
        data: bytes that begin with the column's.
        source: what is being read, for messages.

    Raises:
        IndexFileError: the description is malformed, or the bytes do not hold the column.
    """
    match plain:
        case [0, int(value)] if 0 <= value < _LARGEST:
            return np.full(count, value, np.int64), 0
        case [1, int(width)] if width in _WIDTHS:
            return _numbers(data, 0, count, width, source), count * width
        case [2, int(value), int(others), int(position_width), int(value_width)] if (
            0 <= value < _LARGEST and 0 <= others <= count and position_width in _WIDTHS and value_width in _WIDTHS
        ):
            positions = _numbers(data, 0, others, position_width, source)
            column = np.full(count, value, np.int64)
            if others and (int(positions.max()) >= count or bool((np.diff(positions) <= 0).any())):
                raise malformed("the positions of a sparse column", source)
            column[positions] = _numbers(data, others * position_width, others, value_width, source)
            return column, others * (position_width + value_width)
        case _:
            raise malformed("the description of a column", source)


def _numbers(data: memoryview, offset: int, count: int, width: int, source: str) -> Column:
    if offset + count * width > len(data):
        raise malformed("the length of a column", source)
    numbers = np.frombuffer(data, _WIDTHS[width], count, offset)
    if width == 8 and count and int(numbers.max()) >= _LARGEST:
        raise malformed("a number in a column", source)
    return numbers.astype(np.int64)
