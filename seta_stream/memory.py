"""What a run remembers: its losses, the generation they come from, and the rule for the next epoch.

Takes recorded losses and epochs; gives rules and selections. Effects: generations in the state folder, where there is
one. Without a state folder losses live in memory, and an epoch that is set again starts from the newest ones.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream import exchange
from seta_stream.collective import Collective, OneProcess, from_each, from_first
from seta_stream.errors import CheckpointError, GenerationError, PeerError, PeerFailedError
from seta_stream.losses.columns import LOSS, recorded_names
from seta_stream.losses.generations import Generation, Generations
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.history import Judged
from seta_stream.losses.loading import warn_of_load
from seta_stream.losses.manifest import plain
from seta_stream.losses.outbox import Outbox, unpack_calls
from seta_stream.losses.owners import Owners
from seta_stream.losses.recording import check_ids
from seta_stream.losses.table import LossTable
from seta_stream.plan.epoch import Selection
from seta_stream.policies.deciding import Decision, Judgement, columns_of, takes_means
from seta_stream.policies.groups import AnyRule
from seta_stream.policies.policy import describe, expected_share_of
from seta_stream.policies.runs import EACH, Runs
from seta_stream.selecting import Selector
from seta_stream.unfinished import Unfinished, take_in

if TYPE_CHECKING:
    from seta_stream.checkpoint import Checkpoint
    from seta_stream.corpus.ids import ShardTable
    from seta_stream.policies.groups import Labels
    from seta_stream.policies.policy import Policy
    from seta_stream.store import Options

Chosen = tuple[AnyRule, Selection, NDArray[np.float32] | None]
"""The rule of an epoch, the selection, and the weights of this process's own samples (None: all 1)."""


