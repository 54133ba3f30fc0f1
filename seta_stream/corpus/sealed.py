"""The frame that index files and shard tables share: magic, version, header, payload, checksum.

Takes a header of plain values and payload bytes; gives one bytes object, and back, trusting nothing. Pure.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

import msgpack

from seta_stream.errors import IndexFileError
from seta_stream.foreign import HEADER_BYTES, read_msgpack

_PREFIX: Final = struct.Struct("<8sII")
PREFIX_BYTES: Final = _PREFIX.size
_CRC: Final = struct.Struct("<I")


def seal(magic: bytes, version: int, header: dict[str, Any], payload: bytes) -> bytes:
    """Return magic (8 bytes), version and header length (uint32), header (msgpack), payload, CRC-32 of all before."""
    packed = msgpack.packb(header)
    data = b"".join([_PREFIX.pack(magic, version, len(packed)), packed, payload])
    return data + _CRC.pack(zlib.crc32(data))


def unseal(data: bytes, magic: bytes, version: int, source: str) -> tuple[dict[str, Any], memoryview]:
    """Return header and payload of what `seal` gave.

    Args:
        data: the whole file.
        magic: the 8 bytes it must begin with.
        version: the version that is understood.
        source: what is being read, for messages.

    Raises:
        IndexFileError: foreign, of another version, truncated, changed by a single bit, or no msgpack map.
    """
    if len(data) < _PREFIX.size + _CRC.size or data[:8] != magic:
        raise _unreadable(source, f"it does not begin with {magic!r}, so it is of another kind or cut short", data[:8])
    _, found, length = _PREFIX.unpack_from(data)
    if _CRC.unpack_from(data, len(data) - _CRC.size)[0] != zlib.crc32(memoryview(data)[: -_CRC.size]):
        raise _unreadable(source, "its checksum does not hold, so it is damaged or cut short", len(data))
    if found != version:
        raise _unreadable(source, f"it is of version {found}, and this release reads version {version}", found)
    if _PREFIX.size + length + _CRC.size > len(data):
        raise malformed("the length of the header", source)
    try:
        header = read_msgpack(data[_PREFIX.size : _PREFIX.size + length])
    except ValueError as error:
        raise malformed("the header", source) from error
    if not isinstance(header, dict):
        raise malformed("the header", source)
    return header, memoryview(data)[_PREFIX.size + length : -_CRC.size]


def head_bytes(data: bytes, magic: bytes, version: int, source: str) -> int:
    """Return how many first bytes of a file hold its header, told by the first PREFIX_BYTES of them.

    Raises:
        IndexFileError: foreign, of another version, or cut short.
    """
    if len(data) < PREFIX_BYTES or data[:8] != magic:
        raise _unreadable(source, f"it does not begin with {magic!r}, so it is of another kind or cut short", data[:8])
    _, found, length = _PREFIX.unpack_from(data)
    if found != version:
        raise _unreadable(source, f"it is of version {found}, and this release reads version {version}", found)
    if length > HEADER_BYTES:
        raise malformed("the length of the header", source)
    return PREFIX_BYTES + int(length)


def peek(data: bytes, source: str) -> dict[str, Any]:
    """Return the header that the first `head_bytes` of a file hold; no checksum covers it alone.

    Raises:
        IndexFileError: it is no msgpack map.
    """
    try:
        header = read_msgpack(data[PREFIX_BYTES:])
    except ValueError as error:
        raise malformed("the header", source) from error
    if not isinstance(header, dict):
        raise malformed("the header", source)
    return header


def value(header: dict[str, Any], name: str, kind: type, source: str) -> Any:
    """Return one value of a header, of the wanted type; a number is checked to be 0 … 2^62.

    Raises:
        IndexFileError: it is missing or of another type.
    """
    found: Any = header.get(name)
    if type(found) is not kind or (isinstance(found, int) and not 0 <= found <= 1 << 62):
        raise malformed(f"{name!r} in the header", source)
    return found


def malformed(what: str, source: str) -> IndexFileError:
    """Return the error for a file whose checksum holds and whose content cannot be."""
    return _unreadable(source, f"{what} cannot be as it is; seta_stream did not write that", what)


def _unreadable(source: str, why: str, found: object) -> IndexFileError:
    return IndexFileError(
        f"Cannot read {source}: {why}. Remove it; it is made again by `seta-stream index`, or by the next stream.",
        expected="a whole file of this release",
        found=found,
    )
