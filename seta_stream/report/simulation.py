"""What policies would have read: a history replayed, without a byte or a step.

Takes the losses of epochs, the shape of a corpus, and policies; gives figures per epoch and per policy. Pure.

Each policy meets the same simulated samples and the same losses. It decides by the real histogram, rule and draws on a
table of its own, and only what it selects gets a new loss there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError, PlanError, PolicyError
from seta_stream.losses.table import LossTable
from seta_stream.policies import Full
from seta_stream.policies.deciding import apply, columns_of, decide, grouping_of
from seta_stream.policies.groups import Grouping, Labels
from seta_stream.policies.policy import Policy, describe, expected_share_of
from seta_stream.policies.runs import EACH, Runs
from seta_stream.report.losscurves import LossCurve, Population
from seta_stream.report.outcome import EpochFigures, PolicyFigures, Simulation
from seta_stream.report.prices import Price
from seta_stream.report.readcosts import PROBE_SAMPLES, CorpusShape, ReadCosts, ReadModel, Sketch

SIMULATED: Final = 200_000


@dataclass(frozen=True, eq=False)
class Scenario:
    """What is replayed.

    Args:
        corpus: its shards.
        curves: the losses of each epoch; the last one holds for the epochs that follow.
        epochs: how many to simulate.
        correlation: rank correlation of a sample's losses between two epochs.
        model: how bytes are asked for.
        price: of the store.
        warm: losses that were there before epoch 0.
        simulated: samples to simulate, at most.
        seed: of every draw.
        runs: how samples are decided together.
        repacked: whether the samples of each shard lie in the order of their losses before epoch 0.

    Raises:
        ArgumentError: nothing to replay.
    """

    corpus: CorpusShape
    curves: Sequence[LossCurve]
    epochs: int
    correlation: float
    model: ReadModel
    price: Price
    warm: LossCurve | None = None
    simulated: int = SIMULATED
    seed: int = 0
    runs: Runs = EACH
    repacked: bool = False

    def __post_init__(self) -> None:
        if not self.curves or self.epochs < 1 or self.simulated < 1:
            raise ArgumentError(
                f"There is nothing to simulate: {len(self.curves)} epochs of losses, {self.epochs} epochs to replay "
                f"and {self.simulated} samples were given. Give at least one of each.",
                found=(len(self.curves), self.epochs, self.simulated),
            )

    def sketch(self) -> Sketch:
        """Return the samples that stand for the corpus.

        Where shards are in order, no more than are planned: a part of a shard is then no sample of it.
        """
        limit = min(self.simulated, PROBE_SAMPLES) if self.repacked else self.simulated
        return self.corpus.sketch(limit)

    def losses(self, population: Population, sketch: Sketch) -> Callable[[LossCurve, int], NDArray[np.float32]]:
        """Return (curve, epoch) → the loss of each sample of the sketch, as they lie in its shards."""
        if not self.repacked:
            return population.losses
        shard = np.repeat(np.arange(len(sketch.samples)), sketch.samples)
        order = np.lexsort((population.losses(self.warm or self.curves[0], -1), shard))
        return lambda curve, epoch: population.losses(curve, epoch)[order]


def simulate(
    scenario: Scenario, policies: Sequence[tuple[str, Policy]], *, progress: Callable[[], None] = lambda: None
) -> Simulation:
    """Return what each policy would have read.

    A policy that selects nothing in some epoch, or refuses to go on, stops there, as a run would.

    Args:
        scenario: what is replayed.
        policies: (label, policy) pairs.
        progress: called after each epoch of each policy, once per policy more than there are (for reading everything).

    Raises:
        PolicyError: a policy needs what a simulation does not have.
    """
    for _, policy in policies:
        check_simulable(policy)
    corpus, sketch = scenario.corpus, scenario.sketch()
    losses_of = scenario.losses(Population(sketch.total, scenario.correlation, scenario.seed), sketch)
    costs = ReadCosts(corpus, sketch, scenario.model, scenario.seed)
    everything = _Run("everything", Full(), scenario, sketch, costs)
    runs = [_Run(label, policy, scenario, sketch, costs) for label, policy in policies]
    if scenario.warm is not None:
        losses = losses_of(scenario.warm, -1)
        for run in runs:
            run.warm_up(losses)
    for epoch in range(scenario.epochs):
        losses = losses_of(scenario.curves[min(epoch, len(scenario.curves) - 1)], epoch)
        for run in (everything, *runs):
            run.step(epoch, losses)
            progress()
    return Simulation(
        samples=corpus.total,
        simulated=sketch.total,
        shards=len(corpus.samples),
        simulated_shards=len(sketch.shards),
        epochs=scenario.epochs,
        price=scenario.price,
        full=everything.figures(),
        policies=tuple(run.figures() for run in runs),
    )


def nominal_saved(policy: Policy, epochs: int) -> float | None:
    """Return the share of sample visits that a policy's settings promise to save over a run; None where they do not.

    That is its `target`; or what it keeps of each epoch, where it knows; or else its `prune_ratio`, as the papers
    count, unless a window decides as well.
    """
    target: float | None = getattr(policy, "target", None)
    if target is not None:
        return target
    shares = [expected_share_of(policy, epoch) for epoch in range(epochs)]
    known = [share for share in shares if share is not None]
    if len(known) == epochs:
        return 1.0 - sum(known) / epochs
    pruned: float | None = getattr(policy, "prune_ratio", None)
    return None if hasattr(policy, "window_scale") else pruned


@dataclass(eq=False)
class _Run:
    """One policy on its way through the epochs."""

    label: str
    policy: Policy
    scenario: Scenario
    sketch: Sketch
    costs: ReadCosts
    table: LossTable = field(init=False)
    stopped: str | None = None

    def __post_init__(self) -> None:
        self.table = LossTable(self.sketch.samples, columns_of(self.policy))
        self._labels = _labels(grouping_of(self.policy), self.sketch)
        self._last: NDArray[np.int64] = np.full(self.sketch.total, -1, np.int64)
        self._epochs: list[EpochFigures] = []

    def warm_up(self, losses: NDArray[np.float32]) -> None:
        """Record a loss of every sample before epoch 0."""
        self.table.record(np.arange(self.sketch.total), losses)

    def step(self, epoch: int, losses: NDArray[np.float32]) -> None:
        """Select an epoch, count it, and record the losses of what it selects."""
        if self.stopped is not None:
            return
        values, seed, runs = self.table.remembered(), self.scenario.seed, self.scenario.runs
        first_id, labels = self.sketch.first_id, self._labels
        try:
            rule = decide(self.policy, values, epoch, labels, first_id=first_id, runs=runs).rule
            mask, _ = apply(self.policy, rule, values, first_id, seed=seed, epoch=epoch, indexed=labels, runs=runs)
        except (PolicyError, PlanError) as error:
            self.stopped = f"epoch {epoch}: {error.message}"
            return
        if not mask.any():
            self.stopped = f"epoch {epoch}: selects nothing"
            return
        self._last[mask] = epoch
        self._epochs.append(self._figures(epoch, mask))
        ids = np.flatnonzero(mask)
        self.table.advance()
        self.table.record(ids, losses[ids])

    def _figures(self, epoch: int, mask: NDArray[np.bool_]) -> EpochFigures:
        waited = epoch - self._last[self._last >= 0]
        cost = self.costs.of(mask, epoch)
        return EpochFigures(
            epoch=epoch,
            share=float(mask.mean()),
            unique_share=len(waited) / len(mask),
            staleness=float(waited.mean()),
            oldest=int(waited.max()),
            bytes=cost.bytes,
            requests=cost.requests,
            money=self.scenario.price.of(cost.bytes, cost.requests),
        )

    def figures(self) -> PolicyFigures:
        """Return what was counted."""
        return PolicyFigures(
            self.label,
            describe(self.policy),
            nominal_saved(self.policy, self.scenario.epochs),
            tuple(self._epochs),
            self.stopped,
        )


def check_simulable(policy: Policy) -> None:
    """Refuse a policy that needs what a simulation does not have.

    Raises:
        PolicyError: it divides samples by their keys.
    """
    grouping = grouping_of(policy)
    if grouping is not None and grouping.column is None and grouping.by != "shard":
        raise PolicyError(
            f"A policy within groups by={grouping.by!r} cannot be simulated: a history knows no keys. Simulate the "
            'policy without groups, or by="shard".',
            expected="shard",
            found=str(grouping.by),
        )


def _labels(grouping: Grouping | None, sketch: Sketch) -> Labels | None:
    """Return the groups that a simulation knows, where a policy asks for any: the shards."""
    if grouping is None or grouping.column is not None:
        return None
    codes = np.repeat(np.arange(len(sketch.shards)), sketch.samples)
    return Labels(tuple(str(shard) for shard in sketch.shards.tolist()), codes)
