"""The headers of a shard, read ahead at the places where an index puts them.

Takes an open shard and places; gives the bytes from any position on, in ascending order. Acts: reads. The places are
only where it pays to look: bytes are right whatever they say, since what is missing is read when it is asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final

import numpy as np

from seta_stream.corpus.header import BLOCK, EXTENSION_LIMIT, EXTENSIONS, WITHOUT_BODY, padded, parse
from seta_stream.corpus.interop_claims import Offsets
from seta_stream.corpus.tar import TarScanner
from seta_stream.errors import TarError
from seta_stream.store import Answer, ShardFile

HOP: Final = 4096
"""Bytes per read where bodies are jumped over: one page."""
WINDOW: Final = 4 << 20
WINDOWS: Final = {True: 1, False: 8}
"""Windows under way where everything is read, by whether the shard is near: 32 MiB of memory."""
STRIDE: Final = {True: 64 << 10, False: 128 << 10}
"""Mean bytes between places from which jumping pays: a cold page costs as much as 400 KB in sequence, a request to a
bucket about 110 µs of processor time, in which 100 KB come at 1 GB/s."""
BATCH: Final = 1024
"""Places that are read ahead at once: 4 MiB."""
ROUNDS: Final = 64
"""Members of one sample that are followed ahead; what lies behind them is read one by one."""


class HeadersAhead:
    """Gives the bytes from a position on; positions only ascend.

    Args:
        file: the open shard.
        places: int64 [n], ascending: where headers are expected.
        is_complete: whether every member has its place; else the members behind each are followed, many at once.
    """

    def __init__(self, file: ShardFile, places: Offsets, *, is_complete: bool) -> None:
        self._file = file
        self._size = file.info.size
        self._places = places
        self._is_complete = is_complete
        self._is_dense = self._size < STRIDE[file.is_near] * max(1, len(places))
        # Spans that are held, ascending; the places before `_covered` were all read.
        self._starts: list[int] = []
        self._pieces: list[bytes] = []
        self._covered = 0
        # Windows under way, one behind another: (start, stop, answer), and where the next one begins.
        self._asked: deque[tuple[int, int, Answer]] = deque()
        self._next = 0
        if not self._is_dense and len(places) > BATCH // 16:
            file.advise_scattered()

    def take(self, offset: int, need: int) -> bytes:
        """Return the bytes from `offset` on that are held; at least `need`, which the shard must have."""
        data = self._held(offset)
        if len(data) >= need:
            return data
        if self._is_dense:
            data += self._read_windows(offset + len(data))
        elif offset >= self._covered:
            self._read_places(offset)
            data = self._held(offset)
        if len(data) >= need:
            return data
        # Where no place was, or more is wanted than a place gave.
        return self._file.read(offset, min(max(HOP, need), self._size - offset))

    def _held(self, offset: int) -> bytes:
        at = bisect_right(self._starts, offset) - 1
        return self._pieces[at][offset - self._starts[at] :] if at >= 0 else b""

    def _read_windows(self, offset: int) -> bytes:
        """Return the bytes from `offset`, inside the shard, to the end of a window; the next ones are under way."""
        while self._asked and self._asked[0][1] <= offset:
            self._asked.popleft()[2].cancel()
        if not self._asked:
            self._next = offset
        self._ask_windows()
        start, _, answer = self._asked.popleft()
        self._ask_windows()
        self._starts, self._pieces = [start], [bytes(answer.result())]
        return self._held(offset)

    def _ask_windows(self) -> None:
        spans: list[tuple[int, int]] = []
        while self._next < self._size and len(self._asked) + len(spans) < WINDOWS[self._file.is_near]:
            spans.append((self._next, min(WINDOW, self._size - self._next)))
            self._next += WINDOW
        answers = self._file.ask(spans) if spans else ()
        self._asked.extend(
            (start, start + length, answer) for (start, length), answer in zip(spans, answers, strict=True)
        )

    def cancel(self) -> None:
        """Give up what is under way."""
        while self._asked:
            self._asked.popleft()[2].cancel()

    def _read_places(self, offset: int) -> None:
        """Read the headers at the next places, and those behind them, as far as the places beyond."""
        first = int(np.searchsorted(self._places, offset, "right"))
        chosen = [offset, *self._places[first : first + BATCH - 1].tolist()]
        beyond = self._places[first + BATCH - 1 : first + BATCH].tolist()
        self._covered = limit = beyond[0] if beyond else self._size
        held = self._read(chosen)
        if not self._is_complete:
            limits = dict(zip(chosen, [*chosen[1:], limit], strict=True))
            self._follow(held, limits)
        self._starts = sorted(held)
        self._pieces = [held[start] for start in self._starts]

    def _follow(self, held: dict[int, bytes], limits: dict[int, int]) -> None:
        """Add to `held` the headers between each of its places and that place's limit, one of each per round."""
        for _ in range(ROUNDS):
            following = {}
            for place, limit in limits.items():
                behind = behind_header(held[place])
                if behind is not None and place + behind + BLOCK < limit:
                    following[place + behind] = limit
            if not following:
                return
            held.update(self._read(list(following)))
            limits = following

    def _read(self, places: list[int]) -> dict[int, bytes]:
        inside = [place for place in places if place < self._size]
        parts = self._file.read_spans([(place, min(HOP, self._size - place)) for place in inside])
        return {**dict.fromkeys(places, b""), **dict(zip(inside, parts, strict=True))}


def behind_header(data: bytes) -> int | None:
    """Return how far behind the begin of `data` the header after its first member lies; None where that is unclear.

    A guess that costs a read where it is wrong: sizes that extension headers give are not looked at.
    """
    at = 0
    while at + BLOCK <= len(data):
        block = data[at : at + BLOCK]
        try:
            head = parse(block, "", at) if block.strip(b"\0") else None
        except TarError:
            return None
        if head is None or (head.kind in EXTENSIONS and head.size > EXTENSION_LIMIT):
            return None
        at += BLOCK + (0 if head.kind in WITHOUT_BODY else padded(head.size))
        if head.kind not in EXTENSIONS:
            return at
    return None


def walk(file: ShardFile, places: Offsets, *, is_complete: bool, begin: int = 0) -> TarScanner:
    """Return a scanner that has seen every header of a shard from `begin` on.

    Args:
        file: the open shard.
        places, is_complete: as for HeadersAhead.
        begin: where a header stands.

    Raises:
        TarError: the shard is damaged, or holds a member that is refused.
        ReadError, ShardChangedError: the shard cannot be read.
    """
    scanner = TarScanner(file.url)
    scanner.offset = begin
    ahead = HeadersAhead(file, places, is_complete=is_complete)
    size = file.info.size
    try:
        while not scanner.finished:
            left = max(0, size - scanner.offset)
            if left < scanner.need:
                scanner.end(size, file.read(scanner.offset, left) if left else b"")
            else:
                scanner.feed(ahead.take(scanner.offset, scanner.need))
    finally:
        ahead.cancel()
    return scanner
