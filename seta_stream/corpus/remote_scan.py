"""One remote shard → its members: by hops from header to header, or in large spans, whichever costs less.

Takes an open object and the conditions; gives a scanner that has seen every header. Effects: ranged requests, a clock.

The way is chosen anew every few members, by how far apart the last ones stood, so a shard whose members change in size
is read right and fast; what was asked for and lies inside a body that turned out large is given up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import ExitStack
from typing import Final, Self, TypeVar

from seta_stream.corpus.conditions import Conditions, Step
from seta_stream.corpus.costs import Spacing
from seta_stream.corpus.tar import TarScanner
from seta_stream.store import Answer, ShardFile

KNOWN: Final = 8
"""Members that must be known before they decide the way."""
RECENT: Final = 64
"""The last members, so many at most, decide it."""
UNTIMED: Final = 2
"""First reads of a shard: where many begin at once, what they wait for is new connections."""
READS: Final = 8
"""Requests after which it is decided anew, which takes as long as one of them."""

Compressed = TypeVar("Compressed")


def scan_remote(
    url: str, file: ShardFile, conditions: Conditions, look: Callable[[bytes], Compressed | None]
) -> TarScanner | Compressed:
    """Return a scanner that has seen all of a shard; or what `look` says of its first bytes, where that is not None.

    Args:
        url: of the shard, for messages.
        file: open on the version that is indexed.
        conditions: shared by the scans of this process.
        look: first bytes → what they are, where they begin no tar.

    Raises:
        TarError, ReadError, ShardChangedError: as for scanning.scan_shard.
        CancelledError: the conditions were stopped.
    """
    scanner = TarScanner(url)
    ahead = _Ahead(file, conditions)
    size = file.info.size
    with conditions.live(ahead), _Chooser(conditions, size) as chooser:
        try:
            while not scanner.finished:
                left = max(0, size - scanner.offset)
                step = chooser.step(scanner)
                data = ahead.take(scanner.offset, min(scanner.need, left), step)
                if scanner.offset == 0:
                    other = look(data)
                    if other is not None:
                        return other
                if len(data) < scanner.need:
                    scanner.end(size, data)
                else:
                    scanner.feed(data)
        finally:
            ahead.cancel()
    return scanner


class _Chooser:
    """Chooses one shard's way; while it is read whole, holds one of the places for that."""

    def __init__(self, conditions: Conditions, size: int) -> None:
        self._conditions = conditions
        self._size = size
        self._step = conditions.first
        self._count = 0  # members at the last decision
        self._reads = 0
        self._seat = ExitStack()
        self._is_seated = False

    def __enter__(self) -> Self:
        self._sit(self._step)
        return self

    def __exit__(self, *_: object) -> None:
        self._seat.close()

    def step(self, scanner: TarScanner) -> Step:
        """Return how to read on."""
        self._reads += 1
        if scanner.count - self._count >= KNOWN and (self._count == 0 or self._reads >= READS):
            now = self._step.way if self._count else None
            self._count, self._reads = scanner.count, 0
            starts, datas = scanner.last(RECENT)
            spacing = Spacing.between(starts, datas, scanner.offset)
            self._sit(self._conditions.step(spacing, self._size - scanner.offset, now))
        return self._step

    def _sit(self, step: Step) -> None:
        if step.way == "hops":
            self._seat.close()
        elif not self._is_seated:
            self._seat.enter_context(self._conditions.seat())
        self._is_seated = step.way == "whole"
        self._step = step


class _Ahead:
    """The bytes of one object from a position on, with the next spans under way.

    Args:
        file: the object.
        conditions: learn from every read.
    """

    def __init__(self, file: ShardFile, conditions: Conditions) -> None:
        self._file = file
        self._size = file.info.size
        self._conditions = conditions
        self._held = b""  # from self._begin on
        self._begin = 0
        self._reads = 0
        self._asked: deque[tuple[int, int, Answer]] = deque()  # (start, stop, answer), one behind another

    def take(self, offset: int, least: int, step: Step) -> bytes:
        """Return the bytes from `offset` on that are there, at least `least`; the next are asked for."""
        self._pass(offset)
        if step.way == "hops" and len(self._asked) > 1:  # no longer read whole: most of these lie inside bodies
            self.cancel()
            self._asked.clear()
        while len(self._held) < max(least, 1) and self._begin + len(self._held) < self._size:
            is_timed = step.way == "hops" and not self._asked and self._reads >= UNTIMED
            began = time.monotonic()
            self._ask(least, step)
            start, _, answer = self._asked[0]
            data = answer.result()
            self._asked.popleft()
            self._reads += 1
            if is_timed:
                self._conditions.hopped(time.monotonic() - began, len(data))
            elif step.way == "whole":
                self._conditions.came(len(data))
            known = self._begin + len(self._held)
            self._held = b"".join([self._held, memoryview(data)[known - start :]])
        if step.way == "whole":
            self._ask(0, step)
        return self._held

    def _pass(self, offset: int) -> None:
        """Drop what lies before `offset`, and give up what was asked for there."""
        self._held = self._held[offset - self._begin :]
        self._begin = offset
        while self._asked and self._asked[0][1] <= offset + len(self._held):
            self._asked.popleft()[2].cancel()

    def _ask(self, least: int, step: Step) -> None:
        """Have `step.spans` spans under way, the first of them long enough for `least` bytes."""
        at = self._asked[-1][1] if self._asked else self._begin + len(self._held)
        spans: list[tuple[int, int]] = []
        while len(self._asked) + len(spans) < step.spans and at < self._size:
            first = self._begin + least - at if not (spans or self._asked) else 0
            length = min(max(step.read_bytes, first), self._size - at)
            spans.append((at, length))
            at += length
        if spans:
            for (start, length), answer in zip(spans, self._file.ask(spans), strict=True):
                self._asked.append((start, start + length, answer))
            if self._conditions.is_stopped:
                self.cancel()
                raise CancelledError

    def cancel(self) -> None:
        """Give up all that is under way; safe from another thread."""
        for _, _, answer in list(self._asked):
            answer.cancel()
