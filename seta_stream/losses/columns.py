"""Columns: what a policy wants remembered of each sample beside its last loss.

Takes what was remembered and what is recorded; gives what to remember. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import LossError, PolicyError

LOSS: Final = "loss"
AGE: Final = "age"
MAX_AGE: Final = 255
"""Ages saturate here; samples never seen have it too."""
OF_CALL: Final = "@call"
"""Follows a column's name in what travels between processes, where it stands for what `of_call` made."""
DTYPES: Final = ("float32", "uint8", "uint16", "int32")
_RECORDED_DTYPES: Final = (*DTYPES, "bool", "int8", "int16", "int64", "uint32", "uint64", "float16", "float64")

Values = Mapping[str, NDArray[Any]]
"""One array [n] per name: "loss" float32 (NaN: never seen), "age" uint8 (epochs since seen), and the columns."""

Update = Callable[[Values, NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Column:
    """One number per sample, kept in the table and in the sidecars because a policy asks for it.

    Args:
        name: lower-case letters, digits and underscores.
        dtype: one of DTYPES.
        start: the value of samples never recorded.
        update: (old, new) -> values [n]. `old` holds what is remembered of the n samples that one call of record()
            tells of, "loss" and "age" included; `new` their finite losses, float32 [n], or what else was recorded.
        source: "loss", or the name of the argument of record() that feeds the column.
        of_call: (values of one call [n]) -> [n], what `update` is given in their place: what depends on the other
            samples of a batch is made where the batch is recorded, and `update` of each sample by itself, on the
            process that owns it.

    Raises:
        PolicyError: the name or the dtype cannot be one.
    """

    name: str
    dtype: str
    start: float
    update: Update
    source: str = LOSS
    of_call: Callable[[NDArray[Any]], NDArray[Any]] | None = None

    def __post_init__(self) -> None:
        if self.name in (LOSS, AGE) or not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise PolicyError(
                f"A column cannot be called {self.name!r}: use lower-case letters, digits and underscores, and not "
                f"{LOSS!r} or {AGE!r}.",
                found=self.name,
            )
        if self.dtype not in DTYPES:
            raise PolicyError(
                f"Column {self.name} cannot be of {self.dtype!r}: choose one of {', '.join(DTYPES)}.",
                expected=DTYPES,
                found=self.dtype,
            )

    def given(self, new: Values) -> NDArray[Any]:
        """Return what `update` is given of one call: what was made of it where it was recorded, or is made now."""
        if self.of_call is None:
            return new[self.source]
        made = new.get(self.name + OF_CALL)
        return self.of_call(new[self.source]) if made is None else made

    def fresh(self, samples: int) -> NDArray[Any]:
        """Return the column of samples never recorded: [samples]."""
        return np.full(samples, self.start, self.dtype)


def latest(old: Values, new: NDArray[Any]) -> NDArray[Any]:  # noqa: ARG001  (the shape of an update)
    """Return what was recorded: the update of a column that remembers the last value."""
    return new


def check_fits(column: Column, values: NDArray[Any]) -> None:
    """Refuse what an integer column cannot hold.

    Args:
        column: of whole numbers, or of others, which hold everything.
        values: what its update gave.

    Raises:
        LossError: naming what was recorded.
    """
    dtype = np.dtype(column.dtype)
    if dtype.kind == "f" or not values.size:
        return
    limits = np.iinfo(dtype)
    if values.dtype.kind not in "biu" or values.min() < limits.min or values.max() > limits.max:
        raise LossError(
            f"Cannot record {column.source}=: column {column.name} holds whole numbers from {limits.min} to "
            f"{limits.max}, and {values.dtype} values up to {values.max()} came. Pass integers in that range.",
            expected=(limits.min, limits.max),
            found=str(values.dtype),
        )


def recorded_names(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return what record() takes beside the losses, for these columns."""
    return tuple(dict.fromkeys(column.source for column in columns if column.source != LOSS))


def pack_columns(columns: Values) -> tuple[list[list[str]], bytes]:
    """Return what a header says of columns, [name, dtype] each, and their bytes: little-endian, one after another."""
    told = [[name, str(values.dtype)] for name, values in columns.items()]
    return told, b"".join(values.astype(values.dtype.newbyteorder("<")).tobytes() for values in columns.values())


def unpack_columns(told: Any, data: bytes, count: int, *, of_any: bool = False) -> dict[str, NDArray[Any]]:
    """Return the columns [count] that a header tells of.

    Args:
        told: as `pack_columns` gave it.
        data: their bytes.
        count: of the samples.
        of_any: whether they may be of any numbers, as they were recorded; else of the DTYPES.

    Raises:
        ValueError: the header is malformed, or the bytes are not as many as it says.
    """
    dtypes = _RECORDED_DTYPES if of_any else DTYPES
    if not isinstance(told, list) or not all(_is_told(one, dtypes) for one in told):
        raise ValueError(f"its columns are malformed ({told!r})")
    widths = [np.dtype(dtype).itemsize * count for _, dtype in told]
    if sum(widths) != len(data):
        raise ValueError(f"its {len(told)} columns of {count} samples need {sum(widths)} bytes, not {len(data)}")
    columns, at = {}, 0
    for (name, dtype), width in zip(told, widths, strict=True):
        little = np.dtype(dtype).newbyteorder("<")
        columns[name] = np.frombuffer(data[at : at + width], little).astype(dtype)
        at += width
    return columns


def _is_told(one: Any, dtypes: Sequence[str]) -> bool:
    return isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) and one[1] in dtypes
