"""Valid bytes for the seeds, made without the package where the format is not its own; and right checksums."""

from __future__ import annotations

import contextlib
import io
import struct
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator

import msgpack

from fuzz.editing import edited
from seta_stream.errors import SetaStreamError

MEMBERS = (("a/0.txt", b"first"), ("a/0.cls", b"1"), ("a/1.txt", b"second" * 200), ("a/1.cls", b"2"))


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Take the package's own errors as an answer, if they tell something; everything else is a finding."""
    try:
        yield
    except SetaStreamError as error:
        told = str(error)
        if len(told) < 10 or any(map(is_hidden, told.replace("\n", ""))):
            raise AssertionError(f"an error that tells nothing, or cannot be shown: {told!a}") from error


def is_hidden(character: str) -> bool:
    """Say whether a character has no shape of its own: a control, a mark of direction, half of another one."""
    is_joiner = character in "\u200c\u200d"
    return not is_joiner and unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def tar(members: Iterable[tuple[str, bytes]] = MEMBERS, form: int = tarfile.PAX_FORMAT, **facts: object) -> bytes:
    """Return a tar as tarfile writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for fact, value in facts.items():
                setattr(info, fact, value)
            file.addfile(info, io.BytesIO(data))
    whole = out.getvalue().rstrip(b"\0")
    return whole + b"\0" * (-len(whole) % 512 + 1024)  # without the zeros up to a whole record


def with_checksums(data: bytes) -> bytes:
    """Return tar bytes in which every block that could be a header has the checksum of one.

    A header whose checksum is wrong ends the scan, so hardly a mutated one would be looked at further.
    """
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        block = out[at : at + 512]
        if any(block) and (block[257:262] == b"ustar" or at == 0):
            block[148:156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(out)


def with_header(data: bytes, edits: bytes, prefix: str) -> bytes:
    """Return a file of ours whose msgpack header has changes; as it is where they cannot be packed.

    Args:
        data: a right file.
        edits: what is changed, as editing.edited takes it.
        prefix: the struct of what stands before the header, whose last number is the header's length.
    """
    first = struct.calcsize(prefix)
    *facts, length = struct.unpack_from(prefix, data)
    try:
        header = msgpack.packb(edited(msgpack.unpackb(data[first : first + length], strict_map_key=False), edits))
    except (ValueError, TypeError, OverflowError):
        return data
    return with_crc(struct.pack(prefix, *facts, len(header)) + header + data[first + length :])


def with_crc(data: bytes) -> bytes:
    """Return a file of ours whose last four bytes are the CRC-32 of those before."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little") if len(data) >= 4 else data
