"""Keys that stand in more than one shard, found in bounded memory.

Takes 8-byte hashes per shard; gives how many return, and where. Acts: above a bound, temporary files without a name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

HELD: Final = 4 << 20
"""Keys held in memory: 64 MiB of them."""
_PARTS_BITS: Final = 7
"""Temporary files: 128, so that a billion keys take 125 MB when one is looked at."""
_EXAMPLES: Final = 8

_ROW: Final = np.dtype([("hash", "<u8"), ("shard", "<u4"), ("position", "<u4")])


@dataclass(frozen=True, slots=True)
class Returning:
    """Keys that stand in more than one shard, by their hashes.

    Args:
        keys: how many keys do.
        samples: how many samples beyond the first of each.
        places: of some of them, the first two: ((shard, position), (shard, position)).
    """

    keys: int
    samples: int
    places: tuple[tuple[tuple[int, int], tuple[int, int]], ...]


class KeyHashes:
    """The hashes of a corpus's keys.

    Args:
        held: how many are held in memory at most.
    """

    def __init__(self, held: int = HELD) -> None:
        self._most = held
        self._parts: list[NDArray[Any]] = []
        self._held = 0
        self._files: list[IO[bytes]] = []
        self._stack = ExitStack()

    def add(self, shard: int, hashes: NDArray[np.uint64]) -> None:
        """Take the hashes of one shard's keys: uint64 [samples]."""
        rows = np.empty(len(hashes), _ROW)
        rows["hash"], rows["shard"], rows["position"] = hashes, shard, np.arange(len(hashes))
        self._parts.append(rows)
        self._held += len(rows)
        if self._held > self._most:
            self._spill()

    def returning(self) -> Returning:
        """Return what stands in more than one shard."""
        keys = samples = 0
        places: list[tuple[tuple[int, int], tuple[int, int]]] = []
        for group in self._groups():
            # rows sorted by hash, then shard: starts [distinct hashes]
            rows = np.sort(group, order=("hash", "shard", "position"))
            starts = np.flatnonzero(np.concatenate([[True], rows["hash"][1:] != rows["hash"][:-1]]))
            stops = np.append(starts[1:], len(rows))
            several = rows["shard"][starts] != rows["shard"][stops - 1]
            keys += int(several.sum())
            samples += int((stops - starts)[several].sum() - several.sum())
            for start, stop in zip(starts[several][:_EXAMPLES].tolist(), stops[several].tolist(), strict=False):
                other = start + int(np.flatnonzero(rows["shard"][start:stop] != rows["shard"][start])[0])
                places.append((_place(rows[start]), _place(rows[other])))
        return Returning(keys, samples, tuple(sorted(places)[:_EXAMPLES]))

    def _groups(self) -> Iterator[NDArray[Any]]:
        if not self._files:
            if self._held:
                yield np.concatenate(self._parts)
            return
        self._spill()
        for file in self._files:
            file.seek(0)
            rows = np.frombuffer(file.read(), _ROW)
            if len(rows):
                yield rows

    def _spill(self) -> None:
        """Write what is held to the files, by the hash's first bits, so that equal ones meet."""
        if not self._files:
            files = range(1 << _PARTS_BITS)
            self._files = [self._stack.enter_context(tempfile.TemporaryFile()) for _ in files]  # noqa: SIM115  (in the stack)
        rows = np.concatenate([np.empty(0, _ROW), *self._parts])
        part = (rows["hash"] >> np.uint64(64 - _PARTS_BITS)).astype(np.int64)
        rows = rows[np.argsort(part, kind="stable")]
        ends = np.cumsum(np.bincount(part, minlength=len(self._files)))
        for file, own in zip(self._files, np.split(rows, ends[:-1]), strict=True):
            file.write(own.tobytes())
        self._parts, self._held = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _place(row: Any) -> tuple[int, int]:
    return int(row["shard"]), int(row["position"])
