"""URLs → a corpus: finds the shards' indexes, builds what is missing or stale.

Takes what a user writes; gives a Corpus, whose table knows every shard and whose indexes are read when they are asked
for. Acts: lists folders, reads and writes index files, scans shards, shows a progress bar.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from seta_stream.corpus.building import Built, Task, build
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.index import IndexHeader, ShardIndex, read_header
from seta_stream.corpus.listing import Urls, expand
from seta_stream.corpus.places import Places, cache_url
from seta_stream.corpus.scanning import scan_shard
from seta_stream.errors import CorpusError, IndexFileError, ReadError, ShardChangedError
from seta_stream.store import Options, store_for

__all__ = ["Corpus", "open_corpus", "scan_shard", "write_index"]

_KEPT: Final = 64
_KEPT_SAMPLES: Final = 50_000
"""Indexes in memory take about 130 bytes per sample."""
_PATIENCE_S: Final = 2.0
"""A progress bar is shown for work that takes longer than this."""


class Corpus:
    """Shards with their indexes.

    It can be pickled: it carries the table and where the indexes lie, not the indexes.

    Args:
        table: the shards.
        index_urls: where each shard's index lies.
        held: index files that could not be written anywhere, by shard.
        storage_options: what the fsspec file system is given.
    """

    def __init__(
        self,
        table: ShardTable,
        index_urls: Sequence[str],
        *,
        held: Mapping[int, bytes] | None = None,
        storage_options: Options | None = None,
    ) -> None:
        self.table = table
        self._index_urls = tuple(index_urls)
        self._held = dict(held or {})
        self._options = storage_options
        self._recent: OrderedDict[int, ShardIndex] = OrderedDict()
        self._lock = threading.Lock()

    def index(self, shard: int) -> ShardIndex:
        """Return a shard's index, one of the last few asked for or read now.

        An index file that is gone or damaged meanwhile is replaced by scanning the shard again, without being written.

        Raises:
            ShardChangedError: the shard is no longer the one that the table was made of.
            CorpusError: as for scan_shard, where the shard had to be scanned.
        """
        with self._lock:
            if shard in self._recent:
                self._recent.move_to_end(shard)
                return self._recent[shard]
        index = self._load(shard)
        with self._lock:
            self._recent[shard] = index
            while len(self._recent) > _KEPT or (len(self._recent) > 1 and self._held_samples() > _KEPT_SAMPLES):
                self._recent.popitem(last=False)
        return index

    def _held_samples(self) -> int:
        return sum(index.samples for index in self._recent.values())

    def _load(self, shard: int) -> ShardIndex:
        source = self._index_urls[shard]
        digest = self.table.digests[shard]
        try:
            data = self._held[shard] if shard in self._held else store_for(source, self._options).read(source)
            # The header first: an index of another shard is not worth building, whatever sizes it claims.
            index = ShardIndex.from_bytes(data, source) if read_header(data, source).digest == digest else None
        except (ReadError, IndexFileError):
            index = None
        if index is None:
            index = scan_shard(self.table.urls[shard], self._options)
        if index.digest != digest:
            raise ShardChangedError(
                f"Cannot use {self.table.urls[shard]}: its keys or sizes are not those of the corpus that was opened, "
                "so it was replaced meanwhile. Restore it, or open the corpus again.",
                shard=self.table.urls[shard],
                expected=digest,
                found=index.digest,
            )
        return index

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def open_corpus(
    urls: Urls,
    *,
    index: str | None = None,
    state: str | None = None,
    storage_options: Options | None = None,
    progress: bool = True,
    jobs: int | None = None,
) -> Corpus:
    """Return the corpus that `urls` names, every shard indexed as it is now.

    Indexes are looked for in the folder `index`, beside the shards, in the user's cache folder and in `<state>/index`;
    those that are missing, damaged or of an older version of their shard are built into the cache folder, or kept in
    memory where that cannot be written.

    Args:
        urls: what listing.expand takes.
        index: folder of index files, as `seta-stream index --out` writes them.
        state: folder of the run's state.
        storage_options: what the fsspec file system is given.
        progress: whether a bar may be shown on a terminal, where building takes long.
        jobs: processes for building; None for as many as pay.

    Raises:
        CorpusError: nothing matches, a shard is named twice, damaged or refused, or no shard has a sample.
        ReadError: a shard is missing or cannot be read.
    """
    shards = expand(urls, storage_options)
    places = Places(shards, index=index, state=state, storage_options=storage_options)
    found, tasks = _find(shards, places, storage_options)
    held: dict[int, bytes] = {}
    for built in _with_bar(build(tasks, jobs), tasks, progress=progress):
        found[built.task.shard] = built.task.target, built.header
        if built.data is not None:
            held[built.task.shard] = built.data
    ordered = [found[shard] for shard in range(len(shards))]
    table = ShardTable.of(shards, [header for _, header in ordered])
    if not table.total:
        raise CorpusError(
            f"Cannot open the corpus: none of its {len(shards)} shards ({shards[0]}, …) has a sample. Members must be "
            "named key.field; folders and names without a dot belong to no sample.",
            shard=shards[0],
            expected="at least one sample",
            found=0,
        )
    return Corpus(table, [url for url, _ in ordered], held=held, storage_options=storage_options)


def _find(
    shards: Sequence[str], places: Places, options: Options | None
) -> tuple[dict[int, tuple[str, IndexHeader]], list[Task]]:
    """Return, by shard, the index that fits it and its header; and what is to be built because there is none."""
    found: dict[int, tuple[str, IndexHeader]] = {}
    tasks: list[Task] = []
    for shard, url in enumerate(shards):
        info = store_for(url, options).info(url)
        place = places.find(shard, info)
        if place is None:
            tasks.append(Task(shard, url, info.size, cache_url(url), options, must_write=False))
        else:
            found[shard] = place
    return found, tasks


def write_index(index: ShardIndex, url: str, storage_options: Options | None = None) -> None:
    """Write an index as a file, whole or not at all: two processes that write one at once leave either's."""
    store_for(url, storage_options).write(url, index.to_bytes())


def _with_bar(results: Iterator[Built], tasks: Sequence[Task], *, progress: bool) -> Iterator[Built]:
    """Pass results on; show a bar on a terminal once it takes long and shards are left."""
    if not (progress and sys.stderr.isatty()):
        yield from results
        return
    started = time.monotonic()
    done: list[Built] = []
    with ExitStack() as stack:
        advance = None
        for built in results:
            done.append(built)
            if advance is not None:
                advance(built)
            elif time.monotonic() - started > _PATIENCE_S and len(done) < len(tasks):
                from seta_stream.corpus.bar import index_bar  # noqa: PLC0415  (rich is only needed here)

                advance = stack.enter_context(index_bar(tasks))
                for earlier in done:
                    advance(earlier)
            yield built
