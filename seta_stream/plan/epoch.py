"""The plan of one epoch: which samples stand in which step, in which order.

Takes a selection (mask bits and counts per shard) and the run's geometry; gives ids. Pure, and the same on every
machine: step t is one ordered list of G samples whatever reads it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import PlanError
from seta_stream.plan.bits import Packed, count_ones, count_stretches, join_bits
from seta_stream.plan.lanes import Lanes, divisors
from seta_stream.plan.shuffle import BlockShuffle, shard_order

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is fixed at a run's first start and never changes on resume.

    Args:
        rows: R, parts of a step.
        width: W, lanes per row.
        batch: b, samples per row of a step.
        block: samples per block of a lane, whole steps.
        groups: node groups that shards are dealt to.
        seed: of every draw.
        order: "corpus" as listed; "shards": shards permuted, each in its own order; "blocks": blocks permuted as well.
        drop_last: leave out what does not fill a step.
    """

    rows: int
    width: int
    batch: int
    block: int
    groups: int
    seed: int
    order: Literal["corpus", "shards", "blocks"]
    drop_last: bool

    @property
    def global_batch(self) -> int:
        """G: samples per step over all rows."""
        return self.rows * self.batch

    def per_rank(self, world: int) -> int:
        """Return the samples of a step that each of `world` ranks reads.

        Raises:
            PlanError: they cannot be equally many; the message lists the numbers of ranks that fit.
        """
        whole = self.global_batch
        if world < 1 or whole % world:
            fits = ", ".join(map(str, divisors(whole)))
            raise PlanError(
                f"A step of {whole} samples (the run's global batch) cannot be shared equally by {world} ranks: start "
                f"as many as divide it: {fits}.",
                expected=whole,
                found=world,
            )
        if world > 1 and not self.drop_last:
            raise PlanError(
                f"drop_last=False gives the last step fewer samples, which {world} ranks cannot share equally: use "
                "drop_last=True, or one process.",
                expected=1,
                found=world,
            )
        return whole // world

    def rows_of(self, rank: int, world: int) -> tuple[int, int]:
        """Return (first, stop): the rows of which this rank reads something."""
        per_rank = self.per_rank(world)
        return rank * per_rank // self.batch, -(-(rank + 1) * per_rank // self.batch)

    def most_in_part(self, total: int, world: int) -> int:
        """Return how long `EpochPlan.part` may be at most, for any selection among `total` samples.

        A rank reads rows / world of a step's rows, and touches 1 row at least, and at most 1 more than that rounded up
        (where neither number divides the other). So a run that began with few rows, and goes on with many ranks, has
        parts as long as its rows are: the whole line for one row.
        """
        if not self.drop_last:
            return total
        bounds = [self.rows_of(rank, world) for rank in range(world)]
        rows = max(stop - first for first, stop in bounds)
        # A row has as many samples as there are steps × batch; the last one's part holds what is left out too.
        return min(rows * self.batch * (total // self.global_batch) + self.global_batch - 1, total)


@dataclass(frozen=True, eq=False)
class Selection:
    """Which samples an epoch needs.

    Args:
        bits: uint8 [ceil(total / 8)], the mask packed big-endian as numpy.packbits does, in order of ids.
        counts: int64 [shards], selected samples per shard.
        first_id: int64 [shards + 1].
        places: int64 [shards], the bit at which each shard's mask begins, −1 where it is not held; None where all
            stand in order of ids.
    """

    bits: NDArray[np.uint8]
    counts: Int64s
    first_id: Int64s
    places: Int64s | None = None

    @classmethod
    def of(cls, mask: NDArray[np.bool_], first_id: Int64s) -> Selection:
        """Pack a mask: bool [total]."""
        bits = np.packbits(mask)
        return cls(bits, count_ones(bits, first_id), first_id)

    @classmethod
    def joined(cls, parts: Sequence[Packed], owners: Int64s, first_id: Int64s) -> Selection:
        """Put the masks of several owners together.

        Args:
            parts: of each owner, the mask of its shards' samples as numpy.packbits gives it.
            owners: int64 [owners + 1], the first shard of each, and the number of shards.
            first_id: int64 [shards + 1].

        Raises:
            PlanError: a mask is too short or too long.
        """
        bits = join_bits(parts, first_id[owners])
        return cls(bits, count_ones(bits, first_id), first_id)

    @property
    def selected(self) -> int:
        """Samples selected."""
        return int(self.counts.sum())

    @property
    def stretches(self) -> int:
        """Stretches of neighbouring selected samples, those of different shards apart."""
        return count_stretches(self.bits, np.unique(self.first_id))

    def positions(self, shard: int) -> Int64s:
        """Return the selected positions of one shard, ascending: int64 [counts[shard]].

        Raises:
            PlanError: this selection holds the masks of other shards only.
        """
        first, samples = int(self.first_id[shard]), int(self.first_id[shard + 1] - self.first_id[shard])
        if self.places is not None:
            first = int(self.places[shard])
            if first < 0:
                raise PlanError(
                    f"Cannot tell which samples of shard {shard} are selected: this process holds the masks of what "
                    "its own rank reads. Ask in the process that set the epoch.",
                    found=shard,
                )
        bits = np.unpackbits(self.bits[first // 8 : -(-(first + samples) // 8)])
        return np.flatnonzero(bits[first % 8 : first % 8 + samples])

    def copy_of(self, shards: Int64s) -> Selection:
        """Return a copy that holds the masks of some shards: of all it would take 125 MB for a billion samples."""
        places, pieces, at = np.full(len(self.counts), -1), [self.bits[:0]], 0
        for shard, first, stop in zip(shards, self.first_id[shards], self.first_id[shards + 1], strict=True):
            piece = self.bits[first // 8 : -(-stop // 8)]
            places[shard] = at * 8 + first % 8
            pieces.append(piece)
            at += len(piece)
        return Selection(np.concatenate(pieces), self.counts.copy(), self.first_id, places)


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The steps of one epoch.

    Args:
        selection: the samples needed.
        geometry: the run's geometry.
        epoch: its number.
    """

    selection: Selection
    geometry: Geometry
    epoch: int
    lanes: Lanes = field(init=False)

    def __post_init__(self) -> None:
        g, selected = self.geometry, self.selection.selected
        lanes = Lanes(g.rows, g.width, g.batch, selected, g.drop_last)
        object.__setattr__(self, "lanes", lanes)
        if selected == 0:
            raise PlanError(
                f"Epoch {self.epoch} has nothing to train on: the policy selected none of {self.total} samples. "
                "Widen it (a larger target share, window_scale or keep).",
                found=0,
            )
        if lanes.steps == 0:
            raise PlanError(
                f"Epoch {self.epoch} has {selected} selected samples, fewer than one global batch of "
                f"{lanes.global_batch} (ranks × batch_size): make the batch smaller, select more, or use "
                "drop_last=False in one process.",
                expected=lanes.global_batch,
                found=selected,
            )

    @property
    def total(self) -> int:
        """Samples of the corpus."""
        return int(self.selection.first_id[-1])

    @cached_property
    def order(self) -> Int64s:
        """The shards in the order of the line: int64 [shards]."""
        shards = len(self.selection.counts)
        if self.geometry.order == "corpus":
            return np.arange(shards)
        samples = np.diff(self.selection.first_id)
        return shard_order(self.geometry.seed, self.epoch, samples, self.geometry.groups)

    @cached_property
    def _line_starts(self) -> Int64s:
        """Where each shard of `order` begins in the line: int64 [shards + 1]."""
        return np.concatenate([[0], np.cumsum(self.selection.counts[self.order])])

    @cached_property
    def starts(self) -> Int64s:
        """Where each shard's selected samples begin in the line: int64 [shards]."""
        starts = np.empty(len(self.order), np.int64)
        starts[self.order] = self._line_starts[:-1]
        return starts

    def part(self, rank: int, world: int) -> tuple[int, int]:
        """Return (begin, stop): the stretch of the line that holds all that one of `world` ranks reads.

        It is that of whole rows, so that ranks which share a row share its stretch. What no step holds lies at the end
        of the last row's. `Geometry.most_in_part` is its bound.

        Raises:
            PlanError: a step cannot be shared equally by so many.
        """
        first, stop = self.geometry.rows_of(rank, world)
        starts = np.append(self.lanes.starts[:: self.geometry.width], self.lanes.selected)
        return int(starts[first]), int(starts[stop])

    def copy_for(self, rank: int, world: int) -> EpochPlan:
        """Return a plan for one of `world` ranks alone: a copy, which holds the masks of the shards that it reads."""
        begin, stop = self.part(rank, world)
        if (begin, stop) == (0, self.lanes.selected):
            selection = Selection(self.selection.bits.copy(), self.selection.counts.copy(), self.selection.first_id)
        else:
            counts = self.selection.counts
            read = (counts > 0) & (self.starts < stop) & (self.starts + counts > begin)
            selection = self.selection.copy_of(np.flatnonzero(read))
        return EpochPlan(selection, self.geometry, self.epoch)

    @cached_property
    def _shuffle(self) -> BlockShuffle:
        return BlockShuffle(self.geometry.seed, self.epoch)

    def stretch(self, start: int, stop: int) -> Int64s:
        """Return the ids at positions start … stop − 1 of the line: int64 [stop − start]."""
        first = int(np.searchsorted(self._line_starts, start, side="right")) - 1
        parts = []
        while start < stop:
            begin, end = int(self._line_starts[first]), int(self._line_starts[first + 1])
            if end > start:
                shard = int(self.order[first])
                chosen = self.selection.positions(shard)[start - begin : stop - begin]
                parts.append(chosen + self.selection.first_id[shard])
                start = min(end, stop)
            first += 1
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def block(self, lane: int, number: int) -> Int64s:
        """Return one block of one lane in the order it is yielded: int64 [at most `geometry.block`]."""
        length = self.geometry.block
        begin = int(self.lanes.starts[lane])
        start = begin + number * length
        stop = min(start + length, begin + int(self.lanes.lengths[lane]))
        ids = self.stretch(start, stop)
        return ids[self._shuffle.permutation(lane, number, len(ids))] if self.geometry.order == "blocks" else ids

    def neighbours(self, step: int, element: int) -> Iterator[int]:
        """Yield the ids near one place, for standing in: before it in its lane, nearest first, then after it.

        Args:
            step, element: the place: element 0 … G − 1 of a step.
        """
        g = self.geometry
        lane = element // g.batch * g.width + step % g.width
        place = step // g.width * g.batch + element % g.batch
        length = int(self.lanes.lengths[lane])
        for other in itertools.chain(range(place - 1, -1, -1), range(place + 1, length)):
            yield int(self.block(lane, other // g.block)[other % g.block])
