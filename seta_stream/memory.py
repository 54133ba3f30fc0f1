"""What a run remembers: its losses, the generation they come from, and the rule for the next epoch.

Takes recorded losses and epochs; gives rules and selections. Effects: generations in the state folder, where there is
one. Without a state folder losses live in memory, and an epoch that is set again starts from the newest ones.
"""

from __future__ import annotations

import secrets
import warnings
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import CheckpointError, GenerationError, SetaStreamWarning, StateError
from seta_stream.losses.columns import LOSS
from seta_stream.losses.generations import Generation, Generations
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.history import Judged
from seta_stream.losses.manifest import plain
from seta_stream.losses.table import LossTable
from seta_stream.plan.epoch import Selection
from seta_stream.policies.deciding import (
    Decision,
    all_labels,
    apply,
    columns_of,
    decide,
    judged_scores,
    takes_means,
)
from seta_stream.policies.groups import AnyRule
from seta_stream.policies.policy import describe, expected_share_of
from seta_stream.policies.runs import EACH, Runs

if TYPE_CHECKING:
    from seta_stream.corpus.ids import ShardTable
    from seta_stream.policies.groups import Labels
    from seta_stream.policies.policy import Policy
    from seta_stream.store import Options

PENDING_KEPT: Final = 8
"""Checkpoints of one process whose losses are kept; an older one can no longer be loaded."""

Chosen = tuple[AnyRule, Selection, NDArray[np.float32] | None]


