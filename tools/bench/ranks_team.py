"""One rank among many that are not there: a collective that makes what the others would send.

Takes what this rank gives to an exchange, and the plan; gives answers of the sizes that real ranks' would have, with
numbers that fit together: the ids of other ranks' losses are those that they read by the plan, masks have as many ones
as this rank's own, weights come for just the samples that their owners have in this rank's part of the line. Pure but
for its random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seta_stream.corpus.ids import ShardTable
from seta_stream.losses.histogram import BINS, round_losses
from seta_stream.losses.manifest import SidecarEntry, pack_entries
from seta_stream.losses.outbox import pack_calls
from seta_stream.losses.owners import Owners
from seta_stream.losses.recording import Recorded
from seta_stream.plan.epoch import EpochPlan

if TYPE_CHECKING:
    from ranks_watch import Watch

_PIECE = 1 << 22


class SimulatedTeam:
    """The collective of process 0, which does most: it makes the rule and writes the manifest.

    Args:
        world: how many processes there would be.
        table: the corpus.
        watch: says which part of the package asks.
    """

    rank = 0

    def __init__(self, world: int, table: ShardTable, watch: Watch) -> None:
        self.world = world
        self.plan: EpochPlan | None = None
        """The plan that losses and weights go by: whoever drives the rank keeps it up to date."""
        self._table = table
        self._owners = Owners(table.first_id, world)
        self._watch = watch
        self._rng = np.random.default_rng(1)

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Every process has as many; of a histogram, the sum of all is the whole corpus."""
        total = counts * self.world
        if counts.size == BINS + 1:
            # Owners have about equal parts, not exactly: the difference is unseen or in the fullest bin.
            place = int(np.argmax(total))
            total[place] += self._table.total - int(total.sum())
        return total

    def broadcast(self, value: bytes) -> bytes:
        """Process 0 is this one."""
        return value

    def gather(self, part: bytes) -> list[bytes]:
        """Masks and the entries of sidecars are each process's own; whatever else is gathered is alike."""
        make = {"masks joined": self._masks, "manifest": self._entries}.get(self._watch.part)
        return [part] * self.world if make is None or self.world == 1 else [part, *make(part)]

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """Losses of this process's samples, or weights of what it reads."""
        if self.world == 1:
            return list(parts)
        make = {"losses, taken in": self._losses, "weights": self._weights}[self._watch.part]
        return [parts[0], *make()]

    def _masks(self, own: bytes) -> list[bytes]:
        """Masks of as many ones, by chance; `exchange.joined` puts two flags before the bits."""
        flags, samples = own[: len(own) - -(-len(self._owners.ids_of(0)) // 8)], np.diff(self._owners.ids)
        bits = np.frombuffer(own, np.uint8, offset=len(flags))
        share = int(np.unpackbits(bits).sum()) / max(int(samples[0]), 1)
        return [flags + self._mask(int(count), share) for count in samples[1:]]

    def _mask(self, count: int, share: float) -> bytes:
        # In 256ths of all, and exact where everything is kept.
        limit, made = round(share * 256), bytearray()
        for start in range(0, count, _PIECE):
            words = np.frombuffer(self._rng.bytes(min(_PIECE, count - start)), np.uint8)
            made += np.packbits(words < limit).tobytes()
        return bytes(made)

    def _entries(self, own: bytes) -> list[bytes]:
        flag, told = own[:1], []  # `collective.from_each` says so that all went well
        for rank in range(1, self.world):
            shards = self._owners.shards_of(rank)
            rows = ((shard, self._table.digests[shard], int(self._table.samples[shard])) for shard in shards)
            told.append(flag + pack_entries(SidecarEntry(f"{shard:06d}.losses", *row, shard) for shard, *row in rows))
        return told

    def _losses(self) -> list[bytes]:
        """What each other rank read of the samples that this one owns, as it would be told."""
        plan = self.plan
        if plan is None:
            return [pack_calls([])] * (self.world - 1)
        own = self._owners.shards_of(0)
        shards = plan.order[(plan.order >= own.start) & (plan.order < own.stop)]
        begins = plan.starts[shards]
        ends = begins + plan.selection.counts[shards]
        told = []
        for rank in range(1, self.world):
            begin, stop = plan.part(rank, self.world)
            stop = min(stop, plan.lanes.planned)
            pieces = [np.empty(0, np.int64)]
            for place in range(int(np.searchsorted(ends, begin, side="right")), int(np.searchsorted(begins, stop))):
                shard, start = int(shards[place]), int(begins[place])
                positions = plan.selection.positions(shard)[max(begin - start, 0) : stop - start]
                pieces.append(self._rng.permutation(positions) + plan.selection.first_id[shard])
            ids = np.concatenate(pieces)
            losses = round_losses(self._rng.standard_exponential(len(ids), np.float32))
            told.append(pack_calls([Recorded(ids, losses, {})] if len(ids) else []))
        return told

    def _weights(self) -> list[bytes]:
        """As many weights from each owner as its shards have samples in this rank's part of the line."""
        plan = self.plan
        assert plan is not None, "weights are sent by a plan"
        begin, stop = plan.part(0, self.world)
        starts = plan.starts
        sizes = np.clip(starts + plan.selection.counts, begin, stop) - np.clip(starts, begin, stop)
        each = np.add.reduceat(np.append(sizes, 0), self._owners.shards[:-1])
        each[np.diff(self._owners.shards) == 0] = 0
        return [self._rng.choice([1, 2], int(count)).astype("<f4").tobytes() for count in each[1:]]
