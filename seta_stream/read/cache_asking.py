"""Blocks on their way into the cache: fetched in runs, a bounded number of bytes at once, kept as they are waited for.

Takes runs of missing blocks; gives answers for the spans in them. Effects: requests through the file that is cached,
and writes of what came, both in the thread that waits: no thread of its own, so nothing has to survive a fork.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from seta_stream.store import Answer, Bytes, ShardFile

if TYPE_CHECKING:
    from seta_stream.read.cache_blocks import BlockFile


class Counts:
    """What the cache gave and what it asked of the bucket, in one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # fetched bytes, requests, hits, bytes of hits, misses, bytes of misses
        self._counts = [0] * 6

    def add(
        self,
        fetched: int = 0,
        requests: int = 0,
        hits: int = 0,
        hit_bytes: int = 0,
        misses: int = 0,
        miss_bytes: int = 0,
    ) -> None:
        """Count."""
        more = (fetched, requests, hits, hit_bytes, misses, miss_bytes)
        with self._lock:
            self._counts = [a + b for a, b in zip(self._counts, more, strict=True)]

    def take(self) -> tuple[int, int, int, int, int, int]:
        """Return what was counted since the last call, in the order of `add`."""
        with self._lock:
            fetched, requests, hits, hit_bytes, misses, miss_bytes = self._counts
            self._counts = [0] * 6
        return fetched, requests, hits, hit_bytes, misses, miss_bytes


class Fetch:
    """A run of missing blocks of one shard.

    Args:
        inner: the file that is cached.
        blocks: where they will lie.
        first, stop: the blocks.
    """

    def __init__(self, inner: ShardFile, blocks: BlockFile, first: int, stop: int) -> None:
        self.inner = inner
        self.blocks = blocks
        self.first, self.stop = first, stop
        self.offset, self.length = blocks.layout.bounds(first, stop)
        self.wanted: dict[Coming, None] = {}
        """Answers that wait for it, in the order of asking."""
        self.answer: Answer | None = None
        self.is_over = False
        self.error: Exception | None = None
        self.data: Bytes | None = None
        """The bytes, where they could not be stored, or nearly all of them are wanted now."""

    @property
    def is_dense(self) -> bool:
        """Whether so much of it is waited for that it costs no more memory than the spans, and no second reading."""
        return sum(one.length for one in self.wanted) * 4 >= self.length * 3

    def end(self) -> None:
        """Say that the blocks are no longer on their way."""
        self.is_over, self.answer = True, None
        self.wanted.clear()
        for block in range(self.first, self.stop):
            if self.blocks.coming.get(block) is self:
                del self.blocks.coming[block]


class Fetching:
    """What one process fetches into the cache.

    Args:
        ahead_bytes: most bytes under way and not stored yet.
        store: keeps blocks; says whether it did.
        counts: of what is asked.
    """

    def __init__(self, ahead_bytes: int, store: Callable[[BlockFile, int, Bytes], bool], counts: Counts) -> None:
        self.lock = threading.RLock()
        self._ahead_bytes = ahead_bytes
        self._store = store
        self._counts = counts
        self._waiting: deque[Fetch] = deque()
        self._begun: dict[Fetch, None] = {}  # in the order in which they were asked for
        self._under_way = 0

    def begin(self, fetches: Sequence[Fetch]) -> None:
        """Ask for runs of blocks as soon as there is room for them, in this order."""
        self._waiting.extend(fetches)
        self._begin()

    def _begin(self) -> None:
        while self._waiting:
            fetch = self._waiting[0]
            if not fetch.is_over and self._begun and self._under_way + fetch.length > self._ahead_bytes:
                return
            self._waiting.popleft()
            if fetch.is_over:
                continue
            try:
                (fetch.answer,) = fetch.inner.ask([(fetch.offset, fetch.length)])
            except Exception as error:  # noqa: BLE001  (whoever wants the blocks raises it)
                fetch.error = error
                fetch.end()
                continue
            self._counts.add(fetched=fetch.length, requests=1)
            self._begun[fetch] = None
            self._under_way += fetch.length

    def land(self, fetch: Fetch) -> None:
        """Wait until a run has come and store it; older ones first, where there is no room for it otherwise."""
        with self.lock:
            while not fetch.is_over:
                self._land(fetch if fetch in self._begun else next(iter(self._begun)))

    def _land(self, fetch: Fetch) -> None:
        assert fetch.answer is not None  # noqa: S101  (what has begun has an answer)
        try:
            data = fetch.answer.result()
        except Exception as error:  # noqa: BLE001  (whoever wants the blocks raises it)
            fetch.error = error
        else:
            is_stored = self._store(fetch.blocks, fetch.first, data)
            if fetch.is_dense or not is_stored:
                fetch.data = data
        self._done(fetch)
        self._begin()

    def _done(self, fetch: Fetch) -> None:
        if fetch in self._begun:
            del self._begun[fetch]
            self._under_way -= fetch.length
        fetch.end()

    def give_up(self, fetch: Fetch) -> None:
        """Cancel a run that nobody waits for any more."""
        with self.lock:
            if fetch.is_over:
                return
            if fetch.answer is not None:
                fetch.answer.cancel()
            self._done(fetch)
            self._begin()

    def pass_on(self) -> None:
        """Ask for the spans themselves in place of runs that are not begun: the cache takes no more."""
        with self.lock:
            waiting = [fetch for fetch in self._waiting if not fetch.is_over]
            self._waiting.clear()
            # Each answer once, in their order, though it may wait for several runs.
            answers = dict.fromkeys(one for fetch in waiting for one in fetch.wanted)
            for fetch in waiting:
                fetch.end()
            for one in answers:
                one.pass_on()

    def close(self) -> None:
        """Give up all that is under way."""
        with self.lock:
            for fetch in [*self._waiting, *self._begun]:
                self.give_up(fetch)
            self._waiting.clear()


class Coming:
    """A span of which some blocks are on their way.

    Args:
        fetching: what they are fetched by.
        fetches: the runs that it waits for.
        offset, length: the span.
        cut: (offset, length, fetches) → bytes, once the runs are over.
        ask: asks for the span itself.
    """

    def __init__(
        self,
        fetching: Fetching,
        fetches: Sequence[Fetch],
        offset: int,
        length: int,
        cut: Callable[[int, int, Sequence[Fetch]], Bytes],
        ask: Callable[[int, int], Answer],
    ) -> None:
        self._fetching = fetching
        self._fetches = fetches
        self._offset = offset
        self.length = length
        self._cut = cut
        self._ask = ask
        self._instead: Answer | None = None
        for fetch in fetches:
            fetch.wanted[self] = None

    def pass_on(self) -> None:
        """Ask for the span itself."""
        if self._instead is None:
            self._instead = self._ask(self._offset, self.length)
            self._leave()

    def result(self) -> Bytes:
        """Wait for the blocks and cut the span out."""
        for fetch in self._fetches:
            if self._instead is None:
                self._fetching.land(fetch)
        if self._instead is not None:
            return self._instead.result()
        for fetch in self._fetches:
            if fetch.error is not None:
                raise fetch.error
        return self._cut(self._offset, self.length, self._fetches)

    def cancel(self) -> None:
        """Give it up; a run that nobody else waits for is not fetched."""
        if self._instead is not None:
            self._instead.cancel()
        self._leave()

    def _leave(self) -> None:
        fetches, self._fetches = self._fetches, ()
        for fetch in fetches:
            fetch.wanted.pop(self, None)
            if not fetch.wanted:
                self._fetching.give_up(fetch)
