"""A parser with planted mistakes, which shows that the others would be found: no part of FAMILIES.

A record is a magic, a length and a body; the mistakes lie behind some comparisons each, where blind changes do not
lead: one raises what is no error of the package, the other takes 4 GiB.
"""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.making import refusing
from seta_stream.errors import CorpusError


def seeds() -> Iterator[bytes]:
    """Give a right record."""
    yield b"TOY1\x03abc"


def one(data: bytes) -> None:
    """Parse a record."""
    with refusing():
        _parse(data)


def _parse(data: bytes) -> bytes:
    if data[:3] != b"TOY" or len(data) < 5:
        raise CorpusError("This is no record of a toy.")
    body = data[5 : 5 + data[4]]
    if data[3:4] == b"2":
        if body[:1] == b"!":
            return body[: body[1]] + bytes([body[data[4]]])  # an IndexError where the body is shorter than it says
        if body[:1] == b"#" and body[1:2] == b"M":
            return bytes(4 << 30)
    if data[3:4] not in {b"1", b"2"}:
        raise CorpusError("This record is of a version that no toy has.")
    return body
