"""Corpora and states that real streams wrote, for the tests of export and import."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seta_stream import SetaStream
from seta_stream.losses.generations import Generations
from seta_stream.losses.table import LossTable
from seta_stream.policies.deciding import columns_of


def loss_of(ids, epoch: int) -> np.ndarray:
    """A loss per sample, which falls from epoch to epoch, small and negative ones among them."""
    own = np.random.default_rng(7).gamma(2, 1, 10_000)[np.asarray(ids)]
    return own / (1 + epoch) - (np.asarray(ids) % 50 == 3) * 2 + (np.asarray(ids) % 60 == 4) * 1e-7


def train(
    urls: Sequence[str], state: Path, policy, *, epochs: int = 2, seed: int = 0, skip: int = 0, **options
) -> None:
    """Run some epochs; of each the losses of all samples are recorded but for the first `skip` ids."""
    with SetaStream(urls, policy=policy, state=str(state), batch_size=2, seed=seed, **options) as stream:
        for epoch in range(epochs):
            stream.set_epoch(epoch)
            for batch in stream.batches(2):
                ids = np.asarray(batch["__index__"])
                ids = ids[ids >= skip]
                stream.record(ids, loss_of(ids, epoch))


def selected_by_stream(urls: Sequence[str], state: Path, policy, epoch: int, seed: int = 0, **options):
    """Return mask bool [total] and weights float32 [total] as a stream selects and weights them."""
    with (
        warnings.catch_warnings(),
        SetaStream(urls, policy=policy, state=str(state), batch_size=1, seed=seed, **options) as stream,
    ):
        warnings.filterwarnings("ignore", "No losses were recorded")  # it only reads
        stream.set_epoch(epoch)
        found = list(stream)
        mask, weight = np.zeros(stream.stats.total, np.bool_), np.zeros(stream.stats.total, np.float32)
        for sample in found:
            mask[sample["__index__"]], weight[sample["__index__"]] = True, sample["__weight__"]
        assert len(found) == stream.stats.selected
        stream.session.close(is_whole=True)
        return mask, weight


def remembered(state: Path, samples: Sequence[int], digests: Sequence[bytes], policy=None) -> dict[str, np.ndarray]:
    """Return what the newest generation remembers."""
    generations = Generations(str(state))
    table = LossTable(samples, () if policy is None else columns_of(policy))

    class Shards:
        pass

    Shards.digests = digests
    report = generations.load(generations.kept()[-1], table, Shards)
    assert not report.unseen_shards
    assert not table.seeded
    return table.remembered()
