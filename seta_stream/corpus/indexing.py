"""URLs → a corpus: finds the shards' indexes, builds what is missing or stale.

Takes what a user writes; gives a Corpus, whose table knows every shard and whose indexes are read when they are asked
for. Acts: lists folders, reads and writes index files, scans shards, tells on stderr what that takes.

How several processes share that is told in sharing.py.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from seta_stream.corpus.building import Built, Task, build
from seta_stream.corpus.costs import Estimate
from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.index import ShardIndex, read_header
from seta_stream.corpus.listing import Urls
from seta_stream.corpus.places import Place, cache_url, read_index
from seta_stream.corpus.probing import foresee
from seta_stream.corpus.scanning import scan_shard
from seta_stream.corpus.surveying import Found, Survey, survey
from seta_stream.errors import CorpusError, IndexFileError, ReadError, ShardChangedError
from seta_stream.store import Options, is_local, store_for

__all__ = ["Corpus", "announce", "assemble", "open_corpus", "scan_shard", "with_bar", "write_index"]

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
        places: where each shard's index lies; of several, the first that fits.
        held: index files that lie in memory, by shard.
        storage_options: what the fsspec file system is given.
    """

    def __init__(
        self,
        table: ShardTable,
        places: Sequence[Sequence[Place]],
        *,
        held: Mapping[int, bytes] | None = None,
        storage_options: Options | None = None,
    ) -> None:
        self.table = table
        self.is_local = all(map(is_local, table.urls))
        """Whether every shard is a file of this machine."""
        self._places = tuple(map(tuple, places))
        self._held = dict(held or {})
        self._options = storage_options
        self._recent: OrderedDict[int, ShardIndex] = OrderedDict()
        self._lock = threading.Lock()

    def index(self, shard: int) -> ShardIndex:
        """Return a shard's index, one of the last few asked for or read now.

        An index file that is gone or damaged meanwhile is replaced by scanning the shard again; that of a remote shard
        is written to the user's cache folder. Of a local shard, a copy with the same samples and another time will do:
        each machine may have its own.
        An index whose header alone was read when the corpus was opened is verified whole here.

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

    def is_index_near(self, shard: int) -> bool:
        """Say whether `index` returns without asking a bucket."""
        return shard in self._recent or shard in self._held or is_local(self._places[shard][0].url)

    def _held_samples(self) -> int:
        return sum(index.samples for index in self._recent.values())

    def _load(self, shard: int) -> ShardIndex:
        index = self._stored(shard) or self._scanned(shard)
        expected = self.table.digests[shard], int(self.table.samples[shard])
        if (index.digest, index.samples) != expected:
            raise ShardChangedError(
                f"Cannot use {self.table.urls[shard]}: its keys or sizes are not those of the corpus that was opened, "
                "so it was replaced meanwhile. Restore it, or open the corpus again.",
                shard=self.table.urls[shard],
                expected=expected,
                found=(index.digest, index.samples),
            )
        return index

    def _stored(self, shard: int) -> ShardIndex | None:
        """Return the index from the first place that holds the one of the table."""
        wanted = self.table.digests[shard], int(self.table.sizes[shard])
        url = self.table.urls[shard]
        # Another process of this machine may have scanned it meanwhile, as below, or another machine's copy of it.
        spare = (
            () if any(place.home == "cache" for place in self._places[shard]) else (Place(cache_url(url), None, None),)
        )
        for place in (*self._places[shard], *spare):
            try:
                held = self._held.get(shard)
                data = read_index(place) if held is None else held
                # The header first: an index of another shard is not worth building, whatever sizes it claims.
                header = read_header(data, place.url)
                if (header.digest, header.shard_size) == wanted and self._is_current(shard, header.shard_version):
                    return ShardIndex.from_bytes(data, place.url)
            except (ReadError, IndexFileError):
                continue
        return None

    def _is_current(self, shard: int, version: str) -> bool:
        """Say whether a version of a shard is the table's, or that of this machine's copy."""
        url = self.table.urls[shard]
        return version == self.table.versions[shard] or (is_local(url) and version == store_for(url).info(url).version)

    def _scanned(self, shard: int) -> ShardIndex:
        """Scan a shard whose index is gone; a remote one's is kept, so that no other process has to scan it again."""
        url = self.table.urls[shard]
        index = scan_shard(url, self._options)
        if not is_local(url):
            try:
                write_index(index, cache_url(url))
            except OSError:  # without a cache folder, memory must do
                self._held[shard] = index.to_bytes()
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
    state_options: Options | None = None,
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
        storage_options: what the fsspec file system is given for the shards.
        state_options: what it is given for the state.
        progress: whether stderr is told what building takes, and shows a bar on a terminal where it takes long.
        jobs: processes for building; None for as many as pay.

    Raises:
        CorpusError: nothing matches, a shard is named twice, damaged or refused, or no shard has a sample.
        ReadError: a shard is missing or cannot be read.
    """
    known = survey(urls, index=index, state=state, storage_options=storage_options, state_options=state_options)
    plan, estimate = foresee(known.tasks, len(known.urls), jobs=jobs) if known.tasks else (None, None)
    if estimate is not None and progress:
        announce(estimate)
    built = with_bar(build(known.tasks, jobs, plan), known.tasks, progress=progress)
    return assemble(known, built, storage_options)


def announce(estimate: Estimate) -> None:
    """Tell on stderr what indexing will take; said also where that is no terminal, since it may cost money."""
    sys.stderr.write(f"{estimate}\n")
    sys.stderr.flush()


def assemble(
    known: Survey,
    built: Iterable[Built],
    storage_options: Options | None = None,
    held: Mapping[int, bytes] | None = None,
) -> Corpus:
    """Return the corpus from what was known of it and what was built, in any order, by whomever.

    Args:
        known: the survey.
        built: what it lacked.
        storage_options: what the fsspec file system is given.
        held: index files that lie in memory, by shard, besides those that were built and could not be written.

    Raises:
        CorpusError: no shard has a sample.
    """
    found = dict(known.found)
    files = dict(held or {})
    for one in built:
        found[one.task.shard] = Found(one.header, (one.task.place,))
        if one.data is not None:
            files[one.task.shard] = one.data
    ordered = [found[shard] for shard in range(len(known.urls))]
    table = ShardTable.of(known.urls, [one.facts for one in ordered])
    if not table.total:
        raise CorpusError(
            f"Cannot open the corpus: none of its {len(table)} shards ({known.urls[0]}, …) has a sample. Members must "
            "be named key.field; folders and names without a dot belong to no sample.",
            shard=known.urls[0],
            expected="at least one sample",
            found=0,
        )
    return Corpus(table, [one.places for one in ordered], held=files, storage_options=storage_options)


def write_index(index: ShardIndex, url: str, storage_options: Options | None = None) -> None:
    """Write an index as a file, whole or not at all: two processes that write one at once leave either's."""
    store_for(url, storage_options).write(url, index.to_bytes())


def with_bar(results: Iterator[Built], tasks: Sequence[Task], *, progress: bool) -> Iterator[Built]:
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
