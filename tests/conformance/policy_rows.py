"""Every policy, what it promises, and runs to hold it to that.

Takes nothing; gives a table of rows, and runs of each policy on losses of which only the selected are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from loss_shapes import draw_losses
from numpy.typing import NDArray

from seta_stream.losses.table import LossTable
from seta_stream.policies import (
    BLS,
    RS2,
    UCB,
    DynamicRandom,
    EpsilonGreedy,
    Full,
    InfoBatch,
    InfoBatchQuantile,
    Kakurenbo,
    LossProportional,
    OrderDP,
    PerGroup,
    RePB,
    Rule,
    SelectiveBackprop,
    SeTa,
    StaticRandom,
)
from seta_stream.policies.deciding import (
    Decision,
    apply,
    columns_of,
    decide,
    grouping_of,
    labels_of,
    scores_of,
    takes_means,
)

EPOCHS: Final = 8
GROUPS: Final = 12
"""Recorded groups; more than ten, so that their names sort otherwise than their numbers."""

Values = Mapping[str, NDArray[Any]]
ShareOf = Callable[[Values, int], float]


@dataclass(frozen=True)
class Row:
    """A policy and its promise.

    Args:
        policy: under test.
        share: (values, epoch) -> the share of the samples kept where all are seen, told from the published method and
            not from the package; None: it is promised nowhere.
        draw: which random number is compared.
        unbiased: keep times weight is 1 for every sample.
        own_weights: weights are 1 in no simple way, and looked at in a test of their own.
        unseen_first: `share` counts all samples, unseen ones first; else it is of the seen samples alone.
        unseen_keep: probability to keep a sample without a loss; None: that of its group, with the loss 3.0.
    """

    policy: Any
    share: ShareOf | None
    draw: str = "epoch"
    unbiased: bool = False
    own_weights: bool = False
    unseen_first: bool = False
    unseen_keep: float | None = 1.0


def always(share: float) -> ShareOf:
    """Every epoch alike."""
    return lambda _, __: share


def after_the_first(share: float) -> ShareOf:
    """Epoch 0 has no losses and reads everything."""
    return lambda _, epoch: share if epoch else 1.0


def until_annealing(share: ShareOf) -> ShareOf:
    """Everything in epoch 0 and in the last one: seven of eight are 0.875, which are the ones that may prune."""
    return lambda values, epoch: share(values, epoch) if 0 < epoch < 7 else 1.0


def above_the_mean(column: str) -> ShareOf:
    """InfoBatch: half of what lies below the mean."""
    return lambda values, _: float(1 - 0.5 * np.mean(values[column] < values[column].mean(dtype=np.float64)))


def not_hidden(values: Values, epoch: int) -> float:
    """Kakurenbo: 0.3 times the stage's factor of the lowest losses are hidden unless flagged, tied ones in part.

    Stages begin after 0, 30, 60 and 80 % of the epochs.
    """
    if epoch == 0:
        return 1.0
    losses, sure = values["loss"], values["flags"] == 0
    count = 0.3 * {0: 1.0, 1: 0.8, 2: 0.6, 3: 0.4}[sum(start <= epoch for start in (3, 5, 7))] * len(losses)
    cut = np.sort(losses)[int(count)]
    below, tied = losses < cut, losses == cut
    part = (count - below.sum()) / tied.sum()
    return float(1 - (np.sum(below & sure) + part * np.sum(tied & sure)) / len(losses))


def hard_or_by_chance(values: Values, epoch: int) -> float:
    """RePB: what was visited and above its batch is kept, half of the rest."""
    if epoch == 0:
        return 1.0
    return float(0.5 + 0.5 * np.mean((values["age"] == 0) & (values["above"] != 0)))


ROWS: Final[dict[str, Row]] = {
    "Full": Row(Full(), always(1.0), unbiased=True),
    "StaticRandom": Row(StaticRandom(0.3), always(0.7), "fixed", unseen_keep=0.7),
    "DynamicRandom": Row(DynamicRandom(0.4), always(0.6), unseen_keep=0.6),
    "RS2": Row(RS2(0.75), always(0.25), "slice", unseen_keep=0.25),
    "EpsilonGreedy": Row(EpsilonGreedy(0.5), after_the_first(0.5), unseen_first=True),
    "UCB": Row(UCB(), after_the_first(0.59), unseen_first=True),
    "InfoBatch": Row(InfoBatch(EPOCHS), until_annealing(above_the_mean("loss")), unbiased=True),
    "InfoBatch smoothed": Row(
        InfoBatch(EPOCHS, smooth=BLS(0.8)), until_annealing(above_the_mean("smoothed")), unbiased=True
    ),
    "InfoBatchQuantile": Row(InfoBatchQuantile(EPOCHS), until_annealing(always(0.525)), unbiased=True),
    "InfoBatchQuantile at 60 %": Row(InfoBatchQuantile.at(EPOCHS, 0.6), until_annealing(always(0.4)), unbiased=True),
    "SeTa": Row(SeTa(EPOCHS), None, unseen_keep=0.9),
    "SeTa with a target": Row(SeTa(EPOCHS, target=0.5 * 7 / 8), after_the_first(0.5), unseen_first=True),
    "SeTa with a target, by rank": Row(
        SeTa(EPOCHS, target=0.5 * 7 / 8, group_scale="rank"), after_the_first(0.5), unseen_first=True
    ),
    "SeTa with a target, smoothed": Row(
        SeTa(EPOCHS, target=0.5 * 7 / 8, smooth=BLS(0.8)), after_the_first(0.5), unseen_first=True
    ),
    "SeTa as published": Row(SeTa.as_published_code(EPOCHS, 0.2, num_group=5), None, unseen_keep=None),
    "Kakurenbo": Row(Kakurenbo(EPOCHS), not_hidden),
    "SelectiveBackprop 1": Row(SelectiveBackprop(), after_the_first(1 / 2)),
    "SelectiveBackprop 2": Row(SelectiveBackprop(2), after_the_first(1 / 3)),
    "SelectiveBackprop 3": Row(SelectiveBackprop(3.0), after_the_first(1 / 4)),
    "LossProportional": Row(LossProportional(0.5), after_the_first(0.5), unbiased=True, unseen_first=True),
    "OrderDP": Row(OrderDP(), after_the_first(0.75 * 0.85), unseen_first=True),
    "RePB": Row(RePB(), hard_or_by_chance, own_weights=True),
    # What was never recorded has no group either: it is one of its own, and kept.
    "PerGroup of OrderDP": Row(PerGroup(OrderDP(), "recorded"), after_the_first(0.75 * 0.85)),
    "PerGroup of LossProportional": Row(
        PerGroup(LossProportional(0.4), "recorded", floor=0.2), after_the_first(0.6), unbiased=True
    ),
    "PerGroup of Kakurenbo": Row(PerGroup(Kakurenbo(EPOCHS), "recorded"), None),
    "PerGroup of RePB": Row(PerGroup(RePB(), "recorded"), hard_or_by_chance, own_weights=True),
}


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run.

    Args:
        number: counted from 0.
        values: what was remembered when it was decided.
        decision: with its rule.
        mask, weight: as `apply` gives them.
    """

    number: int
    values: Values
    decision: Decision
    mask: NDArray[np.bool_]
    weight: NDArray[np.float32] | None

    @property
    def weights(self) -> NDArray[np.float32]:
        """The weight of each sample, 0 where it was dropped."""
        return self.mask.astype(np.float32) if self.weight is None else self.weight


