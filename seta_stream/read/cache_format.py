"""The file that holds the cached blocks of one shard: its layout. Pure: numbers and bytes.

A header, a table with an entry per block (checksum and mark), and the blocks at their places, so that a file is sparse
until it is whole. docs/formats/cache.md describes it byte by byte.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = b"\x89SETACB\n"
VERSION: Final = 1
TABLE_AT: Final = 64
ENTRY_BYTES: Final = 8
PAGE_BYTES: Final = 4096
NAME_BYTES: Final = 16
SPREAD: Final = 0x9E3779B1
"""What a mark adds per block, so that an entry in another one's place is refused."""

_HEADER: Final = struct.Struct("<8sIIQ16s")
_PLACE: Final = re.compile(r"endpoint|account_name|account_host|^host$|^port$", re.IGNORECASE)

Table = NDArray[np.uint32]
"""axes: block × (checksum, mark)"""


def name_of(url: str, size: int, version: str, place: bytes) -> bytes:
    """Return what names one version of an object in the cache: 16 bytes. Another version has another name.

    Args:
        url, size, version: of the object.
        place: what `place_of` gave.
    """
    hasher = hashlib.blake2b(digest_size=NAME_BYTES, person=b"seta-cache-1")
    for part in (url.encode("utf-8", "surrogateescape"), version.encode("utf-8", "surrogateescape"), place):
        hasher.update(struct.pack("<Q", len(part)) + part)
    hasher.update(struct.pack("<Q", size))
    return hasher.digest()


def place_of(options: Mapping[str, Any] | None) -> bytes:
    """Return which of several stores the options name: two endpoints may serve one URL. Holds no credential."""
    return repr(sorted(_places(options or {}))).encode()


def _places(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(str(name), str(one)) for name, one in options.items() if _PLACE.search(str(name)) and one is not None]
    return found + [pair for one in options.values() if isinstance(one, Mapping) for pair in _places(one)]


def checksum(data: bytes | memoryview) -> int:
    """Return the CRC-32 of a block."""
    return zlib.crc32(data)


@dataclass(frozen=True)
class Layout:
    """Where everything lies in the file of one shard.

    Args:
        name: what `name_of` gave.
        size: bytes of the shard.
        block_bytes: of each block but the last.
    """

    name: bytes
    size: int
    block_bytes: int

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.size // self.block_bytes)

    @cached_property
    def data_at(self) -> int:
        """Where the first block begins: on a page."""
        return -(-(TABLE_AT + ENTRY_BYTES * self.blocks) // PAGE_BYTES) * PAGE_BYTES

    @property
    def file_bytes(self) -> int:
        """Length of the file, holes included."""
        return self.data_at + self.size

    def header(self) -> bytes:
        """Return the first 64 bytes."""
        facts = _HEADER.pack(MAGIC, VERSION, self.block_bytes, self.size, self.name)
        return (facts + struct.pack("<I", checksum(facts))).ljust(TABLE_AT, b"\0")

    @cached_property
    def _marks(self) -> NDArray[np.uint32]:
        """What a mark has above its checksum: uint32 [blocks]."""
        salt = int.from_bytes(self.name[:4], "little")
        return (np.arange(self.blocks, dtype=np.uint64) * SPREAD + salt).astype(np.uint32)

    def entries(self, first: int, checksums: list[int]) -> bytes:
        """Return the entries of consecutive blocks from `first`."""
        table: Table = np.empty((len(checksums), 2), np.uint32)
        table[:, 0] = checksums
        table[:, 1] = table[:, 0] + self._marks[first : first + len(checksums)]
        return table.astype("<u4").tobytes()

    def table(self, data: bytes) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Return the checksums, and which entries are there: uint32 [blocks], bool [blocks].

        Args:
            data: the table; what is missing at its end stands for no entries.
        """
        raw = np.frombuffer(data.ljust(ENTRY_BYTES * self.blocks, b"\0"), "<u4").astype(np.uint32)
        # axes: block × (checksum, mark)
        table = raw.reshape(self.blocks, 2)
        return table[:, 0], table[:, 1] == table[:, 0] + self._marks

    def bounds(self, first: int, stop: int) -> tuple[int, int]:
        """Return (offset, length) in the shard of the blocks first … stop − 1."""
        offset = first * self.block_bytes
        return offset, min(stop * self.block_bytes, self.size) - offset

    def touched(self, offset: int, length: int) -> tuple[int, int]:
        """Return (first, stop) of the blocks that a span lies in; none for a span of no bytes."""
        first = offset // self.block_bytes
        return first, -(-(offset + length) // self.block_bytes) if length else first
