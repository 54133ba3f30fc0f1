"""Accelerate's own loop over a SetaDataset, and loaders that it would read wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import DataLoaderConfiguration
from small_corpora import MakeCorpus
from torch.utils.data import DataLoader

from seta_stream import SeTa
from seta_stream.adapters.accelerate import check_loader, prepare_loader
from seta_stream.adapters.torch import SetaDataset
from seta_stream.errors import ArgumentError

BATCH, EPOCHS = 8, 4

# This machine has two cores, and more workers than cores are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture
def shards(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(5, 41)


def decode(field: str, data: bytes) -> Any:
    return int(data)


def loss_of(ids: torch.Tensor) -> torch.Tensor:
    return (ids * 37 % 101).float() / 10 + 0.1


def dataset_of(shards: list[str], state: Path, **options: Any) -> SetaDataset:
    policy = SeTa(num_epochs=EPOCHS, target=0.4)
    return SetaDataset(shards, batch_size=BATCH, policy=policy, state=str(state), decode=decode, seed=2, **options)


def train(
    accelerator: Accelerator, dataset: SetaDataset, loader: Any, model: Any, optimizer: Any, stop: int | None = None
) -> list[tuple[int, list[int]]]:
    """The loop of docs/frameworks.md; it ends early where a batch is to be the last."""
    seen: list[tuple[int, list[int]]] = []
    for epoch in range(dataset.stream.epoch or 0, EPOCHS):
        dataset.set_epoch(epoch)
        for batch in loader:
            ids = batch["__index__"]
            with accelerator.accumulate(model):
                losses = loss_of(ids) + 0 * model(ids[:, None].float()).squeeze(1)
                accelerator.backward(dataset.update(ids, losses))
                optimizer.step()
                optimizer.zero_grad()
            seen.append((epoch, ids.tolist()))
            if len(seen) == stop:
                return seen
    return seen


def parts(accelerator: Accelerator) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    prepared: tuple[Any, Any] = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    return prepared


@pytest.fixture
def reference(shards: list[str], tmp_path: Path) -> list[tuple[int, list[int]]]:
    """What a plain loop of torch sees."""
    seen = []
    with dataset_of(shards, tmp_path / "reference") as dataset:
        loader = DataLoader(dataset, batch_size=BATCH)
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)
            for batch in loader:
                dataset.update(batch["__index__"], loss_of(batch["__index__"]))
                seen.append((epoch, batch["__index__"].tolist()))
    return seen


@pytest.mark.parametrize(("workers", "batches"), [(0, False), (2, True)])
def test_the_loop_reads_the_plan(
    shards: list[str], tmp_path: Path, reference: list[Any], workers: int, batches: bool
) -> None:
    """Every epoch's batches as in a plain loop, single samples collated or ready ones; epochs are the loop's own."""
    accelerator = Accelerator(cpu=True)
    with dataset_of(shards, tmp_path / "s", batches=batches) as dataset:
        loader = prepare_loader(accelerator, dataset, loader={"num_workers": workers})
        check_loader(loader)
        assert train(accelerator, dataset, loader, *parts(accelerator)) == reference


def test_gradients_are_stepped_at_an_epochs_end(shards: list[str], tmp_path: Path, reference: list[Any]) -> None:
    """accelerator.accumulate learns from the loader where an epoch ends, and leaves no gradient for the next."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    sizes = [sum(epoch == each for epoch, _ in reference) for each in range(EPOCHS)]
    with dataset_of(shards, tmp_path / "s") as dataset:
        loader, steps = prepare_loader(accelerator, dataset), []
        model, optimizer = parts(accelerator)
        step = optimizer.optimizer.step
        optimizer.optimizer.step = lambda *values: (steps.append(1), step(*values))[1]
        train(accelerator, dataset, loader, model, optimizer)
    assert any(size % 3 for size in sizes)
    assert len(steps) == sum(-(-size // 3) for size in sizes)


@pytest.mark.parametrize("stop", [7, 30])
def test_save_state_holds_the_position(shards: list[str], tmp_path: Path, reference: list[Any], stop: int) -> None:
    """Registered for checkpointing, the dataset goes on with the next batch, in the first epoch and in a later one."""
    accelerator = Accelerator(cpu=True)
    dataset = dataset_of(shards, tmp_path / "s")
    accelerator.register_for_checkpointing(dataset)
    loader = prepare_loader(accelerator, dataset, loader={"num_workers": 2})
    seen = train(accelerator, dataset, loader, *parts(accelerator), stop=stop)
    accelerator.save_state(str(tmp_path / "c"))
    dataset.__exit__(RuntimeError, RuntimeError(), None)
    again = Accelerator(cpu=True)
    with dataset_of(shards, tmp_path / "s") as dataset:
        again.register_for_checkpointing(dataset)
        loader = prepare_loader(again, dataset)
        model, optimizer = parts(again)
        again.load_state(str(tmp_path / "c"))
        assert seen + train(again, dataset, loader, model, optimizer) == reference


def test_what_splits_the_plan_again_is_refused(shards: list[str], tmp_path: Path) -> None:
    """Dispatching, splitting and samplers, each with the setting to change."""
    dataset = dataset_of(shards, tmp_path / "s")

    def accelerator(**options: Any) -> Accelerator:
        return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**options))

    with pytest.raises(ArgumentError, match=r"dispatches batches: .*DataLoaderConfiguration\(dispatch_batches=False\)"):
        prepare_loader(accelerator(dispatch_batches=True), dataset)
    with pytest.raises(ArgumentError, match="split_batches=True says that a batch is cut among the processes"):
        prepare_loader(accelerator(split_batches=True), dataset)
    with pytest.raises(ArgumentError, match="DataLoader's batch_size, shuffle cannot be chosen, since the plan"):
        prepare_loader(accelerator(), dataset, loader={"shuffle": True, "batch_size": 4})


def test_loaders_that_accelerate_prepared_are_refused(shards: list[str], tmp_path: Path) -> None:
    """Its dispatcher, its second split and its own count of epochs; loaders of other data pass."""
    dataset = dataset_of(shards, tmp_path / "s")
    loader, device = DataLoader(dataset, batch_size=BATCH), torch.device("cpu")
    with pytest.raises(ArgumentError, match="Accelerate dispatches batches: the first process would read for all"):
        check_loader(Accelerator(cpu=True).prepare(loader))
    split = prepare_data_loader(loader, device, num_processes=2, process_index=1)
    with pytest.raises(ArgumentError, match="splits what process 1 of 2 reads among all of them once more"):
        check_loader(split)
    whole = prepare_data_loader(loader, device, num_processes=1, process_index=0)
    with pytest.raises(ArgumentError, match="sets the dataset's epoch to the number of its own iterations"):
        check_loader(whole)
    check_loader(loader)
    check_loader(Accelerator(cpu=True).prepare(DataLoader(torch.arange(8))))
