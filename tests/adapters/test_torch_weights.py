"""Loss weights on a device equal those on the host."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seta_stream.adapters.torch_weights import DeviceWeights
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.plan.weights import LineWeights, Weights

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


def weights_of(rank: int, world: int) -> tuple[EpochPlan, Weights]:
    """Return a plan over shards of many sizes, and a rank's weights: 0.5 and up, in the order of the line."""
    samples = np.array([40, 0, 33, 7, 0, 120, 64])
    first_id = np.concatenate([[0], np.cumsum(samples)])
    mask = np.random.default_rng(0).random(int(first_id[-1])) < 0.7
    mask[first_id[3] : first_id[4]] = False  # a shard of which nothing is selected
    plan = EpochPlan(Selection.of(mask, first_id), Geometry(4, 2, 4, 8, 1, 2, "blocks", True), 1)
    begin, stop = plan.part(rank, world)
    return plan, Weights.of_line(plan, LineWeights(begin, np.arange(begin, stop, dtype=np.float32) + 0.5))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (0, 4), (2, 4), (3, 4), (1, 2), (5, 8)])
def test_a_device_knows_what_the_rank_knows(rank: int, world: int, device: str) -> None:
    """Each id that it reads has its weight; −1, other ranks' ids and ids outside the corpus have 0."""
    plan, weights = weights_of(rank, world)
    held = plan.stretch(*plan.part(rank, world))
    expected = np.zeros(plan.total, np.float32)
    expected[held] = weights.of(held)
    assert np.count_nonzero(expected) == len(held)
    ids = np.concatenate([[-1], np.arange(plan.total), [plan.total, 10 * plan.total, 1 << 40, -7]])
    found = DeviceWeights(weights, torch.device(device)).of(torch.from_numpy(ids).to(device))
    assert found.dtype == torch.float32
    assert found.cpu().tolist() == [0, *expected.tolist(), 0, 0, 0, 0]


def test_it_belongs_to_one_epoch_and_device() -> None:
    """Another epoch's weights, equal or not, and another device are another lookup."""
    _, weights = weights_of(0, 1)
    held = DeviceWeights(weights, torch.device("cpu"))
    assert held.is_of(weights, torch.device("cpu"))
    assert not held.is_of(weights_of(0, 1)[1], torch.device("cpu"))
    assert not held.is_of(weights, torch.device("meta"))