class Memory:
    """Losses of one run and their lineage.

    Args:
        table: the corpus.
        policy: decides each epoch's rule.
        seed: of the draws.
        state: URL of the state folder, or None.
        options: of its file system.
        losses: "exact" starts an epoch from its own ancestor or fails; "latest" takes the newest where that is gone.
        labels: the groups that the index tells, where the policy asks for them.
        runs: how samples are decided together, in a run that starts here.
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
    ) -> None:
        self._columns, self._takes_means = columns_of(policy), takes_means(policy)
        self.base: Generation | None = None
        self._table = table
        self._policy = policy
        self._seed = seed
        self._described = plain(describe(policy))
        self._histogram: Histogram | None = None
        self._labels = labels
        self._asked = runs
        self.runs = runs
        """How samples are decided together: as the run began, while the settings stay the same."""
        self._latest = losses == "latest"
        self.losses = self._empty()
        self._newest: str | None = None  # name of the lineage's newest generation
        self._pending: list[str] = []  # names of this process's pending losses, oldest first
        self._age_epoch = -1  # ages in the table are as of the end of this epoch
        self.generations = Generations(state, options) if state is not None else None
        if self.generations is not None:
            self.generations.lock()

    def commit(self, epoch: int, facts: dict[str, Any]) -> None:
        """Close an epoch: what was recorded becomes a generation, with the rule for the next one."""
        if self.generations is None or not self.losses.recorded:
            return
        try:
            decision = self._decide(epoch + 1)
            judged_by = LOSS if decision.is_by_loss else "score"
            judged = Judged(decision.histogram, decision.rule, decision.groups, judged_by)
        except Exception:  # noqa: BLE001  (there may be no next epoch; who sets it meets the error in choose)
            judged = Judged(self.losses.histogram(), None)
        if self.runs != EACH:
            facts = facts | {"runs": self.runs.to_plain()}
        self._newest = self.generations.commit(
            epoch, self.losses, self._table, judged.rule, _name(self.base), facts, judged=judged
        )
        self.base = self.generations.get(self._newest)
        self.losses.advance(0)  # nothing in the table is newer than its generation

    def choose(self, epoch: int) -> Chosen:
        """Return the rule and the selection of an epoch, from the newest losses before it."""
        self._go_to(self._ancestor(epoch), epoch)
        self._take_up_runs()
        rule = self.base.rule if self.base is not None and self._is_made(self.base, epoch) else None
        if rule is not None:
            return self._select(rule, epoch)
        decision = self._decide(epoch)
        return self._select(decision.rule, epoch, decision)

    def histogram(self) -> Histogram:
        """Return the histogram of the scores that the epoch was chosen by; of today's, before any was chosen."""
        return self._today() if self._histogram is None else self._histogram

    def _today(self) -> Histogram:
        remembered = self.losses.remembered()
        labels = all_labels(self._policy, remembered, self._labels)
        return Histogram.of(judged_scores(self._policy, remembered, self.runs, self._table.first_id, labels))

    def _is_made(self, base: Generation, epoch: int) -> bool:
        """Say whether a generation holds this policy's rule for an epoch."""
        is_of_policy = base.facts.get("policy", self._described) == self._described
        is_judged_alike = runs_of(base).judged_together == self.runs.judged_together
        return base.epoch == epoch - 1 and is_of_policy and is_judged_alike

    def _take_up_runs(self) -> None:
        """Go on with the samples per run that the run began with, though the corpus's mean sample be another now."""
        told = self._asked if self.base is None else runs_of(self.base)
        self.runs = told if told.is_asked_as(self._asked) else self._asked

    def restore(
        self, epoch: int, rule: AnyRule, generation: str | None, pending: str | None, runs: Runs = EACH
    ) -> Chosen:
        """Return a checkpoint's selection, and take up the losses that were recorded after it was made.

        Raises:
            CheckpointError: the generation or the pending losses are gone.
        """
        if generation is not None and self.generations is None:
            raise CheckpointError(
                f"The checkpoint starts from generation {generation}, and this stream has no state: give state= the "
                "folder that the run wrote.",
                expected=generation,
            )
        base = None
        if self.generations is not None and generation is not None:
            try:
                base = self.generations.get(generation)
            except GenerationError as error:
                raise CheckpointError(f"The checkpoint's losses are gone. {error.message}") from error
        unusable = self._go_to(base, epoch)
        if unusable:
            raise CheckpointError(
                f"The checkpoint's losses are no longer whole: {unusable} shards of generation {generation} cannot be "
                "used. Restore the state folder, or use a checkpoint of another epoch.",
                expected=generation,
                found=unusable,
            )
        self._newest, self.runs = generation, runs
        chosen = self._select(rule, epoch)
        if pending is not None and self.generations is not None:
            try:
                self.losses.restore(*self.generations.read_pending(pending))
            except StateError as error:
                raise CheckpointError(f"The losses recorded before the checkpoint are gone. {error.message}") from error
        return chosen

    def write_pending(self, epoch: int, step: int) -> str | None:
        """Write the losses recorded in this epoch; return their name, or None where there is nothing to write."""
        if self.generations is None or not self.losses.recorded:
            return None
        ids = np.flatnonzero(self.losses.all_ages == 0)
        name = f"epoch-{epoch:06d}-step-{step:09d}-{secrets.token_hex(4)}"
        columns = {column: values[ids] for column, values in self.losses.columns.items()}
        self.generations.write_pending(name, ids, self.losses.values[ids], columns, parent=_name(self.base))
        self._pending.append(name)
        while len(self._pending) > PENDING_KEPT:
            self.generations.remove_pending(self._pending.pop(0))
        return name

    def history(self) -> list[dict[str, Any]]:
        """Return the epochs committed so far, oldest first."""
        return self.generations.history() if self.generations is not None else []

    def close(self) -> None:
        """Give the lock back."""
        if self.generations is not None:
            self.generations.close()

    def _ancestor(self, epoch: int) -> Generation | None:
        if self.generations is None:
            return None
        try:
            return self.generations.ancestor(epoch, self._newest)
        except GenerationError:
            kept = self.generations.kept()
            if not (self._latest and kept):
                raise
            return kept[-1]

    def _go_to(self, base: Generation | None, epoch: int) -> int:
        """Make the table hold the losses of a generation, aged as of the end of the epoch before this one.

        Returns the number of shards whose losses cannot be used.
        """
        unusable = 0
        if self.generations is not None:
            is_there = _name(base) == _name(self.base) and not self.losses.recorded and epoch > self._age_epoch
            if not is_there:
                unusable = self._load(base)
            self.base = base
        self._age(epoch - 1)
        return unusable

    def _age(self, epoch: int) -> None:
        """Let the ages be as of the end of an epoch, where they are not that old already; begin its counts."""
        self.losses.advance(max(epoch - self._age_epoch, 0))
        self._age_epoch = max(epoch, self._age_epoch)

    def _load(self, base: Generation | None) -> int:
        assert self.generations is not None  # noqa: S101  (narrows the type)
        self.losses = self._empty()
        self._age_epoch = -1 if base is None else base.epoch
        if base is None:
            return 0
        report = self.generations.load(base, self.losses, self._table)
        if self.losses.seeded and getattr(self._policy, "weight", None) is not None:
            warnings.warn(
                f"Generation {base.name} was written without {', '.join(sorted(self.losses.seeded))}, by which "
                f"{self._described['name']} weights the samples: they start as if each seen sample had been recorded "
                "once. Start the run with this policy, or expect other weights for some epochs.",
                SetaStreamWarning,
                stacklevel=2,
            )
        if report.unseen_shards:
            warnings.warn(
                f"Generation {base.name} has no usable losses for {report.unseen_shards} of {len(self._table.urls)} "
                "shards; their samples count as unseen. Where the corpus should be that of the state, its shards were "
                "changed: `seta-stream repack --state-out` carries losses over to those that it writes.",
                SetaStreamWarning,
                stacklevel=2,
            )
        return int(report.unseen_shards)

    def _empty(self) -> LossTable:
        return LossTable(self._table.samples, self._columns, takes_means=self._takes_means)

    def _decide(self, epoch: int) -> Decision:
        first_id = self._table.first_id
        return decide(self._policy, self.losses.remembered(), epoch, self._labels, first_id=first_id, runs=self.runs)

    def _select(self, rule: AnyRule, epoch: int, decision: Decision | None = None) -> Chosen:
        """Apply a rule; `decision` is what it was made with, where that was now."""
        first_id, remembered = self._table.first_id, self.losses.remembered()
        # Ages and losses will be others; who plans the rest of the run goes by these. Not made where shares are known.
        needed = expected_share_of(self._policy, epoch + 1) is None
        self._histogram = (decision.histogram if decision else self._today()) if needed else None
        mask, weights = apply(
            self._policy,
            rule,
            remembered,
            first_id,
            seed=self._seed,
            epoch=epoch,
            indexed=self._labels,
            runs=self.runs,
            scores=decision.scores if decision else None,
        )
        self._age(epoch)  # what the epoch does not see will be that old at its end
        return rule, Selection.of(mask, first_id), weights


def runs_of(generation: Generation) -> Runs:
    """Return how a generation's epoch decided samples together."""
    told = generation.facts.get("runs")
    return EACH if told is None else Runs.from_plain(told)


def _name(generation: Generation | None) -> str | None:
    return None if generation is None else generation.name
