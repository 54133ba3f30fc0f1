"""The cached blocks of one shard: a sparse file, read and written by position.

Takes blocks as they arrive; gives bytes whose checksum was seen to match. Effects: one descriptor, positional reads and
writes, and no memory map: a full disk or a truncated file must not end the process.

A block's bytes are written before its entry. So within one run of the machine an entry speaks the truth however a
process ends; after a power failure, or whatever else happened to the file, the checksum does, which each run compares
before it first uses a block that it did not fetch itself.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from errno import EIO, ENOSPC
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from seta_stream.read.cache_format import ENTRY_BYTES, TABLE_AT, Layout, checksum

if TYPE_CHECKING:
    from seta_stream.read.cache_asking import Fetch

ATTEMPTS: Final = 3


class BlockFile:
    """Cached blocks of one shard.

    Args:
        path: of the file, which is made where it is missing or not of this shard.
        layout: of the file.
        trusted: byte [blocks], shared by the processes of the run: 1 where bytes were seen to match.
        is_writable: whether blocks may be added.

    Raises:
        OSError: it can be neither opened nor made.
    """

    def __init__(self, path: Path, layout: Layout, trusted: memoryview, *, is_writable: bool = True) -> None:
        self.fd = -1
        self.layout = layout
        self.data_at = layout.data_at
        self.coming: dict[int, Fetch] = {}
        """Blocks that are being fetched."""
        self.is_sure = False
        """Whether all blocks are there and were seen to match: reads need no further look."""
        self._path = path
        self._trusted = trusted
        self.is_writable = is_writable
        self._is_gone = False
        # byte [blocks] each: whether the entry is there, and whether the bytes were seen to match it as well.
        self._present = bytearray(layout.blocks)
        self._sure = bytearray(layout.blocks)
        self._damaged: set[int] = set()
        self.fd = self._open()
        if is_writable:
            with suppress(OSError):
                os.utime(self.fd)  # the last use, by which the cache is cleared
        self.refresh()

    # ---- the file

    def _open(self) -> int:
        for _ in range(ATTEMPTS):
            with suppress(FileNotFoundError):
                fd = os.open(self._path, (os.O_RDWR if self.is_writable else os.O_RDONLY) | os.O_CLOEXEC)
                if self._is_ours(fd):
                    return fd
                os.close(fd)
                if self.is_writable:
                    self._path.unlink(missing_ok=True)
            if not self.is_writable:
                break
            with suppress(FileExistsError):  # another process made it meanwhile
                self._make()
        raise OSError(EIO, "there is no usable file of the cache", str(self._path))

    def _is_ours(self, fd: int) -> bool:
        is_whole = os.fstat(fd).st_size == self.layout.file_bytes
        return is_whole and os.pread(fd, TABLE_AT, 0) == self.layout.header()

    def _make(self) -> None:
        """Make the file under another name, so that nobody sees half of it, and never over an existing one."""
        temporary = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}.tmp")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(fd, self.layout.file_bytes)
            _write(fd, self.layout.header(), 0)
            os.link(temporary, self._path)
        finally:
            os.close(fd)
            temporary.unlink(missing_ok=True)

    def refresh(self) -> None:
        """Look at the table again: other processes add blocks."""
        if self._is_gone:
            return
        try:
            data = os.pread(self.fd, ENTRY_BYTES * self.layout.blocks, TABLE_AT)
        except OSError:
            self.abandon()
            return
        sums, present = self.layout.table(data)
        self._sums = sums
        for block in self._damaged:
            present[block] = False
        self._present[:] = present.tobytes()
        self._sure[:] = (present & np.frombuffer(self._trusted, np.bool_)).tobytes()
        self.is_sure = 0 not in self._sure

    def abandon(self) -> None:
        """Use the file no more.

        It cannot be read, or was cut short behind our back: what is written to it now makes a hole look like bytes.
        """
        self._is_gone, self.is_sure, self.is_writable = True, False, False
        self._present[:] = self._sure[:] = bytes(self.layout.blocks)

    # ---- what is there

    @property
    def is_usable(self) -> bool:
        """Whether the file is still what it was."""
        return not self._is_gone

    @property
    def is_whole(self) -> bool:
        """Whether every block has its entry."""
        return 0 not in self._present

    def missing(self, first: int, stop: int) -> list[int]:
        """Return which of the blocks first … stop − 1 have no entry."""
        part = self._present[first:stop]
        return [first + number for number, one in enumerate(part) if not one] if 0 in part else []

    def are_sure(self, spans: Sequence[tuple[int, int]]) -> bool:
        """Say whether all blocks of some spans are there and match; compares those that this run did not see yet."""
        touched, sure = self.layout.touched, self._sure
        are = True
        for offset, length in spans:
            first, stop = touched(offset, length)
            if 0 in sure[first:stop]:
                # All of them, so that the damaged ones of a span are fetched together.
                are &= all([sure[block] or self._look(block) for block in range(first, stop)])  # noqa: C419
        return are

    def _look(self, block: int) -> bool:
        """Compare a block with its checksum; one that differs is as good as missing."""
        if not self._present[block]:
            return False
        if not self._trusted[block]:
            offset, length = self.layout.bounds(block, block + 1)
            data = self.read(offset, length)
            if data is None or checksum(data) != self._sums[block]:
                self._drop(block)
                return False
            self._trusted[block] = 1
        self._made_sure(block, block + 1)
        return True

    def _made_sure(self, first: int, stop: int) -> None:
        self._sure[first:stop] = b"\1" * (stop - first)
        left = self._sure.count(0)
        self.is_sure = not left
        if left == 1:
            # Often a block of the tar's closing zeros, that no sample would lead to: reads need no further look then.
            self._look(self._sure.index(0))

    def _drop(self, block: int) -> None:
        self._present[block] = self._sure[block] = 0
        self._damaged.add(block)
        if self.is_writable:
            with suppress(OSError):
                os.pwrite(self.fd, bytes(ENTRY_BYTES), TABLE_AT + ENTRY_BYTES * block)

    # ---- bytes

    def read(self, offset: int, length: int) -> bytes | None:
        """Return bytes of the shard; None where the file does not give them, and then it is used no more."""
        parts, found = [b""], 0
        with suppress(OSError):
            while found < length:  # one call gives 2 GiB at most
                parts.append(os.pread(self.fd, length - found, self.data_at + offset + found))
                if not parts[-1]:
                    break
                found += len(parts[-1])
        if found == length:
            return parts[-1] if len(parts) == 2 else b"".join(parts)
        self.abandon()
        return None

    def store(self, first: int, data: bytes | memoryview) -> None:
        """Keep consecutive whole blocks from `first`: their bytes, and then their entries.

        Raises:
            OSError: they could not be written; nothing of them counts as present.
        """
        if os.fstat(self.fd).st_size != self.layout.file_bytes:
            self.abandon()
            raise OSError(EIO, "a file of the cache was cut short", str(self._path))
        view, block_bytes = memoryview(data), self.layout.block_bytes
        cuts = [*range(0, len(view), block_bytes), len(view)]
        sums = [checksum(view[begin:end]) for begin, end in pairwise(cuts)]
        _write(self.fd, view, self.data_at + first * block_bytes)
        _write(self.fd, self.layout.entries(first, sums), TABLE_AT + ENTRY_BYTES * first)
        stop = first + len(sums)
        self._sums[first:stop] = sums
        self._present[first:stop] = self._trusted[first:stop] = b"\1" * len(sums)
        self._damaged.difference_update(range(first, stop))
        self._made_sure(first, stop)

    def advise_scattered(self) -> None:
        """Switch the kernel's read-ahead off for this handle."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def _write(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of it; a full disk may take a part and refuse the rest."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        more = os.pwrite(fd, memoryview(data)[written:], offset + written)
        if not more:
            raise OSError(ENOSPC, "no further byte was taken")
        written += more
