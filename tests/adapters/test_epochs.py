"""EpochLoader: one iteration per epoch, whatever iterators a framework makes besides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_corpora import MakeCorpus

from seta_stream import DynamicRandom
from seta_stream.adapters.epochs import EpochLoader
from seta_stream.adapters.torch import SetaDataset
from seta_stream.errors import StateError

BATCH = 4


@pytest.fixture
def dataset(make_corpus: MakeCorpus) -> SetaDataset:
    policy = DynamicRandom(prune_ratio=0.3)
    return SetaDataset(make_corpus(3, 21), batch_size=BATCH, batches=True, policy=policy, fields=("txt",))


def loader_of(dataset: SetaDataset, **options: Any) -> EpochLoader:
    options = {"batch_size": None, "first": lambda: None, "ahead": 2} | options
    return EpochLoader(dataset, {}, **options)


def trained(dataset: SetaDataset, loader: EpochLoader) -> list[list[int]]:
    seen = []
    for batch in loader:
        dataset.update(batch["__index__"], torch.ones(len(batch["__index__"])))
        seen.append(batch["__index__"].tolist())
    return seen


def test_each_iteration_is_the_next_epoch(dataset: SetaDataset) -> None:
    """Epochs end with their last whole window; a run of three gives nothing in a fourth iteration."""
    loader = loader_of(dataset, window=2, epochs=3)
    for epoch in range(3):
        assert not loader.is_over
        batches = trained(dataset, loader)
        assert dataset.stream.epoch == epoch
        assert len(batches) == loader.batches == dataset.stats.steps // 2 * 2
        assert (loader.done, loader.is_epoch_over) == (epoch + 1, True)
    assert loader.is_over
    assert trained(dataset, loader) == []
    assert dataset.stream.epoch == 2


def test_an_iteration_that_was_not_trained_on_is_begun_again(dataset: SetaDataset) -> None:
    """Iterators that a framework makes and drops, asked for a batch or not, move nothing."""
    loader = loader_of(dataset)
    iter(loader)
    first = next(iter(loader))["__index__"].tolist()
    assert trained(dataset, loader)[0] == first
    assert dataset.stream.epoch == 0
    iter(loader)
    next(iter(loader))
    trained(dataset, loader)
    assert dataset.stream.epoch == 1


def test_the_first_epoch_can_be_named(dataset: SetaDataset) -> None:
    """A run that begins at epoch 4 goes on with 5; one that begins at 0 again reads epoch 0 again."""
    plans = []
    for first in (4, 0, 0):
        loader = loader_of(dataset, first=lambda first=first: first)
        plans.append(trained(dataset, loader))
        assert dataset.stream.epoch == first
        trained(dataset, loader)
        assert dataset.stream.epoch == first + 1
    assert plans[1] == plans[2] != plans[0]


def test_its_length_is_that_of_a_full_epoch(dataset: SetaDataset) -> None:
    """No epoch has more batches; without a number of epochs there is no length, as frameworks expect it told."""
    assert len(loader_of(dataset, epochs=3)) == 63 // BATCH
    assert len(loader_of(dataset, epochs=3, window=4)) == 63 // BATCH // 4 * 4
    assert loader_of(dataset, epochs=3).batches < 63 // BATCH
    with pytest.raises(TypeError, match="epochs of different lengths have no length"):
        len(loader_of(dataset))


def test_a_closed_loader_gives_nothing(dataset: SetaDataset) -> None:
    """After close() nothing is read; after the dataset's own close an iteration says so."""
    loader = loader_of(dataset)
    batches = iter(loader)
    next(batches)
    loader.close()
    assert list(batches) == []
    assert list(loader) == []
    dataset.__exit__(RuntimeError, RuntimeError(), None)
    with pytest.raises(StateError, match="This stream is closed"):
        next(iter(loader))


def test_workers_draw_by_epoch_and_leave_the_models_generator(dataset: SetaDataset) -> None:
    """Two runs seed their workers alike, epochs differ, and torch's generator stands where it stood."""
    before, seeds = torch.get_rng_state(), []
    for _ in range(2):
        loader = loader_of(dataset, first=lambda: 0)
        for _ in range(2):
            trained(dataset, loader)
            seeds.append(loader._seeds.initial_seed())
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
    assert torch.equal(torch.get_rng_state(), before)
