"""A file of losses into a state: a generation that a run starts from.

Takes a .parquet or .csv file and a corpus; gives what was imported. Acts: reads the file and indexes, writes the state
as its one writer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream.carry.matching import NO_SHARD, ShardNames, hashes_of, positions
from seta_stream.carry.opening import Source, columns_in
from seta_stream.carry.parcels import Parcels
from seta_stream.carry.spelling import RESERVED, spelled
from seta_stream.carry.tables import Rows, read_table
from seta_stream.corpus.indexing import Corpus, open_corpus
from seta_stream.corpus.listing import Urls, options_at
from seta_stream.corpus.surveying import CORPUS_FILE
from seta_stream.errors import ArgumentError, SetaStreamWarning, StateError
from seta_stream.losses.columns import DTYPES, MAX_AGE, Column, latest
from seta_stream.losses.generations import Generation, Generations
from seta_stream.losses.histogram import round_losses
from seta_stream.losses.table import LossTable
from seta_stream.store import Options, join, store_for

By = Literal["key", "id"]
_NAMED: Final = 5
_KEPT_FACTS: Final = ("consumed", "policy", "runs", "seed")
"""What later epochs go by, and a generation laid over another keeps."""


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Args:
        generation: the new one.
        epoch: whose end its losses stand for.
        rows: of the file.
        by: what they were matched by.
        matched: rows that are of a sample of the corpus.
        repeated: of these, rows of a sample that a later row is of too.
        unmatched: rows that are of none.
        examples: some of these, as the file names them.
        empty: matched rows without a loss, or with one that is not finite.
        samples: of the corpus.
        seen: samples with a loss, now.
        columns: of the policy, that were imported.
    """

    generation: str
    epoch: int
    rows: int
    by: By
    matched: int
    repeated: int
    unmatched: int
    examples: tuple[str, ...]
    empty: int
    samples: int
    seen: int
    columns: tuple[str, ...]


def import_losses(
    path: Path,
    urls: Urls,
    state: str,
    *,
    by: By | None = None,
    epoch: int | None = None,
    merge: bool = False,
    index: str | None = None,
    storage_options: Options | None = None,
    state_options: Options | None = None,
    told: Callable[[int], None] | None = None,
) -> Imported:
    """Write a generation with the losses of a file, as `export_losses` writes it, or of your own.

    Args:
        path: of the file: columns loss, and key (with url) or id; index, age and a policy's columns if they are there.
        urls: the corpus.
        state: folder of the run that shall start from them; holds no losses, unless `merge`.
        by: what rows are matched by; the key where the file has keys, else the id.
        epoch: whose end they stand for; by default -1, or with `merge` that of the newest generation.
        merge: lay the rows over the newest generation, whose other samples stay as they are.
        index: folder of the shards' indexes.
        storage_options: of the shards' file system.
        state_options: of the state's; those of the shards where the protocol is the same.
        told: is told of rows as they are read.

    Raises:
        ArgumentError: the file lacks a column, or an option does not fit.
        StateError: the state holds losses, or no row is of this corpus; nothing is written.
        StateLockedError: a run writes the state.
        MissingExtraError: pyarrow is not installed.
        ReadError: the file or an index cannot be read.
    """
    corpus = open_corpus(urls, index=index, state=state, storage_options=storage_options, state_options=state_options)
    given = options_at(state, urls, storage_options, state_options)
    with closing(Generations(state, given)) as generations:
        generations.lock()
        base = _base(generations, state, merge=merge)
        ends = _epoch(epoch, base)
        source = (
            None if base is None else Source(state, corpus.table, corpus, generations, base, storage_options, given)
        )
        filling = _Filling(path, corpus, source, by, told)
        table = filling.table
        facts = {name: base.facts[name] for name in _KEPT_FACTS if name in base.facts} if base is not None else {}
        facts["imported_from"] = path.name
        name = generations.commit(ends, table, corpus.table, None, None if base is None else base.name, facts)
        store_for(state, given).write(join(state, CORPUS_FILE), corpus.table.to_bytes())
    return filling.report(name, ends)


