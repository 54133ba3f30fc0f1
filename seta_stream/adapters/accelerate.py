"""Accelerate: a loader that each process reads for itself, in its part of every step.

Takes an Accelerator and a SetaDataset; gives a loader for the usual loop. Effects: those of the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from seta_stream.errors import ArgumentError, MissingExtraError

try:
    from accelerate import Accelerator
    from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard, IterableDatasetShard, prepare_data_loader
    from torch.utils.data import DataLoader, IterableDataset
except ImportError as error:
    raise MissingExtraError.of("seta_stream.adapters.accelerate", "huggingface", error) from error

from seta_stream.adapters.epochs import check_loader_options
from seta_stream.adapters.torch import SetaDataset

_DISPATCHES: Final = (
    "Accelerate dispatches batches: the first process would read for all, and each of its batches be cut among them, "
    "while every process has a part of the plan of its own. Give Accelerator(dataloader_config="
    "DataLoaderConfiguration(dispatch_batches=False)) and make the loader with "
    "seta_stream.adapters.accelerate.prepare_loader; do not give it to accelerator.prepare()."
)


def prepare_loader(
    accelerator: Accelerator, dataset: SetaDataset, *, loader: Mapping[str, Any] | None = None
) -> DataLoader[Any]:
    """Return a loader over the dataset's epochs, whose batches come on the accelerator's device.

    Use it in place of `accelerator.prepare(loader)`, which would split every process's part of a step once more. It
    tells `accelerator.accumulate` where an epoch ends. Set epochs with `dataset.set_epoch`, record losses with
    `dataset.update`, and let checkpoints hold the position by `accelerator.register_for_checkpointing(dataset)`.

    Args:
        accelerator: of the run; make it before the dataset, which needs the processes connected.
        dataset: with batches=True, or (and then `loader` may have a "collate_fn") without.
        loader: options of the DataLoader, as {"num_workers": 4, "persistent_workers": True}.

    Raises:
        ArgumentError: the accelerator dispatches or splits batches, or `loader` names what follows from the dataset.

    Source:
        accelerate/data_loader.py of 1.15: prepare_data_loader wraps an IterableDataset in IterableDatasetShard, which
        reads all of it in every process and keeps a part, unless there is one process; the DataLoaderShard it
        returns calls the dataset's set_epoch with a count of its own, from 0 after a resume too. Issue 4199 there.
    """
    if accelerator.dispatch_batches:
        raise ArgumentError(_DISPATCHES, expected=False, found=True)
    if accelerator.split_batches:
        raise ArgumentError(
            "split_batches=True says that a batch is cut among the processes, and each batch of SetaDataset is one "
            "process's own: give DataLoaderConfiguration(split_batches=False), and batch_size per process.",
            expected=False,
            found=True,
        )
    check_loader_options(loader or {})
    is_batched = dataset.is_batched
    size = None if is_batched else dataset.stream.batch_size
    prepared: DataLoader[Any] = prepare_data_loader(
        DataLoader(_Samples(dataset), batch_size=size, **(loader or {})),
        accelerator.device,
        num_processes=1,  # that is: nothing left to split
        process_index=0,
        put_on_device=accelerator.device_placement,
        dispatch_batches=False,
        non_blocking=accelerator.non_blocking,
    )
    return prepared


def check_loader(loader: object) -> None:
    """Refuse a loader over SetaDataset that went through `accelerator.prepare`; others pass.

    Raises:
        ArgumentError: its batches are dispatched, or would be split twice, or it would set epochs by itself.
    """
    dataset = getattr(loader, "dataset", None)
    inner = dataset.dataset if isinstance(dataset, IterableDatasetShard) else dataset
    if not isinstance(inner, SetaDataset):
        return
    if isinstance(loader, DataLoaderDispatcher):
        raise ArgumentError(_DISPATCHES, expected=False, found=True)
    if isinstance(dataset, IterableDatasetShard):
        raise ArgumentError(
            f"Accelerate splits what process {dataset.process_index} of {dataset.num_processes} reads among all of "
            "them once more, and most samples of the plan would be dropped: make the loader with "
            "seta_stream.adapters.accelerate.prepare_loader, and give accelerator.prepare() the model and the "
            "optimizer alone."
        )
    if isinstance(loader, DataLoaderShard):
        raise ArgumentError(
            "A loader from accelerator.prepare() sets the dataset's epoch to the number of its own iterations, which "
            "is another after a resume: make the loader with seta_stream.adapters.accelerate.prepare_loader."
        )


class _Samples(IterableDataset[dict[str, Any]]):
    """A dataset without `set_epoch`, so that Accelerate's loader calls none; the user's loop does."""

    def __init__(self, dataset: SetaDataset) -> None:
        super().__init__()
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._dataset)
