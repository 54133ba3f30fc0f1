"""Header by header through a part of a tar: what the scanner passes over, global headers among it.

Takes bytes by position; gives members of every kind. Pure but for what the given function reads. It is slow beside
corpus/tar.py, and only walks what lies beside samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from seta_stream.corpus.header import (
    BLOCK,
    EXTENSION_LIMIT,
    EXTENSIONS,
    WITHOUT_BODY,
    Header,
    padded,
    parse,
    pax_records,
    pax_size,
)
from seta_stream.errors import TarError

GLOBAL: Final = ord("g")

Read = Callable[[int, int], bytes | memoryview]
"""(offset, length) → exactly these bytes."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One member with its extension headers, or one global header.

    Args:
        start: offset of its first header.
        stop: offset behind its padding.
        kind: its type flag; GLOBAL for a global header.
        name: of the member, raw.
        records: what a global header says.
    """

    start: int
    stop: int
    kind: int
    name: bytes = b""
    records: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Told:
    """What extension headers say of the member that follows; the first that says a thing wins, as in tarfile."""

    name: bytes | None = None
    size: int | None = None

    def add(self, kind: int, content: bytes, shard: str, offset: int) -> None:
        if kind == ord("L"):
            self.name = content.partition(b"\0")[0] if self.name is None else self.name
        elif kind != ord("K"):
            records = pax_records(content, shard, offset)
            if self.name is None and "path" in records:
                self.name = records["path"].rstrip(b"/")
            if self.size is None and "size" in records:
                self.size = pax_size(records["size"], shard, offset)


def units(read: Read, begin: int, end: int, shard: str) -> Iterator[Unit]:
    """Give what stands between two offsets, up to the first zero block.

    Args:
        read: of these bytes.
        begin: where a header begins.
        end: where no member goes beyond.
        shard: URL for messages.

    Raises:
        TarError: a header is garbled, or a member goes beyond the end.
    """
    start = at = begin
    told = _Told()
    while at + BLOCK <= end:
        block = bytes(read(at, BLOCK))
        if not block.strip(b"\0"):
            return
        head = parse(block, shard, at)
        if head.kind not in EXTENSIONS:
            at += BLOCK + _body(head, told)
            _refuse_cut(at, end, shard, start)
            yield Unit(start, at, head.kind, head.name if told.name is None else told.name)
            start, told = at, _Told()
            continue
        behind = at + BLOCK + padded(head.size)
        _refuse_cut(behind, end, shard, at, head.size)
        content = bytes(read(at + BLOCK, head.size))
        if head.kind == GLOBAL:
            yield Unit(at, behind, GLOBAL, records=pax_records(content, shard, at))
            start = behind if start == at else start
        else:
            told.add(head.kind, content, shard, at)
        at = behind


def _refuse_cut(behind: int, end: int, shard: str, offset: int, extension_bytes: int = 0) -> None:
    if behind > end or extension_bytes > EXTENSION_LIMIT:
        raise TarError(
            f"Cannot scan {shard}: what begins at byte {offset} would end at byte {behind}, behind byte {end}, or is "
            f"an extension header of over {EXTENSION_LIMIT} bytes. The shard is damaged there: restore or rewrite it.",
            shard=shard,
            offset=offset,
            expected=f"an end at byte {end} at most",
            found=behind,
        )


def _body(head: Header, told: _Told) -> int:
    return 0 if head.kind in WITHOUT_BODY else padded(head.size if told.size is None else told.size)