def _base(generations: Generations, state: str, *, merge: bool) -> Generation | None:
    kept = generations.kept()
    if merge and not kept:
        raise StateError(f"Cannot merge into {state}: it holds no losses. Leave --merge out.", found=0)
    if kept and not merge:
        raise StateError(
            f"Cannot import into {state}: it holds losses already, {kept[-1].name} (epoch {kept[-1].epoch}). Name an "
            "empty folder, or give --merge (merge=True) to lay the rows over these.",
            expected="a folder without losses",
            found=kept[-1].name,
        )
    return kept[-1] if merge else None


def _epoch(epoch: int | None, base: Generation | None) -> int:
    least = -1 if base is None else base.epoch
    if epoch is not None and epoch < least:
        raise ArgumentError(
            f"Cannot import losses of the end of epoch {epoch}: "
            + ("the least is -1, before epoch 0." if base is None else f"they are laid over those of epoch {least}."),
            expected=least,
            found=epoch,
        )
    return least if epoch is None else epoch


class _Filling:
    """A loss table on its way out of a file, and the counts of it."""

    def __init__(
        self, path: Path, corpus: Corpus, source: Source | None, by: By | None, told: Callable[[int], None] | None
    ) -> None:
        self._path = path
        self._corpus = corpus
        self._shards = corpus.table
        self._told = told or (lambda _: None)
        self.rows = self.matched = self.empty = 0
        self._lost: list[int] = []  # numbers of the first rows that are of no sample
        self._of_none = 0
        self._has_row = np.zeros(corpus.table.total, np.bool_)
        chunks = self._read()
        first = next(chunks, None)
        if first is None:
            raise StateError(f"Cannot import {path}: it has no row.", found=0)
        self.by: By = _matched_by(path, first, by, len(self._shards))
        self._own = {
            name: values.dtype.name
            for name, values in first.items()
            if name not in RESERVED and isinstance(values, np.ndarray) and values.dtype.name in DTYPES
        }
        self.table = self._empty_table(source)
        fill = self._by_key if self.by == "key" else self._by_id
        fill(_all(first, chunks))
        if not self.matched:
            raise StateError(
                f"Cannot import {path}: none of its {self.rows} rows is of a sample of this corpus "
                f"({self._shards.urls[0]}, …): {', '.join(self._examples())}, … Name the corpus that the file is of.",
                expected="rows of this corpus",
                found=self.rows,
            )
        self._check_columns(source)

    def report(self, generation: str, epoch: int) -> Imported:
        """Return what came of it."""
        return Imported(
            generation=generation,
            epoch=epoch,
            rows=self.rows,
            by=self.by,
            matched=self.matched,
            repeated=self.matched - int(self._has_row.sum()),
            unmatched=self._of_none,
            examples=tuple(self._examples()),
            empty=self.empty,
            samples=self.table.total,
            seen=self.table.total - int(np.isnan(self.table.values).sum()),
            columns=tuple(name for name in self._own if name in self.table.columns),
        )

    def _read(self) -> Iterator[Rows]:
        for rows in read_table(self._path):
            self._told(len(rows["loss"]))
            yield rows

    def _empty_table(self, source: Source | None) -> LossTable:
        own = [Column(name, dtype, 0, latest, source="imported") for name, dtype in self._own.items()]
        if source is None:
            return LossTable(self._shards.samples, own)
        there = columns_in(source)
        self._own = {
            name: dtype for name, dtype in self._own.items() if (name, dtype) in {(c.name, c.dtype) for c in there}
        }
        return source.table(there)

    def _by_id(self, chunks: Iterator[Rows]) -> None:
        for rows in chunks:
            ids = np.asarray(rows["id"], np.int64)
            numbers = self.rows + np.arange(len(ids))
            self.rows += len(ids)
            there = (ids >= 0) & (ids < self._shards.total)
            self._lose(numbers[~there])
            self._put(ids[there], {name: np.asarray(rows[name])[there] for name in self._taken(rows)})

    def _by_key(self, chunks: Iterator[Rows]) -> None:
        """Match rows shard by shard: an index is read once, in whatever order the rows come."""
        names = ShardNames(self._shards.urls)
        fields = [("shard", "<u4"), ("key", "<u8"), ("place", "<i8"), ("row", "<i8"), ("loss", "<f8"), ("age", "u1")]
        dtype = np.dtype([*fields, *self._own.items()])
        with Parcels(dtype, len(self._shards)) as parcels:
            for chunk in chunks:
                parcels.add(self._packed(chunk, names, dtype))
            for shard, rows in parcels.by_shard():
                own = hashes_of(map(spelled, self._corpus.index(shard).keys))
                places = positions(own, rows["key"], rows["place"])
                self._lose(rows["row"][places < 0])
                there, first = rows[places >= 0], int(self._shards.first_id[shard])
                self._put(first + places[places >= 0], {name: there[name] for name in ("loss", "age", *self._own)})

    def _packed(self, chunk: Rows, names: ShardNames, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the rows of a chunk whose shard is known, as parcels take them."""
        count = len(chunk["loss"])
        urls = chunk.get("url", [self._shards.urls[0]] * count)
        shard = names.numbers(urls)
        numbers = self.rows + np.arange(count)
        self.rows += count
        rows = np.zeros(count, dtype)
        rows["shard"], rows["row"], rows["key"] = shard, numbers, hashes_of(chunk["key"])
        rows["place"] = chunk.get("index", -1)
        rows["age"] = _ages(chunk)
        for name in ("loss", *self._own):
            rows[name] = chunk[name]
        self._lose(numbers[shard == NO_SHARD])
        known: NDArray[Any] = rows[shard != NO_SHARD]
        return known

    def _taken(self, rows: Rows) -> list[str]:
        rows["age"] = _ages(rows)
        return ["loss", "age", *self._own]

    def _put(self, ids: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> None:
        """Take rows into the table; one without a loss leaves it as it is."""
        self.matched += len(ids)
        self._has_row[ids] = True
        for name in self._own:
            self.table.columns[name][ids] = columns[name]
        with np.errstate(over="ignore"):
            rounded = round_losses(columns["loss"].astype(np.float32)) if len(ids) else np.empty(0, np.float32)
        seen = np.isfinite(rounded)
        self.empty += int((~seen).sum())
        self.table.values[ids[seen]] = rounded[seen]
        self.table.all_ages[ids[seen]] = columns["age"][seen]

    def _lose(self, numbers: NDArray[np.int64]) -> None:
        self._of_none += len(numbers)
        self._lost = sorted([*self._lost, *np.sort(numbers)[:_NAMED].tolist()])[:_NAMED]

    def _examples(self) -> list[str]:
        """Return how the file names the first rows that are of no sample; it is read again for them."""
        found: list[str] = []
        begin = 0
        for rows in read_table(self._path) if self._lost else ():
            for number in [lost - begin for lost in self._lost if begin <= lost < begin + len(rows["loss"])]:
                whose = f"key {rows['key'][number]!r}" if self.by == "key" else f"id {int(rows['id'][number])}"
                where = f" in {rows['url'][number]}" if self.by == "key" and "url" in rows else ""
                found.append(f"row {begin + number + 1} ({whose}{where})")
            begin += len(rows["loss"])
            if len(found) == len(self._lost):
                break
        return found

    def _check_columns(self, source: Source | None) -> None:
        """Leave out a policy's columns where they do not tell of all samples: nobody knows with what others begin."""
        if source is None and self._own and not self._has_row.all():
            warnings.warn(
                f"{', '.join(sorted(self._own))} are not imported: {int((~self._has_row).sum())} samples have no row, "
                "and nothing tells with what theirs begin. The next run starts these columns from the losses.",
                SetaStreamWarning,
                stacklevel=4,
            )
            self.table.columns.clear()


def _matched_by(path: Path, rows: Rows, by: By | None, shards: int) -> By:
    chosen: By = by or ("key" if "key" in rows else "id")
    if chosen not in rows:
        raise ArgumentError(
            f"Cannot import {path} by {chosen}: it has no column {chosen!r}, but {', '.join(rows)}.",
            expected=chosen,
            found=tuple(rows),
        )
    if chosen == "key" and "url" not in rows and shards > 1:
        raise ArgumentError(
            f"Cannot import {path} by key: it has no column 'url', and the corpus has {shards} shards. Add it, or give "
            "--by id (by='id').",
            expected="url",
            found=tuple(rows),
        )
    return chosen


def _ages(rows: Rows) -> NDArray[np.uint8]:
    """Return ages [n]; 0, seen in the epoch that ends, where the file has none."""
    if "age" not in rows:
        return np.zeros(len(rows["loss"]), np.uint8)
    ages: NDArray[np.uint8] = np.clip(rows["age"], 0, MAX_AGE).astype(np.uint8)
    return ages


def _all(first: Rows, rest: Iterator[Rows]) -> Iterator[Rows]:
    yield first
    yield from rest
