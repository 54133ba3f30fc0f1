"""Rows sorted by shard in bounded memory.

Takes rows in any order; gives those of each shard together. Acts: above a bound, temporary files without a name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

HELD_BYTES: Final = 16 << 20
_FILES: Final = 128


class Parcels:
    """Rows with a field "shard", an unsigned integer.

    Args:
        dtype: of the rows.
        shards: how many there are.
        held_bytes: what is held in memory at most.
    """

    def __init__(self, dtype: np.dtype[Any], shards: int, held_bytes: int = HELD_BYTES) -> None:
        self._dtype = dtype
        self._per_file = -(-shards // _FILES)
        self._most = held_bytes
        self._parts: list[NDArray[Any]] = []
        self._held = 0
        self._files: list[IO[bytes]] = []
        self._stack = ExitStack()

    def add(self, rows: NDArray[Any]) -> None:
        """Take some rows."""
        self._parts.append(rows)
        self._held += rows.nbytes
        if self._held > self._most:
            self._spill()

    def by_shard(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Give each shard that has rows with them, ascending; its rows in the order in which they came."""
        for rows in self._groups():
            ordered = rows[np.argsort(rows["shard"], kind="stable")]
            shards, starts = np.unique(ordered["shard"], return_index=True)
            yield from zip(shards.tolist(), np.split(ordered, starts[1:]), strict=True)

    def _groups(self) -> Iterator[NDArray[Any]]:
        if not self._files:
            if self._held:
                yield np.concatenate(self._parts)
            return
        self._spill()
        for file in self._files:
            file.seek(0)
            rows = np.frombuffer(file.read(), self._dtype)
            if len(rows):
                yield rows

    def _spill(self) -> None:
        """Write what is held to the files, neighbouring shards to one."""
        if not self._files:
            files = range(_FILES)
            self._files = [self._stack.enter_context(tempfile.TemporaryFile()) for _ in files]  # noqa: SIM115  (in the stack)
        rows = np.concatenate([np.empty(0, self._dtype), *self._parts])
        part = rows["shard"].astype(np.int64) // self._per_file
        rows = rows[np.argsort(part, kind="stable")]
        ends = np.cumsum(np.bincount(part, minlength=_FILES))
        for file, own in zip(self._files, np.split(rows, ends[:-1]), strict=True):
            file.write(own.tobytes())
        self._parts, self._held = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
