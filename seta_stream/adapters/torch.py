"""PyTorch: a dataset for DataLoader, and losses back from the training loop.

Takes the options of SetaStream; gives an IterableDataset. Effects: those of the stream, in the main process; its
workers only read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from types import TracebackType
from typing import Any, Final, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError, LossError, MissingExtraError

try:
    import torch
    import torch.distributed
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise MissingExtraError.of("SetaDataset", "torch", error) from error

from seta_stream.adapters.torch_collective import TorchCollective
from seta_stream.adapters.torch_weights import DeviceWeights
from seta_stream.adapters.torch_workers import end_with_parent
from seta_stream.options import StreamOptions
from seta_stream.policies.deciding import columns_of
from seta_stream.read.places import Places
from seta_stream.schedule import Steps
from seta_stream.stats import Stats
from seta_stream.stream import SetaStream

FLUSH_STEPS: Final = 64
"""Losses stay on their device for so many steps, and then move together."""


class SetaDataset(IterableDataset[dict[str, Any]]):
    """The samples of SetaStream for a DataLoader, with any number of workers, by fork or spawn.

    The order of the batches is the same for any number of workers. In worker processes decoding takes no threads.

    Args:
        urls: as for SetaStream.
        batch_size: samples per step and process; give the DataLoader the same.
        batches: yield ready batches, dicts of arrays, for DataLoader(dataset, batch_size=None).
        options: the other options of SetaStream. Where torch.distributed is initialised, its processes train together;
            world=1 makes each of them read for itself, and collective=TorchCollective(group) those of a group.

    Raises:
        ArgumentError: WORLD_SIZE says that several processes train, and torch.distributed is not initialised.
    """

    def __init__(
        self, urls: str | Sequence[str], *, batch_size: int, batches: bool = False, **options: Unpack[StreamOptions]
    ) -> None:
        super().__init__()
        self._collective: TorchCollective | None = None  # made here, and closed here
        self._is_alone = options.get("collective") is None and options.get("world") is None
        if self._is_alone:
            options["collective"] = self._collective = _collective()
            self._is_alone = self._collective is None
        self._stream: SetaStream | None = None
        try:
            self._stream = SetaStream(urls, batch_size=batch_size, **options)
            self._stream.session.begin()  # epoch 0, for workers that start before any epoch is set
        except BaseException:
            if self._stream is not None:
                self._stream.session.close(is_whole=False)
            self._leave()
            raise
        self._reader = self._stream.reader
        self._batch_size = batch_size
        self._batches = batches
        self._waiting: list[dict[str, torch.Tensor]] = []
        self._by_step = bool(columns_of(self._stream.policy))
        self._weights: DeviceWeights | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A worker gets arguments and handles; losses and the plan's rule stay in the main process."""
        return {"reader": self._reader, "batch_size": self._batch_size, "batches": self._batches}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._stream = self._collective = None
        self._is_alone = False
        self._reader, self._batch_size, self._batches = state["reader"], state["batch_size"], state["batches"]
        self._waiting, self._weights = [], None

    @property
    def stream(self) -> SetaStream:
        """The stream, in the main process alone.

        Raises:
            ArgumentError: in a worker.
        """
        if self._stream is None or get_worker_info() is not None:
            raise ArgumentError(
                "A DataLoader worker only reads: call set_epoch, update and state_dict in the main process."
            )
        return self._stream

    @property
    def is_batched(self) -> bool:
        """Whether it yields ready batches, for DataLoader(dataset, batch_size=None)."""
        return self._batches

    # ---- samples

    def __len__(self) -> int:
        """Samples (with batches=True: batches) of an iteration over the epoch that is set."""
        samples = len(self.stream)
        return -(-samples // self._batch_size) if self._batches else samples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield this worker's steps of the epoch that is set."""
        info = get_worker_info()
        if info is None:
            self._flush()
            self.stream.session.restart()
            threads = self._reader.reading.decode_threads
            return Places(self._reader, self._batch_size, 0, 1, batches=self._batches, threads=threads)
        end_with_parent()
        return Places(self._reader, self._batch_size, info.id, info.num_workers, batches=self._batches)

    # ---- epochs and losses

    def set_epoch(self, epoch: int) -> None:
        """Commit the losses recorded so far and select what the epoch reads; call it before iterating the loader."""
        self._flush()
        self._weights = None
        if self._is_alone and torch.distributed.is_available() and torch.distributed.is_initialized():
            self._check_still_alone()
        self.stream.set_epoch(epoch)

    def _check_still_alone(self) -> None:
        if torch.distributed.get_world_size() > 1:
            raise ArgumentError(
                f"torch.distributed was initialised, with {torch.distributed.get_world_size()} processes, after this "
                "dataset was constructed, which reads for one: construct it after init_process_group(), or with "
                "world=1 where each process should read everything."
            )

    def update(self, ids: torch.Tensor | Sequence[int], loss: torch.Tensor, **recorded: torch.Tensor) -> torch.Tensor:
        """Record a step's losses and return the mean of weight × loss, to call backward() on.

        Nothing is changed in place, and nothing waits for the device: losses move in groups of steps.

        Args:
            ids: int64 [batch_size], the batch's "__index__", on any device; −1 counts with weight 0.
            loss: float [batch_size], one loss per sample (reduction="none"); with `smooth=BLS()` the batch's mean
                will do, and is multiplied with the mean weight.
            recorded: what the policy asks for besides, as `flags=` or `group=`: [batch_size].

        Returns:
            float scalar: sum of weight × loss, divided by the number of samples.

        Raises:
            LossError: the batch is not the stream's step: other lengths, or one loss for all.
        """
        numbers = torch.as_tensor(ids)
        expected = self._check_step(numbers, loss)
        numbers = numbers.detach().long()
        mean = self._mean(numbers, loss)
        each = loss.detach().float().expand(expected)
        others = self._check_recorded(recorded, expected)
        self._waiting.append({name: one.clone() for name, one in {"ids": numbers, "losses": each, **others}.items()})
        self.stream.session.delivered += expected
        if len(self._waiting) >= FLUSH_STEPS:
            self._flush()
        return mean

    def _check_recorded(self, recorded: Mapping[str, Any], expected: int) -> dict[str, torch.Tensor]:
        """Return what is recorded beside the losses, whose names and lengths are checked now: values come later."""
        takes = self.stream.session.memory.takes
        others = {name: torch.as_tensor(values).detach() for name, values in recorded.items()}
        for name, values in others.items():
            if name not in takes or values.shape != (expected,):
                asked = f"the policy asks for {', '.join(takes) or 'nothing'} beside the losses"
                raise LossError(
                    f"update() got {name}= of shape {tuple(values.shape)}: {asked}, one for each of the step's "
                    f"{expected} samples.",
                    expected=(expected,),
                    found=tuple(values.shape),
                )
        return others

    def _mean(self, ids: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        """Return the mean of weight × loss."""
        return (self._weights_of(ids, loss) * loss).sum() / len(ids)

    def _check_step(self, ids: torch.Tensor, loss: torch.Tensor) -> int:
        """Return the size of the step that comes next, which the losses must have."""
        expected = self.stream.session.next_samples()
        if not isinstance(loss, torch.Tensor) or ids.is_floating_point() or ids.dtype == torch.bool:
            raise LossError(
                f"update() takes integer ids and a tensor of losses; got ids of {ids.dtype} and {type(loss).__name__}: "
                'pass the batch\'s "__index__" as it came.'
            )
        is_mean = loss.ndim == 0 and self.stream.session.memory.takes_means
        if not (loss.shape == (expected,) or is_mean) or ids.shape != (expected,):
            raise LossError(
                f"update() got {tuple(ids.shape)} ids and losses of shape {tuple(loss.shape)}, and this step has "
                f"{expected} samples: give one loss per sample (reduction='none'), and the DataLoader the dataset's "
                f"batch_size={self._batch_size}.",
                expected=expected,
                found=tuple(loss.shape),
            )
        if ids.device.type == "cpu":
            self.stream.session.memory.check_ids(ids.numpy())
        return expected

    def _weights_of(self, ids: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss weights of ids without waiting for the device: float [n], 0 where the id is −1."""
        held = self.stream.session.weights
        if held is None:
            return (ids >= 0).to(loss.dtype).to(loss.device, non_blocking=True)
        if ids.device.type == "cpu":  # torch looks up a few ids in several threads, ten times as slowly as numpy
            return torch.from_numpy(held.of(ids.numpy())).to(loss.dtype).to(loss.device, non_blocking=True)
        if self._weights is None or not self._weights.is_of(held, ids.device):
            self._weights = DeviceWeights(held, ids.device)
        return self._weights.of(ids).to(loss.dtype).to(loss.device, non_blocking=True)

    def _flush(self) -> None:
        """Move the waiting losses to the stream: one copy from the device for all of them."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        refused: LossError | None = None
        for names, alike in groupby(waiting, key=tuple):
            steps = list(alike)
            moved = {name: torch.cat([step[name] for step in steps]).cpu().numpy() for name in names}
            # Columns are updated step by step, so that a policy sees each batch by itself.
            ends = np.cumsum([len(step["ids"]) for step in steps])[:-1].tolist() if self._by_step else []
            for step in zip(*(np.split(values, ends) for values in moved.values()), strict=True):
                try:
                    self._record_step(dict(zip(names, step, strict=True)))
                except LossError as error:  # the other steps' losses are good all the same
                    refused = refused or error
        if refused is not None:
            raise refused

    def _record_step(self, step: dict[str, NDArray[Any]]) -> None:
        """Record what is of the corpus; ids on a device could not be checked before."""
        memory = self.stream.session.memory
        inside = (step["ids"] >= -1) & (step["ids"] < memory.total)
        self.stream.record(**{name: values[inside] for name, values in step.items()})
        memory.check_ids(step["ids"])

    def record(self, ids: object, losses: object, **recorded: object) -> None:
        """Take losses without counting a step, as SetaStream.record does."""
        self._flush()
        self.stream.record(ids, losses, **recorded)

    # ---- position and figures

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """Return the position, counted by `update` (or `step`), as plain values. Workers have none of their own."""
        if get_worker_info() is not None:
            return {}
        self._flush()
        return self.stream.state_dict(step)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was made; call it before iterating the loader."""
        if get_worker_info() is not None:
            return
        self._waiting, self._weights = [], None
        self.stream.load_state_dict(state_dict)

    @property
    def stats(self) -> Stats:
        """Counts of the epoch that is set, over all workers."""
        self._flush()
        return self.stream.stats

    def steps(self, epochs: int) -> Steps:
        """Return the steps of the run's first `epochs` epochs, as SetaStream.steps does."""
        return self.stream.steps(epochs)

    @property
    def progress(self) -> float:
        """Samples consumed over samples planned for the run, 0 … 1."""
        return self.stream.progress

    def close(self) -> None:
        """Commit the last epoch; closing twice is harmless."""
        try:
            self._flush()
        finally:
            self.stream.close()
            self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._flush()
        finally:
            try:
                self.stream.__exit__(kind, error, traceback)
            except BaseException:
                if kind is not None:
                    self._leave()
                raise  # else closing can be tried again
            self._leave()

    def _leave(self) -> None:
        """Close the connections: others that wait for this process learn that it comes to no exchange any more."""
        if self._collective is not None:
            self._collective.close()


def _collective() -> TorchCollective | None:
    """Return what joins the processes that train together; None for one alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return TorchCollective() if torch.distributed.get_world_size() > 1 else None
    announced = os.environ.get("WORLD_SIZE", "1")
    if announced != "1":
        raise ArgumentError(
            f"WORLD_SIZE={announced} says that several processes train, and torch.distributed is not initialised: call "
            "init_process_group() before constructing the dataset, or unset WORLD_SIZE.",
            expected="1",
            found=announced,
        )
    return None
