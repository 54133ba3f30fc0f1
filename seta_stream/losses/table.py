"""The loss table: the last loss of every sample, and how many epochs ago it was seen.

Takes ids and losses in any array; gives float32 losses, uint8 ages and histograms. Five bytes per sample and what the
policy's columns take, nothing per sample as a Python object. Pure: no files, no clocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seta_stream.errors import LossError, StateError
from seta_stream.losses.columns import AGE, LOSS, MAX_AGE, Column, check_fits, recorded_names
from seta_stream.losses.histogram import Histogram, round_losses
from seta_stream.losses.recording import Recorded, check_ids, check_recorded, shape_of


class LossTable:
    """One loss and one age per sample of the corpus.

    Losses are rounded once, by `round_losses`, when they enter. NaN and infinite losses never enter: the old value
    stays and `bad_losses` counts them.

    Args:
        samples_per_shard: int64 [shards].
        columns: what else is remembered of each sample.
        takes_means: one loss may be recorded for many ids, the mean of their batch.
    """

    def __init__(
        self, samples_per_shard: ArrayLike, columns: Sequence[Column] = (), *, takes_means: bool = False
    ) -> None:
        counts = np.asarray(samples_per_shard, dtype=np.int64).reshape(-1)
        self.first_id: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)])
        self.total = int(self.first_id[-1])
        try:
            self.values: NDArray[np.float32] = np.full(self.total, np.nan, np.float32)
            self.all_ages: NDArray[np.uint8] = np.full(self.total, MAX_AGE, np.uint8)
            self.columns: dict[str, NDArray[Any]] = {one.name: one.fresh(self.total) for one in columns}
            """What the policy's columns hold: one array [total] per name."""
        except MemoryError as error:
            raise StateError(
                f"Cannot keep the losses of {self.total} samples: they take more memory than there is. Where the "
                "corpus has not so many, the table of its shards (the file `corpus` of a state) is damaged: remove it.",
                found=self.total,
            ) from error
        self.seeded: set[str] = set()
        """Columns that a load did not bring for some shard, and that start from the last losses."""
        self.takes: Final = recorded_names(columns)
        """The names that `record` takes beside the losses."""
        self.takes_means: Final = takes_means
        """Whether one loss may be recorded for many ids."""
        self._columns = tuple(columns)
        self.recorded = 0
        """Losses that entered since the last `advance`."""
        self.bad_losses = 0
        """NaN and infinite losses that were refused since the last `advance`."""

    @property
    def shards(self) -> int:
        """How many shards the table covers."""
        return len(self.first_id) - 1

    def losses(self, shard: int) -> NDArray[np.float32]:
        """Return the losses of one shard, a view: float32 [samples], NaN where never seen."""
        return self.values[self.first_id[shard] : self.first_id[shard + 1]]

    def ages(self, shard: int) -> NDArray[np.uint8]:
        """Return how many epochs ago each sample of one shard was seen, a view: uint8 [samples], 255 if never."""
        return self.all_ages[self.first_id[shard] : self.first_id[shard + 1]]

    def record(self, ids: object, losses: object, **recorded: object) -> None:
        """Take the losses of some samples; where an id comes twice, the last finite loss stays.

        Args:
            ids: integers [n] of any dtype that can count to the last id: numpy, torch (any device), jax, or a list.
                -1 stands for no sample and is ignored.
            losses: numbers [n] of any float dtype, bfloat16 included, one per id; or one for all, where `takes_means`.
            recorded: what the policy's columns ask for, by name: integers [n] for integer columns, else numbers.

        Raises:
            LossError: ids are not integers, are too narrow or out of range; losses are not numbers, or not one per id;
                something is recorded that no column asks for, or that does not fit its column.
        """
        self.put(check_recorded(ids, losses, recorded, self.total, self.takes, takes_means=self.takes_means))

    def put(self, taken: Recorded) -> None:
        """Take what `check_recorded` let pass, of ids of this table."""
        self.bad_losses += taken.bad_losses
        ids, rounded = taken.ids, taken.losses
        if not len(ids):
            return
        if self._columns:
            self._update(ids, {LOSS: rounded, **taken.others})
        self.values[ids] = rounded  # numpy promises that the last of equal indices wins
        self.all_ages[ids] = 0
        self.recorded += len(ids)

    def _update(self, ids: NDArray[Any], new: Mapping[str, NDArray[Any]]) -> None:
        """Bring the columns up to date with what one call recorded of some samples."""
        old = self.remembered(ids)
        told = [column for column in self._columns if column.source in new]
        updated = [np.asarray(column.update(old, column.given(new))) for column in told]
        for column, values in zip(told, updated, strict=True):
            check_fits(column, values)  # before any column changes
        for column, values in zip(told, updated, strict=True):
            self.columns[column.name][ids] = values

    def remembered(self, part: Any = slice(None)) -> dict[str, NDArray[Any]]:
        """Return the losses, ages and columns of some samples, by name: arrays [n]; of all, views.

        Args:
            part: ids [n], or a slice of them.
        """
        columns = {name: column[part] for name, column in self.columns.items()}
        return {LOSS: self.values[part], AGE: self.all_ages[part], **columns}

    def restore(self, ids: NDArray[Any], losses: ArrayLike, columns: Mapping[str, NDArray[Any]]) -> None:
        """Put back what was remembered of samples seen in this epoch, as it was: no column is updated.

        Args:
            ids: int64 [n].
            losses: float32 [n].
            columns: one array [n] per name; names that the policy does not ask for are passed over.

        Raises:
            LossError: an id is none of the corpus.
        """
        self.check_ids(ids)
        self.values[ids] = round_losses(losses)
        self.all_ages[ids] = 0
        self.recorded += len(ids)
        for name, values in columns.items():
            if name in self.columns:
                self.columns[name][ids] = values

    def check_ids(self, ids: NDArray[Any]) -> None:
        """Refuse ids that the corpus does not have; -1 is none and passes.

        Args:
            ids: integers [n].

        Raises:
            LossError: naming the first that is wrong.
        """
        check_ids(ids, self.total)

    def advance(self, epochs: int = 1) -> None:
        """Make every sample `epochs` older, up to 255, and start the counts of the next epoch."""
        step = min(max(epochs, 0), MAX_AGE)
        np.minimum(self.all_ages, np.uint8(MAX_AGE - step), out=self.all_ages)
        self.all_ages += np.uint8(step)
        self.recorded = self.bad_losses = 0

    def load(
        self, shard: int, losses: ArrayLike, ages: ArrayLike, columns: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        """Replace the losses, ages and columns of one shard.

        Args:
            shard: its number.
            losses: float32 [samples], rounded here; not finite means never seen.
            ages: uint8 [samples]; 255 is set where never seen.
            columns: what the policy's columns held [samples]. One that is missing starts as if each last loss had been
                recorded once.

        Raises:
            LossError: the columns are not as long as the shard.
        """
        new = np.asarray(losses, np.float32)
        expected = len(self.losses(shard))
        if new.shape != (expected,) or np.shape(ages) != (expected,):
            raise LossError(
                f"Cannot load the losses of shard {shard}: it has {expected} samples, and {shape_of(new)} losses and "
                f"{np.shape(ages)} ages were given. Load the sidecar that matches the shard's digest.",
                expected=expected,
                found=new.shape,
            )
        rounded = round_losses(new)
        seen = np.isfinite(rounded)
        self.losses(shard)[:] = np.where(seen, rounded, np.float32(np.nan))
        self.ages(shard)[:] = np.where(seen, np.asarray(ages, np.uint8), np.uint8(MAX_AGE))
        if self._columns:
            self._load_columns(shard, rounded, seen, columns or {})

    def _load_columns(
        self,
        shard: int,
        losses: NDArray[np.float32],
        seen: NDArray[np.bool_],
        columns: Mapping[str, NDArray[Any]],
    ) -> None:
        count = int(np.count_nonzero(seen))
        old: dict[str, NDArray[Any]] = {one.name: one.fresh(count) for one in self._columns}
        old |= {LOSS: np.full(count, np.nan, np.float32), AGE: np.full(count, MAX_AGE, np.uint8)}
        for column in self._columns:
            held = columns.get(column.name)
            if held is None or held.shape != seen.shape or held.dtype != column.dtype:
                held = column.fresh(len(seen))
                if column.source == LOSS and count:
                    self.seeded.add(column.name)
                    held[seen] = column.update(old, losses[seen])
            self.columns[column.name][self.first_id[shard] : self.first_id[shard + 1]] = held

    def histogram(self) -> Histogram:
        """Return the histogram of all losses; samples never seen are its unseen ones."""
        return Histogram.of(self.values)
