"""A tar file's members from its headers alone: it says which bytes it wants, is fed them, and gives members out.

Takes bytes of one shard, in order, with the bodies left out where the caller likes; gives the offset and size of every
regular member. Pure: whoever drives it opens files, seeks and warns (see scanning.py).

Long runs of plain headers are checked many at a time in fastruns.py; everything else goes through `_step` here, which
alone is complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.fastruns import FastRuns, Run
from seta_stream.corpus.header import (
    BLOCK,
    EXTENSION_LIMIT,
    EXTENSIONS,
    EXTENSIONS_AT_ONCE,
    REGULAR,
    WITHOUT_BODY,
    Header,
    padded,
    parse,
    pax_records,
    pax_size,
    refuse_unsupported,
    text,
)
from seta_stream.errors import TarError

_NO_BLOCK: Final = b"\0" * BLOCK
_SHORT_RUN: Final = 16
"""Runs below this many members are stepped through: checking them together would cost more."""


@dataclass(frozen=True, eq=False)
class Members:
    """Regular members in shard order.

    Args:
        start: int64 [members], offset of the first header, extension headers included.
        data: int64 [members], offset of the body.
        size: int64 [members], bytes of body, without padding.
        names: the members' names, each ended by a NUL; raw bytes as they stand in the headers.
    """

    start: NDArray[np.int64]
    data: NDArray[np.int64]
    size: NDArray[np.int64]
    names: bytes

    def __len__(self) -> int:
        return len(self.start)


@dataclass(slots=True)
class _Extensions:
    """What extension headers say of the member that follows; the first that says a thing wins, as in tarfile."""

    name: bytes | None = None
    size: int | None = None
    sparse: bool = False

    def add(self, head: Header, content: bytes, shard: str, offset: int) -> None:
        if head.kind == ord("L"):
            name = content.partition(b"\0")[0]
            self.name = name if self.name is None else self.name
        elif head.kind != ord("K"):
            records = pax_records(content, shard, offset)
            if self.name is None and "path" in records:
                self.name = records["path"].rstrip(b"/")
            if self.size is None and "size" in records:
                self.size = pax_size(records["size"], shard, offset)
            self.sparse |= any(keyword.startswith("GNU.sparse.") for keyword in records)


_NO_EXTENSIONS: Final = _Extensions()


class TarScanner:
    """Feeds on a tar file's headers.

    A driver feeds bytes that begin at `offset`, at least `need` of them, until `finished`; where the shard has fewer,
    it calls `end`. Feeding more at once is faster for small members; bodies may be jumped over.

    Args:
        shard: URL for messages.
    """

    def __init__(self, shard: str) -> None:
        self._shard = shard
        self.offset = 0
        """Where the next bytes must begin."""
        self.need = BLOCK
        """How many are needed at least."""
        self.finished = False
        """Whether the end of the archive was met."""
        self.missing_end = False
        """Whether the shard stopped without end-of-archive blocks."""
        self.count = 0
        """Members found so far."""
        self._last = ""
        self._last_start = 0
        self._global = _Extensions()
        self._runs: list[Run] = []
        self._steps: list[tuple[int, int, int, bytes]] = []

    def feed(self, data: bytes) -> None:
        """Take bytes from `offset` on; afterwards `offset`, `need`, `finished` and `count` say where the scan stands.

        Raises:
            TarError: a header is garbled, or a member is of a kind that is refused.
        """
        self.need = BLOCK
        at = 0
        fast = FastRuns(data, self._shard, self.offset) if len(data) >= _SHORT_RUN * 2 * BLOCK else None
        steps = 0
        while not self.finished and at + BLOCK <= len(data):
            if fast is not None and steps <= 0 and self._global == _NO_EXTENSIONS:
                run = fast.run(at // BLOCK)
                if run is not None and len(run) >= _SHORT_RUN:
                    self._add_run(run)
                    at = run.stop - self.offset
                    continue
                steps = _SHORT_RUN
            steps -= 1
            behind = self._step(data, at)
            if behind is None:
                break
            at = behind
        self.offset += at

    def end(self, total: int, tail: bytes = b"") -> None:
        """Learn that the shard has no more bytes than `total`, of which `tail` begins at `offset`.

        Raises:
            TarError: the shard is empty, or stops inside a header or a body.
        """
        if self.finished:
            return
        if total == 0:
            what, found, offset = "is empty: 0 bytes, where a tar has at least its end blocks (byte 0)", 0, 0
        elif total < self.offset:
            what, found, offset = f"ends inside the body of {self._last!r}, whose header is", total, self._last_start
        elif not tail.strip(b"\0"):
            self.finished = self.missing_end = True
            return
        elif len(tail) < BLOCK:
            what = f"ends inside a header: 512 bytes were expected and {len(tail)} found"
            found, offset = len(tail), self.offset
        else:
            what, found, offset = "ends inside an extension header", len(tail), self.offset
        where = "" if total == 0 else f" at byte {offset}"
        raise TarError(
            f"Cannot scan {self._shard}: it {what}{where}. The shard is truncated: restore or rewrite it.",
            shard=self._shard,
            offset=offset,
            expected="a whole member",
            found=found,
        )

    def members(self) -> Members:
        """Return all members found so far, in shard order."""
        self._flush()
        runs = self._runs
        return Members(
            start=np.concatenate([np.zeros(0, np.int64), *(run.start for run in runs)]),
            data=np.concatenate([np.zeros(0, np.int64), *(run.data for run in runs)]),
            size=np.concatenate([np.zeros(0, np.int64), *(run.size for run in runs)]),
            names=b"".join(run.names for run in runs),
        )

    def last(self, most: int) -> tuple[list[int], list[int]]:
        """Return the offsets of the headers and of the bodies of the last members, `most` at most, in shard order."""
        starts = [start for start, *_ in self._steps[-most:]]
        datas = [data for _, data, *_ in self._steps[-most:]]
        for run in reversed(self._runs):
            room = most - len(starts)
            if not room:
                break
            starts[:0] = run.start[-room:].tolist()
            datas[:0] = run.data[-room:].tolist()
        return starts, datas

    def _add_run(self, run: Run) -> None:
        self._flush()
        self._runs.append(run)
        self.count += len(run)
        self._last, self._last_start = text(run.names[:-1].rpartition(b"\0")[2]), int(run.start[-1])

    def _flush(self) -> None:
        """Turn the members that were stepped through into a run, so that order is kept."""
        if self._steps:
            starts, datas, sizes, names = zip(*self._steps, strict=True)
            start, data, size = (np.array(column, np.int64) for column in (starts, datas, sizes))
            self._runs.append(Run(start, data, size, b"".join(names), stop=0))
            self._steps = []

    def _step(self, data: bytes, at: int) -> int | None:
        """Take one member with its extension headers at data[at:]; return where the next begins, None if it is cut."""
        begin = first = at
        extensions, count = _Extensions(), 0
        while True:
            block = data[at : at + BLOCK]
            if len(block) < BLOCK:
                self.need = at + BLOCK - begin
                return None
            offset = self.offset + at
            if block == _NO_BLOCK:
                return self._end_mark(at, first)
            head = parse(block, self._shard, offset)
            if head.kind not in EXTENSIONS:
                self._take(head, extensions, self.offset + first, offset + BLOCK)
                return at + BLOCK + self._body(head, extensions)
            behind = at + BLOCK + padded(head.size)
            count += 1
            self._refuse_long(head, count, behind - begin, offset)
            if behind > len(data):
                self.need = behind + BLOCK - begin
                return None
            content = data[at + BLOCK : at + BLOCK + head.size]
            if head.kind == ord("g"):
                self._set_global(head, content, offset)
                first = behind if first == at else first
            else:
                extensions.add(head, content, self._shard, offset)
            at = behind

    def _refuse_long(self, head: Header, count: int, span: int, offset: int) -> None:
        """Refuse an extension header that is too long, or stands behind too many others."""
        if head.size > EXTENSION_LIMIT:
            raise self._broken(f"an extension header of {head.size} bytes; at most {EXTENSION_LIMIT} are read", offset)
        if count > EXTENSIONS_AT_ONCE or span > EXTENSIONS_AT_ONCE * EXTENSION_LIMIT // 16:
            raise self._broken(
                f"the last of {count} extension headers, {span} bytes, before one member; {EXTENSIONS_AT_ONCE} are "
                "read, and a few bytes in each",
                offset,
            )

    def _set_global(self, head: Header, content: bytes, offset: int) -> None:
        """A global PAX header holds for all members behind it; a later one wins."""
        new, old = _Extensions(), self._global
        new.add(head, content, self._shard, offset)
        self._global = _Extensions(
            name=old.name if new.name is None else new.name,
            size=old.size if new.size is None else new.size,
            sparse=old.sparse or new.sparse,
        )

    def _end_mark(self, at: int, first: int) -> int:
        """A zero block ends the archive (one is enough, as in tarfile), but not between extension and member."""
        if at != first:
            raise self._broken("an extension header, but no member follows it", self.offset + first)
        self.finished = True
        return at

    def _body(self, head: Header, extensions: _Extensions) -> int:
        return 0 if head.kind in WITHOUT_BODY else padded(self._size(head, extensions))

    def _size(self, head: Header, extensions: _Extensions) -> int:
        found = (extensions.size, self._global.size, head.size)
        return next(size for size in found if size is not None)

    def _take(self, head: Header, extensions: _Extensions, start: int, data: int) -> None:
        """Note a member if it is a regular one; refuse what cannot be read as one range; skip the rest."""
        found = (extensions.name, self._global.name, head.name)
        name = next(name for name in found if name is not None)
        sparse = extensions.sparse or self._global.sparse
        refuse_unsupported(head, sparse=sparse, name=name, shard=self._shard, offset=start)
        self._last, self._last_start = text(name), start
        if head.kind in REGULAR:
            self._steps.append((start, data, self._size(head, extensions), name + b"\0"))
            self.count += 1

    def _broken(self, what: str, offset: int) -> TarError:
        return TarError(
            f"Cannot scan {self._shard}: at byte {offset} stands {what}. The shard is damaged there: restore or "
            "rewrite it.",
            shard=self._shard,
            offset=offset,
            expected="a member",
            found=what,
        )
