"""A run in this process: the epoch that is set, the position in it, and what it cost so far.

Takes epochs and checkpoints; gives plans, positions and figures. Effects: through the memory those of the state folder;
writes the board that workers read.
"""

from __future__ import annotations

import operator
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from seta_stream.checkpoint import Checkpoint
from seta_stream.collective import agree, from_each
from seta_stream.corpus.ids import ShardTable
from seta_stream.errors import ArgumentError, CheckpointError, SetaStreamWarning, StateError
from seta_stream.exchange import line_weights
from seta_stream.memory import Chosen, Memory
from seta_stream.plan.epoch import EpochPlan, Geometry
from seta_stream.plan.weights import Weights
from seta_stream.policies.deciding import columns_of
from seta_stream.policies.groups import AnyRule
from seta_stream.policies.policy import Policy, describe
from seta_stream.read.advice import advise_far
from seta_stream.read.board import Board
from seta_stream.schedule import Schedule
from seta_stream.stats import SUMMED, Stats
from seta_stream.telling import warn_of_losses


class Session:
    """The main process's side of a stream.

    Args:
        table: the corpus.
        policy: decides each epoch.
        geometry: of a run that starts here; a checkpoint brings its own.
        memory: the losses and their lineage.
        board: what workers read.
        epochs: length of the run, where it is known; a staged decoder needs it.
        is_staged: whether the decoder is, and the board must tell it where an epoch lies in the run.
        is_far: whether samples come from a bucket, with no cache between.
        rank, world: which part of every step this process reads.
    """

    def __init__(
        self,
        table: ShardTable,
        policy: Policy,
        geometry: Geometry,
        memory: Memory,
        board: Board,
        *,
        epochs: int | None = None,
        is_staged: bool = False,
        is_far: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.memory = memory
        self.rank, self.world = rank, world
        self.board = board
        self.geometry = geometry
        self.schedule = Schedule(
            policy,
            table.total,
            geometry.global_batch,
            drop_last=geometry.drop_last,
            epochs=epochs,
            run_length=memory.runs.length,
        )
        self._is_staged = is_staged
        self._is_far = is_far
        self.delivered = 0
        """Samples that this process's training loop has received since this start of the epoch."""
        self._table = table
        self._policy = policy
        self.current: EpochPlan | None = None
        """The plan of the epoch that is set; None before the first."""
        self._rule: AnyRule | None = None
        self._base: str | None = None  # the generation that the current epoch's selection was made from
        self._failed: int | None = None  # the epoch that could not be set
        self._is_resumed = False
        self._began = time.monotonic()
        self._is_closed = False
        self._weights: Weights | None = None

    # ---- epochs

    @property
    def plan(self) -> EpochPlan:
        """The plan of the epoch that is set; epoch 0 is, where none was."""
        if self._failed is not None:
            raise StateError(f"No epoch is set, since set_epoch({self._failed}) failed: set one that can be.")
        self.begin()
        assert self.current is not None  # noqa: S101  (set_epoch either sets it or raises)
        return self.current

    def begin(self) -> None:
        """Set epoch 0, where no epoch was set; every process of a run does it at once."""
        if self.current is None:
            self.set_epoch(0)

    def next_samples(self) -> int:
        """Return this process's samples in the step that comes next; after the last one the epoch begins anew."""
        lanes = self.plan.lanes
        if self.position >= lanes.steps:
            self.restart()
        return lanes.size_of(min(self.position, lanes.steps - 1)) * lanes.rows // self.world

    def restart(self) -> None:
        """Begin to iterate the epoch, from its start or anew."""
        self.delivered = 0
        self.memory.begun += 1

    @property
    def epoch(self) -> int | None:
        """The epoch that is set; None before the first."""
        return self.current.epoch if self.current is not None else None

    @property
    def weights(self) -> Weights | None:
        """The loss weights of what this rank reads in the epoch that is set, by id; None where all are 1."""
        plan, line = self.plan, self.board.weights()
        if line is not None and self._weights is None:
            self._weights = Weights.of_line(plan, line)
        return self._weights

    def set_epoch(self, epoch: int) -> None:
        """Commit the losses recorded so far, then select."""
        number = operator.index(epoch)
        if number < 0:
            raise ArgumentError(f"Epochs are counted from 0; got {epoch}.", found=epoch)
        self.check_open()
        before = self.epoch
        if self._is_resumed and number == before and self.delivered == 0:
            self._is_resumed = False
            return  # a checkpoint of this epoch was loaded, and its position stands
        agree(self.memory.collective, f"set_epoch({number})")
        consumed = self._finish_epoch()
        self.current, self._failed = None, number
        chosen = self.memory.choose(number)
        counted = {before: consumed} if before is not None and consumed else {}
        base = self.memory.base
        if base is not None and "consumed" in base.facts:
            counted[base.epoch] = int(base.facts["consumed"])
        self._begin(number, self.geometry, chosen, start=0, counted=counted)

    def _begin(
        self,
        epoch: int,
        geometry: Geometry,
        chosen: Chosen,
        *,
        start: int,
        counted: dict[int, int],
        run: int | None = None,
    ) -> None:
        rule, selection, weights = chosen
        plan = EpochPlan(selection, geometry, epoch)
        if not 0 <= start <= plan.lanes.steps:
            raise CheckpointError(
                f"The checkpoint stands at step {start} of an epoch of {plan.lanes.steps} steps: it is damaged.",
                expected=plan.lanes.steps,
                found=start,
            )
        line, self._weights = None, None
        if weights is not None:
            line = line_weights(self.memory.collective, self.memory.owners, plan, weights, self.rank, self.world)
        self.board.publish(epoch, geometry, selection, line, plan.part(self.rank, self.world)[0])
        self.board.start = start
        self.geometry, self.current, self._rule = geometry, plan, rule
        self._base = self.memory.base.name if self.memory.base is not None else None
        self.delivered, self._failed, self._is_resumed = 0, None, False
        self._is_far = self._is_far and self.rank == 0 and not advise_far(selection, self._table.mean_bytes)
        self.schedule.begin(epoch, plan.lanes.planned, counted)
        if self._is_staged:
            planned = self.schedule.run_samples(self.memory.histogram) if run is None else run
            self.board.set_course(self.schedule.consumed, planned)
        self._began = time.monotonic()

    def _finish_epoch(self) -> int:
        """Commit the epoch that is set; return the samples consumed up to here."""
        if self.current is None:
            self.memory.settle()  # the first epoch is selected by what was recorded before it
            return 0
        epoch = self.current.epoch
        mine = self.stats
        counts = [self.delivered, int(mine.wait_s * 1e9), *(getattr(mine, name) for name in SUMMED)]
        delivered, wait_ns, *others = self.memory.collective.sum(np.array(counts, np.int64)).tolist()
        stats = replace(mine, wait_s=wait_ns / 1e9, **dict(zip(SUMMED, others, strict=True)))
        consumed = self.schedule.consumed + self._consumed(delivered, stats.samples)
        if self.rank == 0:
            warn_of_losses(stats, delivered, needs_losses=getattr(self._policy, "needs_losses", True))
        facts = stats.facts() | {"seconds": time.monotonic() - self._began, "consumed": consumed}
        facts |= {"policy": describe(self._policy), "seed": self.geometry.seed}
        self.memory.commit(epoch, facts)
        return consumed

    # ---- position

    @property
    def received(self) -> int:
        """Samples of the epoch that is set that training has received, on all processes, before this start or since.

        All are taken to be as far as this one.
        """
        lanes = self.plan.lanes
        return min(self.board.start * lanes.global_batch + self.delivered * self.world, lanes.planned)

    @property
    def position(self) -> int:
        """The step that comes next."""
        lanes = self.plan.lanes
        return lanes.steps if self.received >= lanes.planned else self.received // lanes.global_batch

    def _consumed(self, delivered: int, read: int) -> int:
        """Return the samples of this epoch that were trained on: those read, where the loop tells of none.

        Args:
            delivered, read: of all processes that exchange what they know; others are taken to be as far.
        """
        lanes, unknown = self.plan.lanes, self.world // self.memory.collective.world
        return min(self.board.start * lanes.global_batch + (delivered or read) * unknown, lanes.planned)

    def state_dict(self, step: int | None) -> dict[str, Any]:
        """Return the position as plain values; losses recorded so far are written beside."""
        self.check_open()
        plan = self.plan
        assert self._rule is not None  # noqa: S101  (set with the plan)
        depends = not self._rule.is_loss_free or columns_of(self._policy)
        if self.memory.generations is None and depends:
            raise StateError(
                "This epoch's selection depends on losses that live in memory only, so a checkpoint could not repeat "
                "it: give state= a folder."
            )
        position = self.position if step is None else operator.index(step)
        return Checkpoint(
            epoch=plan.epoch,
            step=position,
            geometry=self.geometry,
            fingerprint=self._table.fingerprint().hex(),
            policy=describe(self._policy),
            rule=self._rule,
            selected=plan.lanes.selected,
            generation=self._base,
            pending=self.memory.write_pending(plan.epoch, position),
            consumed=self.schedule.consumed,
            # Later losses would plan another length, and with it another stage for the rest of this epoch.
            run_samples=self.board.course.planned if self._is_staged else None,
            runs=self.memory.runs,
            writers=self.memory.collective.world,
        ).to_plain()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        self.check_open()
        saved = self._checked(state_dict)
        self.current, self._failed = None, saved.epoch
        chosen = self.memory.restore(saved)
        saved.check_selected(chosen[1].selected)
        counted = {saved.epoch - 1: saved.consumed}
        self._begin(saved.epoch, saved.geometry, chosen, start=saved.step, counted=counted, run=saved.run_samples)
        self._is_resumed = True

    def _checked(self, state_dict: Mapping[str, Any]) -> Checkpoint:
        """Return a checkpoint that fits this stream, and that every process has been given."""
        found: list[Checkpoint] = []

        def check() -> bytes:
            saved = Checkpoint.from_plain(state_dict)
            saved.check(
                fingerprint=self._table.fingerprint().hex(),
                policy=describe(self._policy),
                geometry=self.geometry,
                runs=self.memory.runs,
            )
            saved.geometry.per_rank(self.world)
            found.append(saved)
            return b""

        from_each(self.memory.collective, check)
        agree(self.memory.collective, f"load_state_dict({found[0].digest()})")
        return found[0]

    # ---- figures

    @property
    def stats(self) -> Stats:
        """Counts of the epoch that is set."""
        plan, sums = self.plan, self.board.sums()
        return Stats(
            epoch=plan.epoch,
            total=self._table.total,
            selected=plan.lanes.selected,
            left_out=plan.lanes.left_out,
            steps=plan.lanes.steps,
            samples=sums["samples"],
            decoded=sums["decoded"],
            skipped=sums["skipped"],
            bytes_total=int(self._table.sizes.sum()),
            bytes_needed=sums["bytes_needed"],
            bytes_fetched=sums["bytes_fetched"],
            requests=sums["requests"],
            retries=sums["retries"],
            wait_s=sums["wait_ns"] / 1e9,
            cache_hits=sums["cache_hits"],
            cache_hit_bytes=sums["cache_hit_bytes"],
            cache_misses=sums["cache_misses"],
            cache_miss_bytes=sums["cache_miss_bytes"],
            bad_losses=self.memory.bad_losses,
            recorded=self.memory.recorded,
            is_sequential=not bool(self._table.seekable.all()),
        )

    # ---- the end

    def check_open(self) -> None:
        """Refuse to go on after the end.

        Raises:
            StateError: the stream is closed.
        """
        if self._is_closed:
            raise StateError("This stream is closed: construct a new one.")

    def close(self, *, is_whole: bool) -> None:
        """End the run: commit the epoch, or (after an exception) keep its losses aside for no generation to claim.

        Where the commit fails the stream stays open, so that closing can be tried again.
        """
        if self._is_closed:
            return
        if is_whole:
            agree(self.memory.collective, "close()")
            self._finish_epoch()
        elif self.current is not None:
            try:
                self.memory.write_pending(self.current.epoch, self.position)
            except StateError as error:  # the exception on its way tells more
                warnings.warn(error.message, SetaStreamWarning, stacklevel=3)
        self._is_closed = True
        self.memory.close()
