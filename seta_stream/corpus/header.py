"""One tar header and its extensions: bytes in, facts out.

Takes a 512-byte block, or the body of an extension header; gives name, size and kind, or raises TarError. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from seta_stream.errors import TarError

BLOCK: Final = 512
EXTENSION_LIMIT: Final = 1 << 20
"""Longest extension header that is followed; real ones hold a path and a few numbers."""

EXTENSIONS_AT_ONCE: Final = 64
"""Most extension headers before one member, which are held at once; real ones are two or three."""

EXTENSIONS: Final = b"LKxXg"
REGULAR: Final = b"0\x007"
WITHOUT_BODY: Final = b"123456"
"""Kinds that have no body whatever their size field says: links, devices, folders."""

_REFUSED: Final = {ord("1"): "a hard link", ord("2"): "a symbolic link", ord("S"): "a sparse member"}
_PAX_RECORD: Final = re.compile(rb"(\d{1,9}) ([^=]+)=")


@dataclass(frozen=True, slots=True)
class Header:
    """What one header block says.

    Args:
        name: raw bytes, ustar prefix joined.
        size: bytes of body.
        kind: the type flag as an int; a folder of the old v7 format is given as "5".
    """

    name: bytes
    size: int
    kind: int


def text(name: bytes) -> str:
    """Return a name as tarfile gives it: UTF-8, foreign bytes as surrogates."""
    return name.decode("utf-8", "surrogateescape")


def padded(size: int) -> int:
    """Return the size of a body with its padding."""
    return -(-size // BLOCK) * BLOCK


def number(field: bytes) -> int | None:
    """Return a numeric field's value (octal or base-256), or None where it is neither."""
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big")
        return value - (1 << 8 * (len(field) - 1)) if field[0] == 0xFF else value
    digits = field.partition(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def checks(block: bytes) -> bool:
    """Say whether a header's checksum holds, summed over unsigned bytes or (old Sun tars) signed ones."""
    counted = block[:148] + block[156:]
    unsigned = 256 + sum(counted)
    wanted = number(block[148:156])
    return wanted == unsigned or wanted == unsigned - 256 * sum(byte > 127 for byte in counted)


def parse(block: bytes, shard: str, offset: int) -> Header:
    """Return what a header block says.

    Args:
        block: 512 bytes that are not all zero.
        shard: URL for messages.
        offset: where the block lies in the shard, for messages.

    Raises:
        TarError: the checksum does not hold, or the size is no number of bytes.
    """
    if not checks(block):
        raise TarError(
            f"Cannot scan {shard}: the block at byte {offset} is no tar header (its checksum does not hold). The shard "
            "is damaged there, or no tar file at all: restore or rewrite it.",
            shard=shard,
            offset=offset,
            expected="a header with a valid checksum",
            found=block[:16],
        )
    name = block[:100].partition(b"\0")[0]
    kind = block[156]
    if block[345] and kind not in b"LKS":
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    if kind == 0 and name.endswith(b"/"):
        kind = ord("5")
    size = number(block[124:136])
    if size is None or size < 0:
        raise TarError(
            f"Cannot scan {shard}: the size of {text(name)!r} (header at byte {offset}) is {block[124:136]!r}, "
            "not an octal or base-256 number. The shard is damaged there: restore or rewrite it.",
            shard=shard,
            key=text(name),
            offset=offset,
            expected="an octal or base-256 size",
            found=block[124:136],
        )
    return Header(name, size, kind)


def refuse_unsupported(head: Header, *, sparse: bool, name: bytes, shard: str, offset: int) -> None:
    """Refuse links and sparse members, whose bytes are not one range of this shard.

    Args:
        head: the member's header.
        sparse: whether a PAX extension calls the member sparse.
        name: the member's full name.
        shard: URL for messages.
        offset: where the member's first header lies.

    Raises:
        TarError: the member is a hard or symbolic link, or sparse.
    """
    what = "a sparse member" if sparse else _REFUSED.get(head.kind)
    if what is None:
        return
    raise TarError(
        f"Cannot index {shard}: {text(name)!r} is {what} (header at byte {offset}), so its bytes are not one range of "
        "the shard. Rewrite the shard with whole members: `tar --dereference --hard-dereference`, without --sparse.",
        shard=shard,
        key=text(name),
        offset=offset,
        expected="a regular member",
        found=what,
    )


def pax_records(body: bytes, shard: str, offset: int) -> dict[str, bytes]:
    """Return the records of a PAX extension header: keyword → raw value.

    Args:
        body: the extension's bytes, without padding.
        shard: URL for messages.
        offset: where the extension's header lies, for messages.

    Raises:
        TarError: a record is malformed, or a path holds a NUL.
    """
    records: dict[str, bytes] = {}
    at = 0
    body = body.rstrip(b"\0")  # tarfile forgives a size that counts padding
    while at < len(body):
        match = _PAX_RECORD.match(body, at)
        stop = at + int(match[1]) if match else 0
        if match is None or stop <= match.end() or stop > len(body) or body[stop - 1 : stop] != b"\n":
            raise _bad_pax(f"a PAX record that is malformed ({body[at : at + 24]!r})", shard, offset)
        records[text(match[2])] = body[match.end() : stop - 1]
        at = stop
    if b"\0" in records.get("path", b""):
        raise _bad_pax("a PAX path with a NUL in it", shard, offset)
    return records


def pax_size(value: bytes, shard: str, offset: int) -> int:
    """Return the size that a PAX record gives.

    Raises:
        TarError: the value is not a decimal number.
    """
    if not value.isdigit() or len(value) > 19:
        raise _bad_pax(f"the PAX size {text(value)!r}, which is no number of bytes", shard, offset)
    return int(value)


def _bad_pax(what: str, shard: str, offset: int) -> TarError:
    return TarError(
        f"Cannot scan {shard}: the extension header at byte {offset} holds {what}. The shard is damaged there: restore "
        "or rewrite it.",
        shard=shard,
        offset=offset,
        expected="PAX records `length keyword=value`",
        found=what,
    )
