"""A bucket in memory that counts what it is asked for, and helpers of the cache's tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from seta_stream.errors import ReadError
from seta_stream.read.cache import BlockCache, OpenCache
from seta_stream.read.options import Cache
from seta_stream.store import ObjectInfo, ShardFile

BLOCK = 4096
AHEAD = 16 * BLOCK


def content(size: int, seed: int = 0) -> bytes:
    """Return bytes of which no two blocks are alike."""
    return hashlib.shake_128(seed.to_bytes(4, "little")).digest(size)


class FakeAnswer:
    """A span that comes when it is waited for."""

    def __init__(self, shard: FakeShard, offset: int, length: int) -> None:
        self.shard, self.offset, self.length = shard, offset, length
        self.is_cancelled = False
        self.is_waited_for = False

    def result(self) -> bytes:
        assert not self.is_cancelled, "a span that was given up is wanted"
        self.is_waited_for = True
        if self.shard.is_broken:
            raise ReadError(f"Cannot read {self.shard.url}: the fake is broken.", shard=self.shard.url)
        return self.shard.data[self.offset : self.offset + self.length]

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeShard:
    """An object in a bucket."""

    is_near = False

    def __init__(self, data: bytes, url: str = "fake://bucket/a.tar", version: str = "etag:1") -> None:
        self.data, self.url = data, url
        self.info = ObjectInfo(len(data), version)
        self.asked: list[tuple[int, int]] = []
        self.answers: list[FakeAnswer] = []
        self.is_broken = self.is_closed = False

    def ask(self, spans: Sequence[tuple[int, int]]) -> list[FakeAnswer]:
        assert all(offset >= 0 and length > 0 and offset + length <= len(self.data) for offset, length in spans)
        self.asked += spans
        answers = [FakeAnswer(self, offset, length) for offset, length in spans]
        self.answers += answers
        return answers

    def read(self, offset: int, length: int) -> bytes:
        return self.read_spans([(offset, length)])[0]

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        return [answer.result() for answer in self.ask(spans)]

    @property
    def asked_bytes(self) -> int:
        return sum(length for _, length in self.asked)

    def forget(self) -> None:
        self.asked.clear()
        self.answers.clear()

    def check(self) -> None:
        """Nothing changes."""

    def advise_scattered(self) -> None:
        """Nothing is read ahead."""

    def close(self) -> None:
        self.is_closed = True


def run_of(folder: Path | str, *shards: FakeShard, max_bytes: int | None = None, block: int = BLOCK) -> BlockCache:
    """Return the cache of a run over some shards."""
    return BlockCache(
        Cache(str(folder), max_bytes),
        [shard.url for shard in shards],
        [shard.info.size for shard in shards],
        [shard.info.version for shard in shards],
        block_bytes=block,
    )


def opened(
    run: BlockCache, *shards: FakeShard, ahead: int = AHEAD, span: int = 1 << 20
) -> tuple[OpenCache, list[ShardFile]]:
    """Open a run's cache as a reader does, and its shards."""
    cache = run.open(ahead_bytes=ahead, span_bytes=span)
    return cache, [cache.wrap(shard, number) for number, shard in enumerate(shards)]


def take(file: ShardFile, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Ask for spans and wait for them."""
    return [bytes(answer.result()) for answer in file.ask(spans)]


def parts(data: bytes, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return what the spans hold."""
    return [data[offset : offset + length] for offset, length in spans]


def files_of(folder: Path | str) -> list[Path]:
    """Return the files of blocks that a cache holds."""
    return sorted(Path(folder).glob("seta-cache-1/blocks/*.blocks"))