def keep_of(policy: Any, rule: Any, values: Values) -> NDArray[np.float64]:
    """Return the probability with which each sample is kept, from the steps of its rule: float64 [total]."""
    scores = scores_of(policy, values)
    grouping = grouping_of(policy)
    if grouping is None:
        return _keep_by_step(rule, scores)
    labels = labels_of(grouping, values, None)
    keep = np.ones(len(scores))
    for place, name in enumerate(labels.names):
        inside = labels.codes == place
        keep[inside] = _keep_by_step(rule.rules[name], scores[inside])
    return keep


def _keep_by_step(rule: Rule, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    by_step: NDArray[np.float64] = rule.keep[np.searchsorted(rule.edges, scores, side="right")]
    return np.where(np.isnan(scores), rule.unseen_keep, by_step)


def empty_table(policy: Any, samples: list[int]) -> LossTable:
    """Return a table with the policy's columns."""
    return LossTable(samples, columns_of(policy), takes_means=takes_means(policy))


def record_epoch(table: LossTable, ids: NDArray[np.int64], losses: NDArray[np.float32], epoch: int) -> None:
    """Record the losses of some samples in batches of 64, with what else the policy asks for."""
    flags = np.random.default_rng((5, epoch)).random(table.total) < 0.3
    told = {"flags": flags.astype(np.uint8), "group": np.arange(table.total) % GROUPS}
    for start in range(0, len(ids), 64):
        batch = ids[start : start + 64]
        table.record(batch, losses[batch], **{name: told[name][batch] for name in table.takes})


def run(
    policy: Any, samples: list[int], shape: str, *, epochs: int = EPOCHS, seed: int = 1, never: float = 0.0
) -> Iterator[Epoch]:
    """Yield the epochs of a run that records what it selects, of losses that move from epoch to epoch.

    Args:
        policy: under test.
        samples: of each shard.
        shape: of the losses.
        epochs: how many to yield.
        seed: of the draws.
        never: share of the samples whose losses never arrive.
    """
    table = empty_table(policy, samples)
    arrives = np.random.default_rng(8).random(table.total) >= never
    for number in range(epochs):
        values = {name: column.copy() for name, column in table.remembered().items()}
        decision = decide(policy, values, number)
        mask, weight = apply(policy, decision.rule, values, table.first_id, seed=seed, epoch=number)
        yield Epoch(number, values, decision, mask, weight)
        table.advance()
        order = np.random.default_rng((6, number)).permutation(np.flatnonzero(mask & arrives))
        record_epoch(table, order, losses_at(shape, table.total, number), number)


def losses_at(shape: str, samples: int, epoch: int) -> NDArray[np.float32]:
    """Return what the losses of one epoch would be: those of the shape, each with some noise of its own."""
    losses: NDArray[np.float32] = draw_losses(shape, samples, seed=2)
    noise = np.random.default_rng((4, epoch)).lognormal(0, 0.4, samples)
    return (losses * noise).astype(np.float16).astype(np.float32)
