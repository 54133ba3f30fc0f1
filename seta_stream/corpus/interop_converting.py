"""Many shards' indexes → the same in another format.

Takes URLs and what to make; gives an outcome per shard, in order. Acts: reads indexes and headers of several shards at
once in threads, writes index files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from seta_stream.corpus.folders import Folders
from seta_stream.corpus.interop import KINDS, Adopted, Foreign, Found, lying_beside
from seta_stream.corpus.interop_rows import Row
from seta_stream.corpus.interop_writing import EnergonNotes, Layout, To, index_bytes, layout, put, rows_for
from seta_stream.errors import CorpusError, IndexFileError, SetaStreamError
from seta_stream.store import ObjectInfo, Options, is_local

THREADS: Final = {True: 2, False: 8}
"""Shards at once, by whether they are local: a few requests follow each other for each, of 32 MiB at most."""


_LOOKED_AT: Final[Mapping[str, tuple[str, ...]]] = {
    "auto": (*KINDS, "wids"),
    # X.tar.idx is Energon's name and often given to DALI's index, too.
    "energon": ("energon", "dali"),
    "dali": ("dali", "energon"),
}


@dataclass(frozen=True)
class Wanted:
    """What is to be made.

    Args:
        source: a kind of index, "wids" to be told why not, or "auto" for the best that is there, else a scan.
        to: the format.
        out: folder; None for beside the shards.
        whole: whether every header is read.
        overwrite: whether files of others are replaced.
        counts: samples per shard, by its name, which must be met; None for none.
        options: what the fsspec file system is given.
    """

    source: str
    to: To
    out: str | None = None
    whole: bool = False
    overwrite: bool = False
    counts: Mapping[str, int] | None = None
    options: Options | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Outcome:
    """One shard, converted or not.

    Args:
        shard: its URL.
        target: of its index.
        kind: of the index that was used; "scan" where the shard was scanned; None where it failed.
        samples, members: how many our index has.
        headers: members whose headers were read.
        is_written: false where the same file was there already.
        notes: what a person should know.
        error: why it failed; None where it did not.
    """

    shard: str
    target: str
    kind: str | None = None
    samples: int = 0
    members: int = 0
    headers: int = 0
    is_written: bool = False
    notes: tuple[str, ...] = ()
    error: SetaStreamError | None = None


def convert(shards: Sequence[str], wanted: Wanted) -> Iterator[Outcome]:
    """Convert the indexes of shards; give each outcome in order, and one for Energon's notes on all of them last.

    A shard that fails does not keep the others from being converted; Energon's notes are only written where none did.

    Args:
        shards: URLs, normalised.
        wanted: what is to be made.

    Raises:
        ArgumentError: the shards have no common folder, or two indexes would have one name.
        ReadError: a shard is not there.
    """
    places = layout(shards, wanted.to, wanted.out)
    folders = Folders(wanted.options)
    infos = folders.infos(shards)
    kinds = _LOOKED_AT.get(wanted.source, (wanted.source,))
    work = _Work(wanted, Foreign(wanted.options, folders), places, shards, infos, lying_beside(shards, folders, kinds))
    notes = EnergonNotes(places.root, wanted.options, overwrite=wanted.overwrite) if wanted.to == "energon" else None
    try:
        yield from _outcomes(work, notes)
    finally:
        if notes is not None:
            notes.close()


def _outcomes(work: _Work, notes: EnergonNotes | None) -> Iterator[Outcome]:
    failed = False
    for number, (outcome, adopted, rows) in enumerate(_in_order(work)):
        done = outcome
        if notes is not None and adopted is not None and not failed:
            try:
                notes.add(work.places.names[number], rows, adopted.checked, outcome.shard)
            except SetaStreamError as error:
                done = Outcome(outcome.shard, outcome.target, error=error)
        failed |= done.error is not None
        yield done
    if notes is not None and not failed:
        try:
            written = notes.finish()
        except SetaStreamError as error:
            yield Outcome(work.places.root, work.places.root, error=error)
        else:
            yield Outcome(work.places.root, work.places.root, kind="notes", is_written=bool(written))


def _in_order(work: _Work) -> Iterator[tuple[Outcome, Adopted | None, list[Row]]]:
    """Give what each shard came to, in order, a few of them under way."""
    threads = THREADS[all(map(is_local, work.shards))]
    waiting: deque[Future[tuple[Outcome, Adopted | None, list[Row]]]] = deque()
    pool = ThreadPoolExecutor(min(threads, len(work.shards)), "seta-convert")
    try:
        for shard in range(len(work.shards)):
            waiting.append(pool.submit(work.one, shard))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Work:
    """All that a thread needs to convert one shard."""

    wanted: Wanted
    foreign: Foreign
    places: Layout
    shards: Sequence[str]
    infos: Sequence[ObjectInfo]
    lying: Sequence[tuple[Found, ...]]

    def one(self, shard: int) -> tuple[Outcome, Adopted | None, list[Row]]:
        """Convert one shard; an error of ours is its outcome."""
        url, target, wanted = self.shards[shard], self.places.targets[shard], self.wanted
        try:
            adopted = self._adopted(shard)
            self._compare_counts(url, adopted)
            rows = rows_for(adopted.checked, wanted.to)
            data = index_bytes(adopted.checked, rows, wanted.to, url)
            is_written = put(target, data, wanted.options, overwrite=wanted.overwrite)
        except SetaStreamError as error:
            return Outcome(url, target, error=error), None, []
        index = adopted.checked.index
        outcome = Outcome(
            shard=url,
            target=target,
            kind=adopted.kind,
            samples=index.samples,
            members=index.members,
            headers=adopted.checked.headers,
            is_written=is_written,
            notes=adopted.notes,
        )
        return outcome, adopted, rows

    def _adopted(self, shard: int) -> Adopted:
        url, wanted = self.shards[shard], self.wanted
        if wanted.source == "auto":
            return self.foreign.best(url, self.infos[shard], self.lying[shard], whole=wanted.whole)
        errors: list[IndexFileError] = []
        for found in self.lying[shard]:
            try:
                checked = self.foreign.checked(found, url, self.infos[shard], whole=wanted.whole, kind=wanted.source)
            except IndexFileError as error:
                errors.append(error)
                continue
            if checked is not None:
                return Adopted(checked.kind, found.url, checked, checked.notes)
        if errors:
            raise errors[0]
        raise CorpusError(
            f"Cannot convert {url}: no index of {wanted.source} lies beside it. Check --from, or leave it out: "
            "then the best index that is there is used, or the shard scanned.",
            shard=url,
            expected=f"an index of {wanted.source}",
            found="none",
        )

    def _compare_counts(self, url: str, adopted: Adopted) -> None:
        if self.wanted.counts is None:
            return
        name, samples = url.rpartition("/")[2], adopted.checked.index.samples
        expected = self.wanted.counts.get(name)
        if expected != samples:
            told = "does not list it" if expected is None else f"counts {expected}"
            raise CorpusError(
                f"Cannot convert {url}: it has {samples} samples, and the file of --counts {told}. Find out which of "
                "the two is of another version.",
                shard=url,
                expected=expected,
                found=samples,
            )
