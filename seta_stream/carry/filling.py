"""Rows of a file into a loss table: each is found its sample, and counted.

Takes a .parquet or .csv file, a corpus and, to lay the rows over, a generation; gives the table and the counts. Acts:
reads the file and indexes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream.carry.matching import NO_SHARD, ShardNames, hashes_of, positions
from seta_stream.carry.opening import Source, columns_in
from seta_stream.carry.parcels import Parcels
from seta_stream.carry.spelling import RESERVED, spelled
from seta_stream.carry.tables import Rows, read_table
from seta_stream.corpus.indexing import Corpus
from seta_stream.errors import ArgumentError, PolicyError, SetaStreamWarning, StateError
from seta_stream.losses.columns import MAX_AGE, Column, latest
from seta_stream.losses.histogram import round_losses
from seta_stream.losses.table import LossTable
from seta_stream.policies.deciding import columns_of
from seta_stream.policies.names import policy_from

By = Literal["key", "id"]
_NAMED: Final = 5


class Filling:
    """A loss table out of a file, and the counts of it.

    Args:
        path: of the file.
        corpus: whose samples the rows are of.
        source: the generation that they are laid over; None for none.
        by: what rows are matched by; the key where the file has keys, else the id.
        told: is told of rows as they are read.
        ends: the epoch whose end they stand for.

    Raises:
        ArgumentError: the file lacks a column.
        StateError: no row is of this corpus.
        ReadError: the file or an index cannot be read.
    """

    def __init__(
        self,
        path: Path,
        corpus: Corpus,
        source: Source | None,
        by: By | None,
        told: Callable[[int], None] | None,
        *,
        ends: int,
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
            if name not in RESERVED and isinstance(values, np.ndarray) and _is_column(name, values.dtype.name)
        }
        self.table = self._empty_table(source, ends)
        fill = self._by_key if self.by == "key" else self._by_id
        fill(_all(first, chunks))
        if not self.matched:
            raise StateError(
                f"Cannot import {path}: none of its {self.rows} rows is of a sample of this corpus "
                f"({self._shards.urls[0]}, …): {', '.join(self.examples())}, … Name the corpus that the file is of.",
                expected="rows of this corpus",
                found=self.rows,
            )
        self._check_columns(source)

    @property
    def repeated(self) -> int:
        """Matched rows of a sample that a later row is of too."""
        return self.matched - int(self._has_row.sum())

    @property
    def unmatched(self) -> int:
        """Rows that are of no sample."""
        return self._of_none

    @property
    def columns(self) -> tuple[str, ...]:
        """The policy's columns that came with the rows."""
        return tuple(name for name in self._own if name in self.table.columns)

    def _read(self) -> Iterator[Rows]:
        for rows in read_table(self._path):
            self._told(len(rows["loss"]))
            yield rows

    def _empty_table(self, source: Source | None, ends: int) -> LossTable:
        if source is None:
            own = [Column(name, dtype, 0, latest, source="imported") for name, dtype in self._own.items()]
            return LossTable(self._shards.samples, own)
        there, unknown = _columns_below(source)
        known = {(one.name, one.dtype) for one in there}
        self._own = {name: dtype for name, dtype in self._own.items() if (name, dtype) in known}
        if unknown - {*self._own}:
            warnings.warn(
                f"{', '.join(sorted(unknown - {*self._own}))} stay as they are where a row is laid over a loss: the "
                "run's policy is not known here, and the file does not tell them.",
                SetaStreamWarning,
                stacklevel=5,
            )
        table = source.table(there)
        table.advance(ends - source.generation.epoch)
        return table

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
        """Take rows into the table, as if their losses were recorded; one without a loss leaves it as it is.

        What a policy remembers follows the losses, but where the file tells it.
        """
        self.matched += len(ids)
        self._has_row[ids] = True
        with np.errstate(over="ignore"):
            rounded = round_losses(columns["loss"].astype(np.float32)) if len(ids) else np.empty(0, np.float32)
        seen = np.isfinite(rounded)
        self.empty += int((~seen).sum())
        self.table.record(ids[seen], rounded[seen])
        self.table.all_ages[ids[seen]] = columns["age"][seen]
        for name in self._own:
            self.table.columns[name][ids] = columns[name]

    def _lose(self, numbers: NDArray[np.int64]) -> None:
        self._of_none += len(numbers)
        self._lost = sorted([*self._lost, *np.sort(numbers)[:_NAMED].tolist()])[:_NAMED]

    def examples(self) -> list[str]:
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


def _is_column(name: str, dtype: str) -> bool:
    """Say whether a policy can have such a column; another one of the file is the user's own, and nothing to us."""
    try:
        Column(name, dtype, 0, latest)
    except PolicyError:
        return False
    return True


def _columns_below(source: Source) -> tuple[list[Column], set[str]]:
    """Return the columns of a generation, and the names of those that nobody here knows how to bring up to date."""
    held = columns_in(source)
    described = source.generation.facts.get("policy")
    try:
        known = columns_of(policy_from(described)) if isinstance(described, Mapping) else ()
    except (PolicyError, TypeError, ValueError):  # of the user's own
        known = ()
    names = {one.name for one in known}
    return [*known, *(one for one in held if one.name not in names)], {one.name for one in held} - names
