"""Many plain tar headers at a time: the fast path of tar.py.

Takes a piece of a tar that begins at a header; gives runs of members whose headers are all plain (type "0", octal size,
at most one PAX header each, and that without a size) and whose checksums hold. It stops before the first header that
is anything else, and leaves that one to the scanner. Pure.

webdataset's TarWriter leaves a PAX header (a float mtime) before every member, so those belong to the fast path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.header import BLOCK, EXTENSION_LIMIT, checks, parse, pax_records

_FILE: Final = ord("0")
_PAX: Final = ord("x")
_STOP: Final = -1
_OCTAL: Final = np.array([8**power for power in range(5, -1, -1)], np.uint32)


@dataclass(frozen=True, eq=False, slots=True)
class Run:
    """Members that follow each other; offsets are those in the shard.

    Args:
        start: int64 [members], offset of the first header, extension headers included.
        data: int64 [members], offset of the body.
        size: int64 [members], bytes of body.
        names: names, each ended by a NUL.
        stop: offset of the header behind the last member.
    """

    start: NDArray[np.int64]
    data: NDArray[np.int64]
    size: NDArray[np.int64]
    names: bytes
    stop: int

    def __len__(self) -> int:
        return len(self.start)


class FastRuns:
    """Finds runs in one piece of a shard.

    Args:
        data: bytes that begin at a header.
        shard: URL for messages.
        offset: where `data` begins in the shard.
    """

    def __init__(self, data: bytes, shard: str, offset: int) -> None:
        self._data = data
        self._shard = shard
        self._offset = offset
        count = len(data) // BLOCK
        # uint8 [blocks, 512]: every block of the piece, header or not
        self._blocks = np.frombuffer(data, np.uint8, count * BLOCK).reshape(count, BLOCK)
        self._sizes, behind = _hops(self._blocks)
        self._behind = behind.tolist()

    def run(self, block: int) -> Run | None:
        """Return the longest run that begins at block number `block`; None or empty where that header is not plain.

        Raises:
            TarError: a header in the run is garbled.
        """
        rows, behind = self._chase(block)
        if not len(rows):
            return None
        heads = self._blocks[rows]
        self._verify(heads, rows)
        is_file = heads[:, 156] == _FILE
        # Rows of the headers of files, and of the first header of each member.
        files = np.flatnonzero(is_file)
        firsts = np.concatenate([[0], files[:-1] + 1])
        count, renamed = self._read_pax(rows, files, firsts)
        if count < len(files):
            behind = int(rows[firsts[count]])
            files, firsts = files[:count], firsts[:count]
        blocks = rows[files]
        return Run(
            start=rows[firsts] * BLOCK + self._offset,
            data=(blocks + 1) * BLOCK + self._offset,
            size=self._sizes[blocks],
            names=_names(heads[files], renamed),
            stop=behind * BLOCK + self._offset,
        )

    def _chase(self, block: int) -> tuple[NDArray[np.int64], int]:
        """Return the block numbers of plain headers from `block` on, whole members only, and the block behind them."""
        behind, count = self._behind, len(self._behind)
        found: list[int] = []
        add = found.append
        while block < count and behind[block] != _STOP:
            add(block)
            block = behind[block]
        rows = np.array(found, np.int64)
        files = np.flatnonzero(self._blocks[rows, 156] == _FILE)
        whole = int(files[-1]) + 1 if len(files) else 0
        return rows[:whole], behind[rows[whole - 1]] if whole else block

    def _verify(self, heads: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        """Check all checksums; one that is not plain, or does not hold, is looked at alone, which may raise."""
        # [headers]: the sum of all bytes, the checksum's own counted as spaces.
        sums = heads.sum(axis=1, dtype=np.uint32) - heads[:, 148:156].sum(axis=1, dtype=np.uint32) + 8 * ord(" ")
        # [headers, 6] octal digits
        digits = heads[:, 148:154] - np.uint8(48)
        wanted = digits @ _OCTAL
        plain = (digits < 8).all(axis=1) & np.isin(heads[:, 154], (0, 32))
        for odd in np.flatnonzero(~plain | (wanted != sums)).tolist():
            block = heads[odd].tobytes()
            if not checks(block):
                parse(block, self._shard, int(rows[odd]) * BLOCK + self._offset)

    def _read_pax(
        self, rows: NDArray[np.int64], files: NDArray[np.int64], firsts: NDArray[np.int64]
    ) -> tuple[int, dict[int, bytes]]:
        """Return how many members have plain PAX headers, or none, and the names that these give."""
        renamed: dict[int, bytes] = {}
        extended = np.flatnonzero(files != firsts)
        if not len(extended):
            return len(files), renamed
        begins = ((rows[firsts[extended]] + 1) * BLOCK).tolist()
        sizes = self._sizes[rows[firsts[extended]]].tolist()
        single = (files[extended] - firsts[extended] == 1).tolist()
        for member, begin, size, alone in zip(extended.tolist(), begins, sizes, single, strict=True):
            content = self._data[begin : begin + size]
            if not alone or size > EXTENSION_LIMIT or b"size=" in content or b"GNU.sparse." in content:
                return member, renamed
            if b"path=" in content:
                path = pax_records(content, self._shard, self._offset + begin - BLOCK).get("path")
                if path is not None:
                    renamed[member] = path.rstrip(b"/")
        return len(files), renamed


def _hops(blocks: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, as if every block were a header, its size field and the block behind its body (_STOP if not plain)."""
    # [12, blocks]: transposed, so that each step below runs over contiguous bytes
    field = np.ascontiguousarray(blocks[:, 124:136].T)
    digits = field[:11] - np.uint8(48)
    kind = blocks[:, 156]
    plain = (digits < 8).all(axis=0) & ((field[11] == 0) | (field[11] == 32)) & ((kind == _FILE) | (kind == _PAX))
    sizes = np.zeros(len(blocks), np.int64)
    for place in digits:
        sizes <<= 3
        sizes += place
    behind = np.arange(1, len(blocks) + 1) + ((sizes + (BLOCK - 1)) >> 9)
    behind[~plain] = _STOP
    return sizes, behind


def _names(heads: NDArray[np.uint8], renamed: dict[int, bytes]) -> bytes:
    """Return the names of headers, each ended by a NUL; `renamed` holds those that a PAX header gives."""
    # "S100" strips the NULs behind a name; what stands behind the first NUL is cut off below.
    names = np.ascontiguousarray(heads[:, :100]).view("S100").ravel().tolist()
    for row in np.flatnonzero(heads[:, 345]).tolist():
        names[row] = heads[row, 345:500].tobytes().partition(b"\0")[0] + b"/" + names[row].partition(b"\0")[0]
    for row, name in renamed.items():
        names[row] = name
    joined = b"\0".join([*names, b""])
    if joined.count(b"\0") != len(names):
        joined = b"\0".join([*(name.partition(b"\0")[0] for name in names), b""])
    return joined
