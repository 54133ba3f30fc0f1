"""Caches of several machines: what each one of a run's machines finds in its own cache, epoch by epoch.

Takes numbers of shards and machines and a way to select; gives hit rates by bytes. A pure simulation of the real plan:
machine m of M reads the rows of the steps that are its own, and keeps whole blocks of what it read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.read.cache import BLOCK_BYTES

Mask = NDArray[np.bool_]
Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class Simulated:
    """A corpus of which only sizes exist.

    Args:
        first_id: int64 [shards + 1].
        starts, sizes: int64 [samples], of the extents in their shards.
    """

    first_id: Int64s
    starts: Int64s
    sizes: Int64s

    @classmethod
    def of(cls, shards: int, samples: int, mean_bytes: float, *, spread: float = 0.0, seed: int = 0) -> Simulated:
        """Return shards of about `samples` samples; `spread` is the share by which their numbers differ."""
        rng = np.random.default_rng(seed)
        factors = 1 + spread * (2 * rng.random(shards) - 1)
        counts = np.maximum(1, (samples * factors).astype(np.int64))
        first_id = np.concatenate([[0], np.cumsum(counts)])
        sizes = 1024 + (rng.lognormal(0, 0.3, first_id[-1]) * mean_bytes // 512).astype(np.int64) * 512
        ends = np.cumsum(sizes)
        bases = np.concatenate([[0], ends])[first_id[:-1]]
        return cls(first_id, ends - sizes - np.repeat(bases, counts), sizes)

    @property
    def shard_of(self) -> Int64s:
        """The shard of each sample: int64 [samples]."""
        return np.repeat(np.arange(len(self.first_id) - 1), np.diff(self.first_id))

    def blocks(self, block_bytes: int) -> tuple[Int64s, Int64s, int]:
        """Return the first and last block of each sample, numbered over all shards, and how many there are."""
        last = self.first_id[1:] - 1
        per_shard = -(-(self.starts[last] + self.sizes[last]) // block_bytes)
        base = np.concatenate([[0], np.cumsum(per_shard)])
        begins = base[self.shard_of] + self.starts // block_bytes
        ends = base[self.shard_of] + (self.starts + self.sizes - 1) // block_bytes
        return begins, ends, int(base[-1])


Select = Callable[[Simulated, int, int], Mask]
"""(corpus, epoch, seed) → mask: bool [samples]"""


def full(corpus: Simulated, _epoch: int, _seed: int) -> Mask:
    """Select everything."""
    return np.ones(len(corpus.sizes), bool)


def half(corpus: Simulated, epoch: int, seed: int) -> Mask:
    """Select each sample with probability 1/2, anew each epoch, the first one too."""
    return np.random.default_rng((seed, epoch)).random(len(corpus.sizes)) < 0.5


def windows(corpus: Simulated, epoch: int, seed: int, *, unlike: float = 0.0) -> Mask:
    """Select as SeTa does: all at first, then 3 of 5 groups by loss, moving, with 9 of 10 samples of each.

    Args:
        corpus, epoch, seed: as for every selection.
        unlike: how far the shards' losses differ as wholes, as the deviation of the logarithm of their means.
    """
    rng = np.random.default_rng(seed)
    means = np.exp(unlike * rng.standard_normal(len(corpus.first_id) - 1))
    losses = rng.exponential(size=len(corpus.sizes)) * means[corpus.shard_of]
    keep = np.random.default_rng((seed, epoch)).random(len(losses)) < 0.9
    if epoch == 0:
        return keep
    bounds = np.quantile(losses, np.linspace(0, 1, 6))
    first = epoch % 3
    return keep & (losses >= bounds[first]) & (losses <= bounds[first + 3])


def unlike_windows(corpus: Simulated, epoch: int, seed: int) -> Mask:
    """Select windows of losses where the shards differ by 30 % in their means."""
    return windows(corpus, epoch, seed, unlike=0.3)


SELECTIONS: dict[str, Select] = {
    "full": full,
    "half at random": half,
    "windows": windows,
    "windows, shards unlike": unlike_windows,
}


def hit_rates(
    corpus: Simulated,
    machines: int,
    select: Select,
    *,
    epochs: int = 10,
    seed: int = 0,
    block_bytes: int = BLOCK_BYTES,
    batch: int = 32,
) -> Iterator[tuple[float, float]]:
    """Yield per epoch the share of wanted bytes that were cached: over all machines, and of the worst one.

    Args:
        corpus: what is read.
        machines: that read it, each with a cache as large as it needs.
        select: what an epoch needs.
        epochs: how many.
        seed: of the plan and the selection.
        block_bytes: of the cache.
        batch: samples per machine and step.
    """
    geometry = Geometry(machines, 8, batch, 8 * batch, machines, seed, "shards", drop_last=True)
    first, last, blocks = corpus.blocks(block_bytes)
    # axes: machine × block
    cached = np.zeros((machines, blocks), bool)
    for epoch in range(epochs):
        selection = Selection.of(select(corpus, epoch, seed), corpus.first_id)
        plan = EpochPlan(selection, geometry, epoch)
        starts = [*plan.lanes.starts[:: geometry.width].tolist(), plan.lanes.planned]
        hits, wanted = np.zeros(machines), np.zeros(machines)
        for machine in range(machines):
            ids = plan.stretch(starts[machine], starts[machine + 1])
            here = cached[machine]
            # No sample here is longer than a block, so that it lies in two at most.
            are_here = here[first[ids]] & here[last[ids]]
            hits[machine], wanted[machine] = corpus.sizes[ids[are_here]].sum(), corpus.sizes[ids].sum()
            here[first[ids]] = here[last[ids]] = True
        yield float(hits.sum() / wanted.sum()), float((hits / wanted).min())
