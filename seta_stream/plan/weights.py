"""Loss weights on their way from the processes that own shards to those that read them, and looked up there.

Takes plans and weights by id; gives weights in the order of the line, and by id or shard again. Pure.

A process knows the weights of the shards that it owns; a rank needs those of the samples that it reads, and of no
others: a billion of them would take 4 GB in every process. Both know the plan, so no ids travel: each owner sends each
rank the weights of the rank's part of the line (`EpochPlan.part`), in the order of the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError, PeerError
from seta_stream.plan.epoch import EpochPlan

Int64s = NDArray[np.int64]
Float32s = NDArray[np.float32]

_WIRE = np.dtype("<f4")


def weights_to_send(plan: EpochPlan, weights: Float32s, owned: tuple[int, int], world: int) -> list[bytes]:
    """Return what the owner of some shards sends each rank: the weights of the samples in the rank's part.

    Args:
        plan: of the epoch.
        weights: float32 [samples of the owned shards], in order of ids.
        owned: (first, stop), the shards.
        world: how many ranks read.

    Returns:
        list [world] of little-endian float32, in the order of the line.
    """
    first, stop = owned
    # axes: owned shard, in the order of the line; begins and ends are places in the line, and in what is owned of it
    shards = plan.order[(plan.order >= first) & (plan.order < stop)]
    begins, lengths = plan.starts[shards], plan.selection.counts[shards]
    ends = np.cumsum(lengths)
    line = np.empty(int(lengths.sum()), _WIRE)
    base = int(plan.selection.first_id[first])
    for shard, end, length in zip(shards.tolist(), ends.tolist(), lengths.tolist(), strict=True):
        if length:
            own = weights[int(plan.selection.first_id[shard]) - base :]
            line[end - length : end] = own[plan.selection.positions(shard)]
    parts = [plan.part(rank, world) for rank in range(world)]
    return [line[_owned_before(begins, ends, a) : _owned_before(begins, ends, b)].tobytes() for a, b in parts]


def _owned_before(begins: Int64s, ends: Int64s, place: int) -> int:
    """Return how many selected samples of the owned shards stand before a place in the line.

    Args:
        begins: int64 [shards], where each begins in the line, ascending.
        ends: int64 [shards], the samples up to its end, of these shards alone.
        place: in the line.
    """
    last = int(np.searchsorted(begins, place, side="right")) - 1
    if last < 0:
        return 0
    before = int(ends[last - 1]) if last else 0
    return min(before + place - int(begins[last]), int(ends[last]))


def weights_received(plan: EpochPlan, rank: int, world: int, owners: Int64s, parts: Sequence[bytes]) -> Float32s:
    """Return the weights of a rank's part, put together from what the owners sent: float32 [stop − begin].

    Args:
        plan: of the epoch.
        rank, world: who reads.
        owners: int64 [owners + 1], the first shard of each, and the number of shards.
        parts: what each owner's `weights_to_send` gave for this rank.

    Raises:
        PeerError: an owner sent more or fewer than its shards have in this part: it has another plan.
    """
    begin, stop = plan.part(rank, world)
    # axes: shard that lies in the part, in the order of the line; how much of it does
    starts = plan.starts[plan.order]
    lows = np.clip(starts, begin, stop)
    sizes = np.clip(starts + plan.selection.counts[plan.order], begin, stop) - lows
    inside = np.flatnonzero(sizes)
    sizes, owner = sizes[inside], np.searchsorted(owners, plan.order[inside], side="right") - 1
    expected = np.bincount(owner, sizes, minlength=len(parts)).astype(np.int64)
    for number, part in enumerate(parts):
        if len(part) != int(expected[number]) * _WIRE.itemsize:
            raise PeerError(
                f"Process {number} sent {len(part) // _WIRE.itemsize} weights for epoch {plan.epoch}, and its shards "
                f"have {expected[number]} selected samples in the part of the line that rank {rank} of {world} reads: "
                "the processes have different plans. Start all of them with the same settings.",
                expected=int(expected[number]),
                found=len(part) // _WIRE.itemsize,
            )
    sent = [np.frombuffer(part, _WIRE) for part in parts]
    if len(sent) == 1:
        return sent[0].astype(np.float32, copy=False)
    line = np.empty(stop - begin, np.float32)
    at, taken = 0, [0] * len(sent)
    for number, size in zip(owner.tolist(), sizes.tolist(), strict=True):
        line[at : at + size] = sent[number][taken[number] : taken[number] + size]
        at += size
        taken[number] += size
    return line


@dataclass(frozen=True, slots=True, eq=False)
class LineWeights:
    """The weights of a stretch of an epoch's line.

    Args:
        begin: where the stretch begins.
        values: float32 [samples of the stretch].
    """

    begin: int
    values: Float32s

    def of_shard(self, plan: EpochPlan, shard: int) -> Float32s:
        """Return a shard's weights by position, float32 [samples]: 0 where not selected, NaN outside the stretch."""
        first, stop = plan.selection.first_id[shard : shard + 2].tolist()
        found = np.zeros(stop - first, np.float32)
        positions = plan.selection.positions(shard)
        start = int(plan.starts[shard]) - self.begin
        low = min(max(-start, 0), len(positions))
        high = max(min(len(self.values) - start, len(positions)), low)
        found[positions[:low]] = np.nan
        found[positions[low:high]] = self.values[start + low : start + high]
        found[positions[high:]] = np.nan
        return found


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of the samples that a rank reads, to be looked up by id.

    Args:
        first_id: int64 [shards + 1].
        base: int64 [shards], where each shard's weights begin in the table; −1 where this rank does not read it.
        table: float32, by position in each shard: 0 where not selected, NaN where another rank's.
        is_by_id: whether every shard is held, in order of ids, so that an id is its place in the table.
    """

    first_id: Int64s
    base: Int64s
    table: Float32s
    is_by_id: bool

    @classmethod
    def of_line(cls, plan: EpochPlan, line: LineWeights) -> Weights:
        """Return the lookup of a rank's part of the line."""
        first_id, counts = plan.selection.first_id, plan.selection.counts
        samples = np.diff(first_id)
        begin, stop = line.begin, line.begin + len(line.values)
        held = (counts > 0) & (plan.starts < stop) & (plan.starts + counts > begin)
        is_whole = begin == 0 and stop == plan.lanes.selected
        if is_whole:
            base = first_id[:-1]
            table = np.zeros(int(first_id[-1]), np.float32)
        else:
            base = np.where(held, np.cumsum(samples * held) - samples * held, -1)
            # No rank reads a shard of which nothing is selected: all such share one stretch of zeros.
            taken, unselected = int((samples * held).sum()), counts == 0
            base[unselected] = taken
            table = np.zeros(taken + int(samples[unselected].max(initial=0)), np.float32)
        for shard in np.flatnonzero(held).tolist():
            at = int(base[shard])
            table[at : at + int(samples[shard])] = line.of_shard(plan, shard)
        return cls(first_id, base, table, is_whole)

    def of(self, ids: NDArray[np.int64]) -> Float32s:
        """Return the weights of samples: float32 [ids]; 0 for the id −1.

        Raises:
            ArgumentError: another rank reads one of them, or the corpus does not have it.
        """
        numbers = np.asarray(ids, np.int64)
        some = numbers >= 0
        wanted = numbers[some]
        total = int(self.first_id[-1])
        if len(wanted) and int(wanted.max()) >= total:
            worst = int(wanted.max())
            raise ArgumentError(
                f"Cannot tell the weight of id {worst}: the corpus has {total} samples.", expected=total, found=worst
            )
        values = self.table[wanted] if self.is_by_id else self._held(wanted)
        found = np.zeros(numbers.shape, np.float32)
        found[some] = values
        return found

    def _held(self, ids: NDArray[np.int64]) -> Float32s:
        """Return the weights of ids 0 … total − 1, of which some may be another rank's."""
        shard = np.searchsorted(self.first_id, ids, side="right") - 1
        base = self.base[shard]
        values = np.full(len(ids), np.nan, np.float32)
        held = base >= 0
        values[held] = self.table[(base + ids - self.first_id[shard])[held]]
        unknown = np.isnan(values)
        if unknown.any():
            number = int(ids[unknown][0])
            raise ArgumentError(
                f"Cannot tell the weight of id {number}: another rank reads it in this epoch, and a rank knows the "
                "weights of what it reads. Ask for the ids of this rank's own batches.",
                found=number,
            )
        return values