class Memory:
    """Losses of one run and their lineage. Every process has the part that it owns, and all make the same calls.

    Args:
        table: the corpus.
        policy: decides each epoch's rule.
        seed: of the draws.
        state: URL of the state folder, or None.
        options: of its file system.
        losses: "exact" starts an epoch from its own ancestor or fails; "latest" takes the newest where that is gone.
        labels: the groups that the index tells of this process's own samples, where the policy asks for them.
        runs: how samples are decided together, in a run that starts here.
        collective: the processes that train together.
    """

    def __init__(
        self,
        table: ShardTable,
        policy: Policy,
        seed: int,
        state: str | None,
        options: Options | None,
        losses: Literal["exact", "latest"],
        labels: Labels | None = None,
        runs: Runs = EACH,
        collective: Collective | None = None,
    ) -> None:
        self.collective: Collective = OneProcess() if collective is None else collective
        self.owners = Owners(table.first_id, self.collective.world)
        self._first_id = self.owners.first_id_of(self.collective.rank)
        self._selector = Selector(policy, seed, self.collective, self.owners, labels)
        self._own = self.owners.shards_of(self.collective.rank)
        self._first_own = self.owners.ids_of(self.collective.rank).start
        self._columns = columns_of(policy)
        self.takes: Final = recorded_names(self._columns)
        """The names that `record` takes beside the losses."""
        self.takes_means: Final = takes_means(policy)
        """Whether one loss may be recorded for many ids."""
        self.total: Final = table.total
        """Samples of the corpus."""
        self.base: Generation | None = None
        self._table = table
        self._policy = policy
        self._described = plain(describe(policy))
        self._histogram: Histogram | None = None
        self._asked = runs
        self.runs = runs
        """How samples are decided together: as the run began, while the settings stay the same."""
        self._latest = losses == "latest"
        self.losses = self._empty()
        """Of the samples that this process owns, numbered from 0."""
        self.outbox: Outbox | None = None
        """What was recorded since the last exchange; None in one process, whose table takes it at once."""
        if self.collective.world > 1:
            self.outbox = Outbox(table.total, self._columns, takes_means=self.takes_means)
        self._newest: str | None = None  # name of the lineage's newest generation
        self._age_epoch = -1  # ages in the table are as of the end of this epoch
        self.begun = 0
        """Epochs and iterations that began in this run, by which the names of pending losses differ."""
        self.generations: Generations | None = None
        if state is not None:
            self.generations = Generations(state, options, self.collective, first_own=self._first_own)
            token = from_first(self.collective, self._lock).decode()
            self._unfinished = Unfinished(self.generations.pending, self.collective, self.owners, token)

    def _lock(self) -> bytes:
        assert self.generations is not None  # noqa: S101  (narrows the type)
        self.generations.lock()
        return secrets.token_hex(4).encode()

    # ---- recording

    def record(self, ids: object, losses: object, recorded: Mapping[str, object]) -> None:
        """Take losses of any samples of the corpus, as LossTable.record does; those of others go to them at the end."""
        if self.outbox is None:
            self.losses.record(ids, losses, **recorded)
        else:
            self.outbox.record(ids, losses, recorded)

    @property
    def recorded(self) -> int:
        """Losses that this process took in this epoch and that no generation has yet."""
        # What was sent to its owner stays there where the commit that it was sent for failed, or was restored there.
        return self.losses.recorded + (0 if self.outbox is None else self.outbox.recorded)

    @property
    def bad_losses(self) -> int:
        """NaN and infinite losses that this process refused in this epoch."""
        return self.losses.bad_losses if self.outbox is None else self.outbox.bad_losses

    def check_ids(self, ids: NDArray[Any]) -> None:
        """Refuse ids that the corpus does not have; -1 is none and passes."""
        check_ids(ids, self.total)

    def settle(self) -> int:
        """Send what was recorded to its owners; return how many losses all processes hold that no generation has."""
        if self.outbox is None:
            return self.losses.recorded
        parts = self.collective.route(self.outbox.parts(self.owners))
        self.outbox.clear()
        self.begun += 1  # what is written now is another part of the whole: no checkpoint's file may become it

        def taken() -> bytes:
            for part in parts:
                take_in(self.losses, unpack_calls(part), self._first_own)
            return b"%d" % self.losses.recorded

        return sum(map(int, from_each(self.collective, taken)))

    # ---- epochs

    def commit(self, epoch: int, facts: dict[str, Any]) -> None:
        """Close an epoch: what was recorded becomes a generation, with the rule for the next one."""
        recorded = self.settle()
        if self.generations is None or not recorded:
            return
        try:
            decision = self._decide(epoch + 1)
            judged_by = LOSS if decision.judgement.is_by_loss else "score"
            judged = Judged(decision.histogram, decision.rule, decision.groups, judged_by)
        except Exception as error:
            if isinstance(error, PeerError) and not isinstance(error, PeerFailedError):
                raise
            # There may be no next epoch; who sets it meets the error in choose.
            judged = Judged(exchange.summed(self.collective, self.losses.histogram()), None)
        if self.runs != EACH:
            facts = facts | {"runs": self.runs.to_plain()}
        self._newest = newest = self.generations.commit(
            epoch, self.losses, self._table, judged.rule, _name(self.base), facts, judged=judged, own=self._own
        )
        self.base = self._shared(lambda of: of.get(newest))
        self.losses.advance(0)  # nothing in the table is newer than its generation

    def choose(self, epoch: int) -> Chosen:
        """Return the rule and the selection of an epoch, from the newest losses before it."""
        self._all_go_to(self._shared(lambda of: self._ancestor(of, epoch)), epoch)
        self._take_up_runs()
        rule = self.base.rule if self.base is not None and self._is_made(self.base, epoch) else None
        if rule is not None:
            return self._select(rule, epoch)
        decision = self._decide(epoch)
        return self._select(decision.rule, epoch, decision)

    def histogram(self) -> Histogram:
        """Return the histogram of the scores that the epoch was chosen by; of today's, before any was chosen.

        Several processes do not ask each other here: before any epoch was chosen, nothing counts as seen.
        """
        if self._histogram is not None:
            return self._histogram
        return self._judge().histogram if self.outbox is None else replace(Histogram.of([]), unseen=self.total)

    def _is_made(self, base: Generation, epoch: int) -> bool:
        """Say whether a generation holds this policy's rule for an epoch."""
        is_of_policy = base.facts.get("policy", self._described) == self._described
        is_judged_alike = runs_of(base).judged_together == self.runs.judged_together
        return base.epoch == epoch - 1 and is_of_policy and is_judged_alike

    def _take_up_runs(self) -> None:
        """Go on with the samples per run that the run began with, though the corpus's mean sample be another now."""
        told = self._asked if self.base is None else runs_of(self.base)
        self.runs = told if told.is_asked_as(self._asked) else self._asked

    # ---- checkpoints

    def restore(self, saved: Checkpoint) -> Chosen:
        """Return a checkpoint's selection, and take up the losses that were recorded after it was made.

        Raises:
            CheckpointError: the generation or the pending losses are gone.
        """
        if saved.generation is not None and self.generations is None:
            raise CheckpointError(
                f"The checkpoint starts from generation {saved.generation}, and this stream has no state: give state= "
                "the folder that the run wrote.",
                expected=saved.generation,
            )
        base = None
        if saved.generation is not None:
            base = self._shared(lambda of: _of_checkpoint(of, str(saved.generation)))
        unusable = self._all_go_to(base, saved.epoch)
        if unusable:
            raise CheckpointError(
                f"The checkpoint's losses are no longer whole: {unusable} shards of generation {saved.generation} "
                "cannot be used. Restore the state folder, or use a checkpoint of another epoch.",
                expected=saved.generation,
                found=unusable,
            )
        self._newest, self.runs = saved.generation, saved.runs
        chosen = self._select(saved.rule, saved.epoch)
        if saved.pending is not None and self.generations is not None:
            self._unfinished.take_up(saved.pending, saved.writers, self.losses, self.outbox)
        return chosen

    def write_pending(self, epoch: int, step: int) -> str | None:
        """Write the losses recorded in this epoch; return their name, or None where there is nothing to write.

        Nothing is exchanged: several processes always write, since none knows whether another has something.
        """
        if self.generations is None or (self.outbox is None and not self.losses.recorded):
            return None
        return self._unfinished.write(epoch, step, self.begun, self.losses, self.outbox, _name(self.base))

    def close(self) -> None:
        """Give the lock back."""
        if self.generations is not None:
            self.generations.close()

    # ---- lineage

    def _shared(self, find: Callable[[Generations], Generation | None]) -> Generation | None:
        generations = self.generations
        return None if generations is None else generations.shared(lambda: find(generations))

    def _ancestor(self, generations: Generations, epoch: int) -> Generation | None:
        try:
            return generations.ancestor(epoch, self._newest)
        except GenerationError:
            kept = generations.kept()
            if not (self._latest and kept):
                raise
            return kept[-1]

    def _all_go_to(self, base: Generation | None, epoch: int) -> int:
        """Let every process's table hold a generation; return how many shards' losses cannot be used.

        Raises:
            ReadError: some process could not read its part.
        """
        return sum(map(int, from_each(self.collective, lambda: b"%d" % self._go_to(base, epoch))))

    def _go_to(self, base: Generation | None, epoch: int) -> int:
        """Make the table hold the losses of a generation, aged as of the end of the epoch before this one.

        Returns the number of this process's shards whose losses cannot be used.
        """
        unusable = 0
        self.begun += 1
        if self.generations is not None:
            is_new = self.losses.recorded or self.recorded
            if is_new or _name(base) != _name(self.base) or epoch <= self._age_epoch:
                unusable = self._load(self.generations, base)
            self.base = base
        self._age(epoch - 1)
        return unusable

    def _age(self, epoch: int) -> None:
        """Let the ages be as of the end of an epoch, where they are not that old already; begin its counts."""
        self.losses.advance(max(epoch - self._age_epoch, 0))
        self._age_epoch = max(epoch, self._age_epoch)

    def _load(self, generations: Generations, base: Generation | None) -> int:
        self.losses = self._empty()
        if self.outbox is not None:
            self.outbox.clear()
        self._age_epoch = -1 if base is None else base.epoch
        if base is None:
            return 0
        report = generations.load(base, self.losses, self._table, self._own)
        weighted_by = self._described["name"] if getattr(self._policy, "weight", None) is not None else None
        warn_of_load(base.name, report, len(self._own), self.losses.seeded, weighted_by)
        return int(report.unseen_shards)

    def _empty(self) -> LossTable:
        return LossTable(np.diff(self._first_id), self._columns, takes_means=self.takes_means)

    # ---- deciding

    def _judge(self) -> Judgement:
        return self._selector.judge(self.losses.remembered(), self.runs)

    def _decide(self, epoch: int) -> Decision:
        return self._selector.decide(self.losses.remembered(), self.runs, epoch)

    def _select(self, rule: AnyRule, epoch: int, decision: Decision | None = None) -> Chosen:
        """Apply a rule; `decision` is what it was made with, where that was now."""
        # Ages and losses will be others; who plans the rest of the run goes by these. Not made where shares are known.
        self._histogram = None
        if expected_share_of(self._policy, epoch + 1) is None:
            told = exchange.judged(self.collective, self._judge)[1] if decision is None else decision.histogram
            self._histogram = told
        selection, weights = self._selector.select(rule, self.losses.remembered(), self.runs, epoch, decision)
        self._age(epoch)  # what the epoch does not see will be that old at its end
        return rule, selection, weights


def _of_checkpoint(generations: Generations, name: str) -> Generation:
    try:
        return generations.get(name)
    except GenerationError as error:
        raise CheckpointError(f"The checkpoint's losses are gone. {error.message}") from error


def runs_of(generation: Generation) -> Runs:
    """Return how a generation's epoch decided samples together."""
    told = generation.facts.get("runs")
    return EACH if told is None else Runs.from_plain(told)


def _name(generation: Generation | None) -> str | None:
    return None if generation is None else generation.name
