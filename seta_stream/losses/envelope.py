"""The envelope that all files of the state share: magic, version, msgpack header, columns, CRC.

Takes a header and bytes; gives a file, and back. Pure. docs/formats/state.md tells it byte by byte.
"""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from seta_stream.errors import StateError
from seta_stream.foreign import read_msgpack

_PREFIX: Final = struct.Struct("<8sHHI")  # magic, version, zero, header bytes
_CRC: Final = struct.Struct("<I")


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Args:
        magic: its first 8 bytes.
        version: the newest that this release knows; it reads this one and those below.
        noun: what messages call it.
        error: what is raised where a file cannot be used.
    """

    magic: bytes
    version: int
    noun: str
    error: type[StateError]


def pack_file(kind: FileKind, header: dict[str, Any], *body: bytes | memoryview, version: int | None = None) -> bytes:
    """Return the file's bytes: prefix, msgpack header, body, CRC32 over all before it.

    Args:
        kind: of the file.
        header: plain values.
        body: columns, one after another.
        version: the oldest that can say this; the newest unless given.
    """
    packed = msgpack.packb(header)
    head = _PREFIX.pack(kind.magic, version or kind.version, 0, len(packed)) + packed
    crc = functools.reduce(lambda before, part: zlib.crc32(part, before), (head, *body), 0)
    # Joined once: a body may take a good part of the memory there is.
    return b"".join((head, *body, _CRC.pack(crc)))


def stored_crc(data: bytes) -> int:
    """Return the CRC32 that a file of `pack_file` ends with."""
    return int(_CRC.unpack(data[-_CRC.size :])[0])


def unpack_file(kind: FileKind, data: bytes, *, name: str = "") -> tuple[dict[str, Any], bytes]:
    """Return the header and body of a file.

    Args:
        kind: what the file must be.
        data: the whole file.
        name: of the file, for messages.

    Raises:
        StateError: as `kind.error`: the file is foreign, of a future version, or damaged.
    """
    if len(data) < _PREFIX.size + _CRC.size or data[:8] != kind.magic:
        raise _unusable(kind, name, f"it does not begin as one ({len(data)} bytes, {data[:8]!r})", found=data[:8])
    _, version, _, header_bytes = _PREFIX.unpack_from(data)
    if version > kind.version:
        raise _unusable(
            kind,
            name,
            f"it is of version {version} and this release reads up to {kind.version}: update seta_stream",
            expected=kind.version,
            found=version,
        )
    crc = zlib.crc32(memoryview(data)[: -_CRC.size])
    if stored_crc(data) != crc:
        raise _unusable(
            kind, name, f"its checksum is {stored_crc(data):08x} and its bytes give {crc:08x}: it is damaged", found=crc
        )
    stop = _PREFIX.size + header_bytes
    if version < 1 or stop > len(data) - _CRC.size:
        raise _unusable(kind, name, "its header is malformed", found=header_bytes)
    try:
        header = read_msgpack(data[_PREFIX.size : stop], any_keys=True)
    except ValueError as error:
        raise _unusable(kind, name, f"its header is not msgpack ({error})", found=header_bytes) from error
    if not isinstance(header, dict):
        raise _unusable(kind, name, "its header is malformed", found=header)
    return header, data[stop : -_CRC.size]


def peek_header(kind: FileKind, first_bytes: bytes) -> dict[str, Any]:
    """Return the header from a file's first bytes, unchecked; empty where it cannot be read."""
    if len(first_bytes) < _PREFIX.size or first_bytes[:8] != kind.magic:
        return {}
    stop = _PREFIX.size + _PREFIX.unpack_from(first_bytes)[3]
    try:
        header = read_msgpack(first_bytes[_PREFIX.size : stop])
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}


def _unusable(kind: FileKind, name: str, why: str, *, expected: object = None, found: object = None) -> StateError:
    return kind.error(f"Cannot use the {kind.noun} {name}: {why}.", expected=expected, found=found)
