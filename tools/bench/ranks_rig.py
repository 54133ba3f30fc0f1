"""One rank's epochs, by the package's own code: all that a stream does but for reading shards.

Takes a corpus that is numbers only, a policy and a collective; gives the figures of each stage. Effects: a state folder
with real sidecars, manifest and pending losses.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ranks_team import SimulatedTeam
from ranks_watch import Counted, Stages, Watch

from seta_stream import session as session_module
from seta_stream.corpus.ids import ShardTable
from seta_stream.memory import Memory
from seta_stream.options import DEFAULT_WIDTH
from seta_stream.plan.epoch import EpochPlan, Geometry
from seta_stream.plan.shuffle import block_length
from seta_stream.plan.walk import Share, rounds
from seta_stream.policies import InfoBatch, Policy, SeTa
from seta_stream.read.board import Board
from seta_stream.session import Session

EPOCHS = 90
POLICIES: dict[str, Policy] = {"seta": SeTa(EPOCHS, target=0.5), "infobatch": InfoBatch(EPOCHS)}
BATCH = 256
MEAN_BYTES = 3_000
"""Of a sample: word images."""
RANKS_PER_MACHINE = 8


@dataclass(frozen=True)
class Case:
    """What is simulated.

    Attributes:
        samples, shards: of the corpus.
        ranks: processes.
        policy: a name of POLICIES.
    """

    samples: int
    shards: int
    ranks: int
    policy: str


def table_of(samples: int, shards: int) -> ShardTable:
    """Return a corpus of about equal shards, none of which is there."""
    each = np.diff(np.arange(shards + 1) * samples // shards)
    return ShardTable(
        urls=tuple(f"s3://bucket/corpus/train-{shard:06d}.tar" for shard in range(shards)),
        sizes=each * MEAN_BYTES,
        versions=tuple(f'"{shard:032x}"' for shard in range(shards)),
        samples=each,
        extent_bytes=each * MEAN_BYTES,
        digests=tuple(hashlib.blake2b(b"%d" % shard, digest_size=16).digest() for shard in range(shards)),
        seekable=np.ones(shards, np.bool_),
    )


def session_of(table: ShardTable, policy: Policy, state: str | None, collective: Any) -> Session:
    """Return a rank's session, put together as SetaStream does; eight ranks to a machine."""
    rank, world = collective.rank, collective.world
    block = block_length(table.mean_bytes, DEFAULT_WIDTH, BATCH)
    groups = max(1, world // RANKS_PER_MACHINE)
    geometry = Geometry(world, DEFAULT_WIDTH, BATCH, block, groups, 0, "blocks", drop_last=True)
    memory = Memory(table, policy, 0, state, None, "exact", collective=collective)
    board = Board(table.first_id, most_weights=geometry.most_in_part(table.total, world))
    return Session(table, policy, geometry, memory, board, rank=rank, world=world)


class Rank:
    """One rank with its stages.

    Args:
        table: the corpus.
        policy: a name of POLICIES.
        state: folder.
        collective: real, or a SimulatedTeam.
        watch: open.
    """

    def __init__(self, table: ShardTable, policy: str, state: str | None, collective: Any, watch: Watch) -> None:
        self.counted = Counted(collective, watch)
        self.stages = Stages(watch, self.counted)
        self._team = collective if isinstance(collective, SimulatedTeam) else None
        if self._team is not None:
            watch.replace(session_module, "line_weights", self._knowing_the_plan)
        with self.stages.stage("begin"):
            self.session = session_of(table, POLICIES[policy], state, self.counted)

    def _knowing_the_plan(self, line_weights: Any) -> Any:
        def call(collective: Any, owners: Any, plan: EpochPlan, *rest: Any) -> Any:
            self._team.plan = plan
            return line_weights(collective, owners, plan, *rest)

        return call

    def set_epoch(self, epoch: int) -> None:
        """Set an epoch; where samples are weighted, make the lookup too."""
        if self._team is not None:
            self._team.plan = self.session.current
        with self.stages.stage(f"set_epoch({epoch})"):
            self.session.set_epoch(epoch)
            self.session.weights  # noqa: B018  (made on first use)

    def first_blocks(self) -> None:
        """Plan the first block of every lane that this rank reads, from the board as a worker does."""
        session = self.session
        with self.stages.stage("first blocks"):
            plan = session.board.plan(session.rank, session.world)
            next(rounds(plan, Share(session.rank, session.world)))

    def train(self, name: str) -> float:
        """Record a loss of every sample of the epoch that this rank reads, a batch a call; return µs per sample."""
        session, rng, spent, count = self.session, np.random.default_rng(self.session.rank), 0.0, 0
        with self.stages.stage(name):
            for _, ids in rounds(session.plan, Share(session.rank, session.world)):
                losses = rng.standard_exponential(len(ids), np.float32)
                begin = time.process_time()
                for start in range(0, len(ids), BATCH):
                    session.memory.record(ids[start : start + BATCH], losses[start : start + BATCH], {})
                spent += time.process_time() - begin
                count += len(ids)
                session.delivered += len(ids)
        return spent / count * 1e6

    def state_dict(self) -> None:
        """Make a checkpoint; what is pending is written."""
        with self.stages.stage("state_dict"):
            self.session.state_dict(None)

    def held(self) -> dict[str, int]:
        """Return the bytes of the arrays that stay, by what they are."""
        session, memory = self.session, self.session.memory
        weights, plan = session.weights, session.plan
        calls = [] if memory.outbox is None else memory.outbox.calls()
        return {
            "losses and ages": memory.losses.values.nbytes + memory.losses.all_ages.nbytes,
            "outbox": sum(call.ids.nbytes + call.losses.nbytes for call in calls),
            "selection": plan.selection.bits.nbytes + plan.selection.counts.nbytes,
            "board's selection": plan.selection.bits.nbytes + plan.selection.counts.nbytes,
            "board's weights": 4
            * (plan.part(session.rank, session.world)[1] - plan.part(session.rank, session.world)[0])
            if weights is not None
            else 0,
            "weights by id": 0 if weights is None else weights.table.nbytes,
        }


def run_case(case: Case, state: str) -> dict[str, Any]:
    """Return the figures of one simulated rank, as plain values."""
    warm_up()
    with Watch() as watch:
        table = table_of(case.samples, case.shards)
        rank = Rank(table, case.policy, state, SimulatedTeam(case.ranks, table, watch), watch)
        rank.set_epoch(0)
        record_us = rank.train("epoch 0")
        rank.state_dict()
        held = rank.held()
        rank.set_epoch(1)
        rank.first_blocks()
        held = {name: max(size, held[name]) for name, size in rank.held().items()}
        rank.train("epoch 1")
        rank.set_epoch(2)
    return {
        "case": asdict(case),
        "record_us": record_us,
        "held": held,
        "selected": rank.session.plan.lanes.selected,
        "stages": {name: asdict(stage) for name, stage in rank.stages.done.items()},
    }


def warm_up() -> None:
    """Import what is imported once, scikit-learn above all, and call what compiles or caches on first use."""
    from seta_stream.losses.histogram import Histogram
    from seta_stream.policies import kmeans

    kmeans(Histogram.of(np.arange(1, 100, dtype=np.float32)), 5)
