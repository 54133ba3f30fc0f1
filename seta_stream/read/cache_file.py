"""A shard behind the cache: what is there is read here, what is missing is fetched in whole blocks and kept.

Takes spans; gives answers, as any ShardFile does. Effects: positional reads of the cache's file, and requests for what
it lacks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from seta_stream.read.cache_asking import Coming, Counts, Fetch, Fetching
from seta_stream.read.cache_blocks import BlockFile
from seta_stream.store import Answer, Bytes, LateAnswer, ShardFile

Span = tuple[int, int]


class Keeper(Protocol):
    """What a cached file needs of the cache."""

    counts: Counts
    fetching: Fetching
    run_bytes: int
    """Blocks are fetched in runs of so many bytes at most."""

    @property
    def is_storing(self) -> bool:
        """Whether the cache takes more."""
        ...


class CachedFile:
    """An open shard whose blocks are kept on this machine.

    Args:
        inner: the shard itself.
        blocks: what is kept of it.
        keeper: the cache.
    """

    __slots__ = ("_blocks", "_inner", "_keeper", "info", "url")

    def __init__(self, inner: ShardFile, blocks: BlockFile, keeper: Keeper) -> None:
        self.url = inner.url
        self.info = inner.info
        self._inner = inner
        self._blocks = blocks
        self._keeper = keeper

    @property
    def is_near(self) -> bool:
        """Whether reads are local ones from the second time on: the cache takes what is missing, or holds all."""
        return self._blocks.is_sure or self._is_storing or self._blocks.is_whole

    @property
    def _is_storing(self) -> bool:
        return self._blocks.is_writable and self._keeper.is_storing

    @property
    def holds_all(self) -> bool:
        """Whether every block lies on this machine."""
        blocks = self._blocks
        if not blocks.is_sure and not blocks.is_whole:
            blocks.refresh()
        return blocks.is_sure or blocks.is_whole

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`."""
        return self.read_spans([(offset, length)])[0]

    def read_spans(self, spans: Sequence[Span]) -> list[bytes]:
        """Return the bytes of each (offset, length), in order; plain reads where all of them lie here."""
        blocks = self._blocks
        if blocks.is_sure or blocks.are_sure(spans):
            fd, base, pread = blocks.fd, blocks.data_at, os.pread
            with suppress(OSError):
                parts = [pread(fd, length, base + offset) for offset, length in spans]
                total = sum(map(len, parts))
                if total == sum([length for _, length in spans]):
                    self._keeper.counts.add(hits=len(parts), hit_bytes=total)
                    return parts
        answers = self.ask(spans)
        try:
            return [bytes(answer.result()) for answer in answers]
        except BaseException:
            for answer in answers:
                answer.cancel()
            raise

    def ask(self, spans: Sequence[Span]) -> list[Answer]:
        """Begin to fetch what is missing and return at once; what is there is read when it is wanted."""
        with self._keeper.fetching.lock:
            missing = self._missing(spans)
            if not self._is_storing:
                return self._ask_around(spans, missing)
            fetches = self._runs(missing)
            coming = self._blocks.coming
            answers: list[Answer] = []
            for (offset, length), lacking in zip(spans, missing, strict=True):
                if lacking:
                    wanted = list(dict.fromkeys(coming[block] for block in lacking))
                    answers.append(Coming(self._keeper.fetching, wanted, offset, length, self._cut, self._ask_itself))
                else:
                    answers.append(LateAnswer(self._read_here, offset, length))
            self._count(spans, missing)
            self._keeper.fetching.begin(fetches)
            return answers

    def _missing(self, spans: Sequence[Span]) -> list[list[int]]:
        """Return the blocks of each span that are not here."""
        blocks = self._blocks
        touched = [blocks.layout.touched(offset, length) for offset, length in spans]
        missing = [blocks.missing(first, stop) for first, stop in touched]
        if any(missing):
            blocks.refresh()
            # Whatever else is damaged in a span that has to wait comes with what it waits for.
            blocks.are_sure(
                [span for span, (first, stop) in zip(spans, touched, strict=True) if blocks.missing(first, stop)]
            )
            missing = [blocks.missing(first, stop) for first, stop in touched]
        return missing

    def _ask_around(self, spans: Sequence[Span], missing: list[list[int]]) -> list[Answer]:
        """Ask for spans that are not here as they are: whole blocks would be thrown away."""
        far = [span for span, lacking in zip(spans, missing, strict=True) if lacking]
        self._keeper.counts.add(fetched=sum(length for _, length in far), requests=len(far))
        self._count(spans, missing)
        asked = iter(self._inner.ask(far) if far else ())
        return [
            next(asked) if lacking else LateAnswer(self._read_here, *span)
            for span, lacking in zip(spans, missing, strict=True)
        ]

    def _ask_itself(self, offset: int, length: int) -> Answer:
        self._keeper.counts.add(fetched=length, requests=1)
        (answer,) = self._inner.ask([(offset, length)])
        return answer

    def _count(self, spans: Sequence[Span], missing: list[list[int]]) -> None:
        far = [length for (_, length), lacking in zip(spans, missing, strict=True) if lacking]
        misses, miss_bytes = len(far), sum(far)
        hit_bytes = sum(length for _, length in spans) - miss_bytes
        self._keeper.counts.add(hits=len(spans) - misses, hit_bytes=hit_bytes, misses=misses, miss_bytes=miss_bytes)

    def _runs(self, missing: list[list[int]]) -> list[Fetch]:
        """Return the fetches of blocks that are missing and not on their way: neighbours together, first wanted first.

        They are entered among what is coming.
        """
        blocks = self._blocks
        rank: dict[int, int] = {}
        for number, lacking in enumerate(missing):
            for block in lacking:
                if block not in blocks.coming:
                    rank.setdefault(block, number)
        # A tar ends in zeros that no sample wants: where they alone fill the last block, it comes with the one before,
        # or the shard would never be whole.
        last = blocks.layout.blocks - 1
        is_wanted = last in rank
        if last - 1 in rank and last not in blocks.coming and blocks.missing(last, last + 1):
            rank.setdefault(last, rank[last - 1])
        longest = max(1, self._keeper.run_bytes // blocks.layout.block_bytes)
        runs: list[list[int]] = []
        for block in sorted(rank):
            follows = bool(runs) and runs[-1][-1] == block - 1
            # Nobody waits for the zeros alone: they go with the others, however many those are.
            if follows and (len(runs[-1]) < longest or (block == last and not is_wanted)):
                runs[-1].append(block)
            else:
                runs.append([block])
        runs.sort(key=lambda run: min(rank[block] for block in run))
        fetches = [Fetch(self._inner, blocks, run[0], run[-1] + 1) for run in runs]
        for fetch in fetches:
            blocks.coming.update(dict.fromkeys(range(fetch.first, fetch.stop), fetch))
        return fetches

    def _read_here(self, offset: int, length: int) -> bytes:
        """Read a span whose blocks have their entries; fetch it where they do not keep what those say."""
        data = self._here(offset, length)
        if data is not None:
            return data
        (answer,) = self.ask([(offset, length)])
        return bytes(answer.result())

    def _cut(self, offset: int, length: int, fetches: Sequence[Fetch]) -> Bytes:
        """Return a span of which some blocks were fetched just now: out of what came, or of the cache."""
        stop, parts = offset + length, []
        held = [fetch for fetch in fetches if fetch.data is not None]
        while offset < stop:
            fetch = next((one for one in held if one.offset <= offset < one.offset + one.length), None)
            if fetch is not None:
                data = memoryview(fetch.data or b"")[offset - fetch.offset : stop - fetch.offset]
            else:
                until = min([stop, *(one.offset for one in held if one.offset > offset)])
                here = self._here(offset, until - offset)
                if here is None:
                    return self._ask_itself(stop - length, length).result()
                data = memoryview(here)
            parts.append(data)
            offset += len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _here(self, offset: int, length: int) -> bytes | None:
        """Return bytes whose blocks are here and match; None where they do not."""
        blocks = self._blocks
        is_sure = blocks.is_sure or blocks.are_sure([(offset, length)])
        return blocks.read(offset, length) if is_sure else None

    def check(self) -> None:
        """What was fetched is of the version wanted, whatever the object is now."""
        self._inner.check()

    def advise_scattered(self) -> None:
        """Tell that small reads far apart follow."""
        self._blocks.advise_scattered()
        self._inner.advise_scattered()

    def close(self) -> None:
        """Give the shard itself back; the cache's file closes when nobody reads from it any more."""
        self._inner.close()
