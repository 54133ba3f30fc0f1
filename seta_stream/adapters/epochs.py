"""A loader for training frameworks that iterate one loader once an epoch, and know nothing of selections.

Takes a SetaDataset; gives an iterable that sets the next epoch where its next iteration begins. Effects: those of the
dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import numpy as np
import torch
import torch.distributed
from torch.utils.data import DataLoader

from seta_stream.adapters.torch import SetaDataset
from seta_stream.collective import agree
from seta_stream.errors import ArgumentError, LossError

_OURS: Final = ("dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "drop_last")


def check_loader_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a DataLoader that follow from the dataset.

    Raises:
        ArgumentError: naming them.
    """
    refused = [name for name in _OURS if name in options]
    if refused:
        raise ArgumentError(
            f"The DataLoader's {', '.join(refused)} cannot be chosen, since the plan of the epoch decides: give "
            "batch_size, shuffle and drop_last as options of the dataset, and no sampler.",
            found=refused,
        )


class EpochLoader:
    """The batches of a run: each iteration is the epoch that comes next.

    Frameworks make iterators ahead of time, sometimes two for one epoch: nothing happens before the first batch is
    asked for, and an iteration that was not trained on is begun again.

    Args:
        dataset: what to read.
        options: of the DataLoader.
        batch_size: of the DataLoader; None where the dataset yields ready batches.
        first: called at the first iteration: the epoch to begin with, or None to go on where the dataset is.
        ahead: how many batches the framework takes before it has trained on the first of them.
        window: batches per step of the optimizer; an epoch ends with its last whole window.
        epochs: of the run: after these nothing more comes. None is no end.
    """

    def __init__(
        self,
        dataset: SetaDataset,
        options: Mapping[str, Any],
        *,
        batch_size: int | None,
        first: Callable[[], int | None],
        ahead: int,
        window: int = 1,
        epochs: int | None = None,
    ) -> None:
        self._dataset = dataset
        # Iterators draw a seed for their workers: not from the model's generator, which a resumed run must find alike.
        self._seeds = torch.Generator()
        self._loader: DataLoader[Any] | None = DataLoader(
            dataset, batch_size=batch_size, **{"generator": self._seeds, **options}
        )
        self._first, self._ahead, self._window, self._epochs = first, ahead, window, epochs
        self._is_begun = False
        self._running: Generator[Any, None, None] | None = None

    # ---- figures

    @property
    def batches(self) -> int:
        """Batches of the epoch that is set, of which the run may have had some before it was resumed.

        Raises:
            ArgumentError: they do not fill one window.
        """
        steps = self._dataset.stream.session.plan.lanes.steps
        if steps < self._window:
            raise ArgumentError(
                f"The epoch has {steps} batches and each step of the optimizer takes {self._window}: accumulate "
                "fewer, or prune less.",
                expected=self._window,
                found=steps,
            )
        return steps // self._window * self._window

    @property
    def done(self) -> float:
        """Epochs done: 2.5 is half-way through the third."""
        stream = self._dataset.stream
        return (stream.epoch or 0) + min(1.0, stream.position / self.batches)

    @property
    def is_epoch_over(self) -> bool:
        """Whether the epoch that is set was trained on to its end."""
        return self._dataset.stream.position >= self.batches

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end."""
        return self._epochs is not None and self.is_epoch_over and (self._dataset.stream.epoch or 0) + 1 >= self._epochs

    def __len__(self) -> int:
        """Batches of an epoch that reads everything: no epoch has more.

        Raises:
            TypeError: the run is not counted in epochs, and has no length.
        """
        if self._epochs is None:
            msg = "epochs of different lengths have no length"
            raise TypeError(msg)
        geometry = self._dataset.stream.session.geometry
        total = self._dataset.stats.total
        steps = total // geometry.global_batch if geometry.drop_last else -(-total // geometry.global_batch)
        return max(1, steps // self._window) * self._window

    # ---- batches

    def __iter__(self) -> Iterator[Any]:
        self._stop()
        self._running = self._batches()
        return self._running

    def close(self) -> None:
        """End the workers now: torch waits 5 s for each that is left to the garbage collector."""
        self._stop()
        self._loader = None

    def _stop(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _batches(self) -> Generator[Any, None, None]:
        session = self._dataset.stream.session
        session.check_open()
        if not self._enter_epoch():
            return
        self._seeds.manual_seed(_seed(session.geometry.seed, session.plan.epoch))
        wanted = self.batches - session.position
        for number, batch in enumerate(islice(self._loader or (), wanted)):
            if number >= self._ahead and not session.delivered:
                raise LossError(
                    f"{number - self._ahead + 1} batches were trained on and none of their losses came back: call "
                    'update(batch["__index__"], losses) in every training step, with one loss per sample, and call '
                    "backward() on what it returns, or return it to the framework that does."
                )
            yield batch

    def _enter_epoch(self) -> bool:
        """Set the epoch that comes next; none where one is set that was not trained on, or was resumed inside."""
        session = self._dataset.stream.session
        epoch = session.plan.epoch
        wanted = None if self._is_begun else self._first()
        self._is_begun = True
        if wanted is None:
            wanted = epoch + (session.delivered > 0 or self.is_epoch_over)
        if self._epochs is not None and wanted >= self._epochs:
            return False
        if wanted != epoch or session.delivered:
            self._dataset.set_epoch(wanted)
        return True


def _seed(seed: int, epoch: int) -> int:
    """Return what the workers of this process draw from in an epoch; other processes' draw something else."""
    is_many = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if is_many else 0
    return int(np.random.SeedSequence([seed % 2**64, epoch, rank]).generate_state(1, np.uint64)[0]) >> 1


def state_of_all(dataset: SetaDataset) -> dict[str, Any]:
    """Return a dataset's position once every process has kept its losses: only then may a checkpoint name them."""
    state = dataset.state_dict()
    agree(dataset.stream.session.memory.collective, "state_dict()")
    return state
