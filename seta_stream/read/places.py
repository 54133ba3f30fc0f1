"""One worker's way through the steps of an epoch, which knows its place.

Takes a reader and which of how many workers this is; gives samples or batches. Effects: those of reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Self

from seta_stream.errors import CheckpointError
from seta_stream.read.batches import batched
from seta_stream.read.reader import Reader


class Places:
    """One worker's way through its steps, which knows its place (for torchdata's StatefulDataLoader).

    Args:
        reader: what to read.
        batch_size: samples per step of this rank.
        worker, workers: which of how many.
        batches: yield stacked batches.
        threads: that decode; 0 decodes in this one.
    """

    def __init__(
        self, reader: Reader, batch_size: int, worker: int, workers: int, *, batches: bool, threads: int = 0
    ) -> None:
        self._reader = reader
        self._batch_size = batch_size
        self._worker, self._workers = worker, workers
        self._batches = batches
        self._threads = threads
        self._origin = reader.board.start
        self._yielded = 0
        self._values: Iterator[dict[str, Any]] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._values is None:
            self._values = self._read()
        value = next(self._values)
        self._yielded += 1
        return value

    def _read(self) -> Iterator[dict[str, Any]]:
        per_step = 1 if self._batches else self._batch_size
        done, within = divmod(self._yielded, per_step)
        begin = self._origin + self._worker + done * self._workers if done or within else self._origin
        share = self._reader.share(self._worker, self._workers, origin=self._origin, begin=begin)
        lists = self._reader.lists(self._reader.plan(), share, threads=self._threads)
        samples = chain.from_iterable(lists)
        if not self._batches:
            for _ in range(within):
                next(samples)
            yield from samples
            return
        yield from batched(samples, self._batch_size)

    def state_dict(self) -> dict[str, int]:
        """Return the place as plain numbers."""
        return {
            "epoch": self._reader.board.epoch,
            "origin": self._origin,
            "workers": self._workers,
            "yielded": self._yielded,
        }

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go to a place that `state_dict` told.

        Raises:
            CheckpointError: another epoch is set, or there are more or fewer workers.
        """
        expected = {"epoch": state_dict["epoch"], "workers": state_dict["workers"]}
        found = {"epoch": self._reader.board.epoch, "workers": self._workers}
        if expected != found or not self._reader.board.is_set:
            raise CheckpointError(
                f"The loader's checkpoint has {expected}, and here are {found}: call dataset.load_state_dict() before "
                "loader.load_state_dict(), and keep the number of workers (the dataset's own checkpoint need not).",
                expected=expected,
                found=found,
            )
        self._origin, self._yielded, self._values = state_dict["origin"], state_dict["yielded"], None
