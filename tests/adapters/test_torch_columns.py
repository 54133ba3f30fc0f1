"""SetaDataset with policies that remember more than the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_corpora import MakeCorpus

from seta_stream import BLS, InfoBatch, Kakurenbo, RePB, Rule
from seta_stream.adapters.torch import FLUSH_STEPS, SetaDataset
from seta_stream.errors import LossError


def steps_of(size: int, count: int) -> list[torch.Tensor]:
    return [torch.arange(first * size, (first + 1) * size) for first in range(count)]


def test_columns_see_each_step_by_itself(make_corpus: MakeCorpus) -> None:
    """Losses move in groups of steps, and RePB compares each with its own batch all the same."""
    dataset = SetaDataset(make_corpus(1, 40), batch_size=4, policy=RePB())
    assert FLUSH_STEPS > 10
    for step, ids in enumerate(steps_of(4, 10)):
        dataset.update(ids, 100.0 * step + torch.tensor([1.0, 2.0, 3.0, 4.0]))
    dataset.record([], [])
    table = dataset.stream.session.memory.losses
    alone = SetaDataset(make_corpus(1, 40), batch_size=4, policy=RePB()).stream.session.memory.losses
    for step, ids in enumerate(steps_of(4, 10)):
        alone.record(ids, 100.0 * step + torch.tensor([1.0, 2.0, 3.0, 4.0]))
    for name, column in alone.columns.items():
        assert np.array_equal(table.columns[name], column), name


def test_flags_travel_with_the_losses(make_corpus: MakeCorpus) -> None:
    """As integers or booleans, from any device."""
    dataset = SetaDataset(make_corpus(1, 8), batch_size=4, policy=Kakurenbo(9))
    for ids in steps_of(4, 2):
        dataset.update(ids, torch.ones(4), flags=ids % 2 == 1)
    dataset.record([], [])
    assert dataset.stream.session.memory.losses.columns["flags"].tolist() == [0, 1] * 4


def weighted(histogram: object, epoch: int) -> Rule:
    return Rule([], [1.0], 3.0, unseen_weight=3.0)


def test_a_mean_loss_is_taken_with_smoothing_alone(make_corpus: MakeCorpus) -> None:
    """It comes back times the mean weight, and each sample of the batch remembers it."""
    dataset = SetaDataset(make_corpus(1, 8), batch_size=4, policy=InfoBatch(9, smooth=BLS()))
    loss = torch.tensor(2.0, requires_grad=True)
    mean = dataset.update(torch.arange(4), loss)
    mean.backward()
    assert (mean.item(), loss.grad.item()) == (2.0, 1.0)
    dataset.record([], [])
    assert dataset.stream.session.memory.losses.columns["smoothed"][:4].tolist() == [2.0] * 4
    plain = SetaDataset(make_corpus(1, 8), batch_size=4, policy=InfoBatch(9))
    with pytest.raises(LossError, match=r"this step has 4 samples: give one loss per sample"):
        plain.update(torch.arange(4), torch.tensor(2.0))


def test_a_mean_loss_meets_the_mean_weight(make_corpus: MakeCorpus) -> None:
    """Three times the loss where every weight is 3."""

    class Threefold:
        smooth = BLS()

        def rule(self, histogram: object, epoch: int) -> Rule:
            return weighted(histogram, epoch)

    dataset = SetaDataset(make_corpus(1, 8), batch_size=4, policy=Threefold())
    assert dataset.update(torch.arange(4), torch.tensor(2.0)).item() == 6.0


def test_what_is_recorded_is_checked_at_its_step(make_corpus: MakeCorpus) -> None:
    """Name and length, before anything waits; steps with and without flags follow each other as they like."""
    dataset = SetaDataset(make_corpus(1, 16), batch_size=4, policy=Kakurenbo(9))
    for wrong, told in (({"flag": torch.ones(4)}, "asks for flags"), ({"flags": torch.ones(8)}, r"shape \(8,\)")):
        with pytest.raises(LossError, match=told):
            dataset.update(torch.arange(4), torch.ones(4), **wrong)
    ones = torch.ones(4, dtype=torch.uint8)
    for step, flags in enumerate([{}, {"flags": ones}, {}, {"flags": ones}]):
        dataset.update(torch.arange(4 * step, 4 * step + 4), torch.ones(4), **flags)
    dataset.record([], [])
    assert dataset.stream.session.memory.losses.columns["flags"].tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


def test_a_value_that_does_not_fit_costs_its_own_step_alone(make_corpus: MakeCorpus) -> None:
    """The losses of the other waiting steps are recorded, and then the error is told."""
    dataset = SetaDataset(make_corpus(1, 12), batch_size=4, policy=Kakurenbo(9))
    for step, flag in enumerate([0, -1, 1]):
        dataset.update(torch.arange(4 * step, 4 * step + 4), torch.ones(4), flags=torch.full((4,), flag))
    with pytest.raises(LossError, match="column flags holds whole numbers from 0 to 255"):
        dataset.record([], [])
    assert np.isnan(dataset.stream.session.memory.losses.values).tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_no_sample_counts_with_weight_0(make_corpus: MakeCorpus) -> None:
    """The id −1, whether the policy weights or not."""
    dataset = SetaDataset(make_corpus(1, 8), batch_size=4)
    assert dataset.update(torch.tensor([0, 1, -1, -1]), torch.tensor([1.0, 1.0, 9.0, 9.0])).item() == 0.5
