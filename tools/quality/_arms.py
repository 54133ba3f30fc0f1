"""The arms of the accuracy experiments: policies by name, each made for the length of the run.

Takes names; gives arms. No effects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import click

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
    RePB,
    SelectiveBackprop,
    SeTa,
    StaticRandom,
)
from seta_stream.policies.policy import describe

TARGET = 0.5


@dataclass(frozen=True)
class Arm:
    """A policy, and how a run uses it.

    Attributes:
        make: epochs → policy.
        compressed: the run has only the share of the epochs that the others visit: the honest baseline of `Full`.
        records_means: one loss per batch is recorded, not one per sample.
        fresh_losses: before each epoch all losses are computed anew, at the price of a forward pass over everything:
            what stale losses cost.
        rate_by_epoch: the learning rate falls with the epochs begun, not with the samples consumed.
        recorded: what is recorded beside the losses, by name: (network's output, labels) → [n].
    """

    make: Callable[[int], Any]
    compressed: bool = False
    records_means: bool = False
    fresh_losses: bool = False
    rate_by_epoch: bool = False
    recorded: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)

    def length(self, epochs: int) -> int:
        """Return how many epochs the run has, where a full one has `epochs`."""
        return math.ceil(epochs * (1 - TARGET)) if self.compressed else epochs


def later(epochs: int) -> float:
    """Return what each epoch but the first has to leave out, so that the run saves TARGET."""
    return TARGET * epochs / (epochs - 1)


def pruned(epochs: int, delta: float = 0.875) -> float:
    """Return what each epoch has to leave out, the first and the annealing ones apart, so that the run saves TARGET."""
    return TARGET * epochs / (int(round(delta * epochs, 9)) - 1)


def _flags(scores: Any, labels: Any) -> Any:
    return Kakurenbo(num_epochs=200).flags(scores.numpy(), labels.numpy())


BASELINES = {"full-compressed": Arm(lambda _: Full(), compressed=True), "full": Arm(lambda _: Full())}
STATIC, DYNAMIC = Arm(lambda _: StaticRandom(TARGET)), Arm(lambda _: DynamicRandom(TARGET))
INFOBATCH = Arm(lambda epochs: InfoBatch(num_epochs=epochs))


def _seta(**settings: Any) -> Arm:
    return Arm(lambda epochs: SeTa(num_epochs=epochs, target=TARGET, **settings))


SETA_LOSS, SETA_LOG, SETA_RANK = (_seta(group_scale=scale) for scale in ("loss", "log", "rank"))

POLICIES = BASELINES | {
    "static": STATIC,
    "dynamic": DYNAMIC,
    "rs2": Arm(lambda _: RS2(TARGET)),
    "epsilon-greedy": Arm(lambda epochs: EpsilonGreedy(later(epochs))),
    "ucb": Arm(lambda epochs: UCB(later(epochs))),
    "infobatch": INFOBATCH,
    "infobatch-quantile": Arm(lambda epochs: InfoBatchQuantile.at(epochs, pruned(epochs))),
    "infobatch-bls": Arm(lambda epochs: InfoBatch(epochs, smooth=BLS()), records_means=True),
    "kakurenbo": Arm(lambda epochs: Kakurenbo(epochs, fraction=TARGET), recorded={"flags": _flags}),
    "selective-backprop": Arm(lambda _: SelectiveBackprop(beta=1 / (1 - TARGET) - 1)),
    "loss-proportional": Arm(lambda epochs: LossProportional(later(epochs))),
    "orderdp": Arm(lambda epochs: OrderDP(0.75, (1 - later(epochs)) / 0.75)),
    "repb": Arm(lambda _: RePB(TARGET)),
    "seta-log": SETA_LOG,
    "seta-rank": SETA_RANK,
    "seta-loss": SETA_LOSS,
    "seta-nominal": Arm(lambda epochs: SeTa(epochs, group_scale="loss")),
    "seta-published": Arm(lambda epochs: SeTa.as_published_code(num_epochs=epochs)),
}
"""Every policy, at a half where it can be told how much to save, else as published."""

MAIN = (*BASELINES, "static", "dynamic", "infobatch", "kakurenbo", "orderdp", "seta-log", "seta-rank", "seta-loss")
"""The arms that run on every variant; the others on the first one alone."""


SETA_STUDY = BASELINES | {
    "dynamic": DYNAMIC,
    "infobatch": INFOBATCH,
    "loss": SETA_LOSS,
    "log": SETA_LOG,
    "rank": SETA_RANK,
    "loss k=10 α=0.5": _seta(group_scale="loss", num_group=10, window_scale=0.5),
    "log k=10 α=0.5": _seta(group_scale="log", num_group=10, window_scale=0.5),
    "rank k=10 α=0.5": _seta(group_scale="rank", num_group=10, window_scale=0.5),
    "loss α=0.4": _seta(group_scale="loss", window_scale=0.4),
    "log α=0.4": _seta(group_scale="log", window_scale=0.4),
    "loss α=0.8": _seta(group_scale="loss", window_scale=0.8),
    "log α=0.8": _seta(group_scale="log", window_scale=0.8),
    "rank α=0.8": _seta(group_scale="rank", window_scale=0.8),
    "loss δ=0.5": _seta(group_scale="loss", delta=0.5),
    "log δ=0.5": _seta(group_scale="log", delta=0.5),
    "loss δ=1": _seta(group_scale="loss", delta=1.0),
    "log δ=1": _seta(group_scale="log", delta=1.0),
    "loss fresh": replace(_seta(group_scale="loss"), fresh_losses=True),
    "log fresh": replace(_seta(group_scale="log"), fresh_losses=True),
    "loss smooth": _seta(group_scale="loss", smooth=BLS()),
    "log smooth": _seta(group_scale="log", smooth=BLS()),
    "nominal": Arm(lambda epochs: SeTa(epochs, group_scale="loss")),
    "nominal log": Arm(lambda epochs: SeTa(num_epochs=epochs, group_scale="log")),
    "nominal rank": Arm(lambda epochs: SeTa(num_epochs=epochs, group_scale="rank")),
    "nominal by epoch": Arm(lambda epochs: SeTa(epochs, group_scale="loss"), rate_by_epoch=True),
}
"""Why SeTa wins or loses: groups by loss, its logarithm or rank, the settings, stale losses, the learning rate."""

WORDS = (
    BASELINES
    | {"static": STATIC, "dynamic": DYNAMIC, "infobatch": INFOBATCH}
    | {
        "seta-log": SETA_LOG,
        "seta-loss": SETA_LOSS,
    }
)

STUDIES = {"policies": POLICIES, "seta": SETA_STUDY, "words": WORDS}


def arms_of(study: str, names: str | None = None) -> dict[str, Arm]:
    """Return the arms of a study, or the baselines and those named, by comma.

    Raises:
        click.UsageError: a name that the study does not have.
    """
    arms = STUDIES[study]
    if names is None:
        return arms
    wanted = {*BASELINES, *names.split(",")}
    unknown = sorted(wanted - set(arms))
    if unknown:
        raise click.UsageError(f"The study {study} has no arm {', '.join(unknown)}: choose from {', '.join(arms)}.")
    return {name: arm for name, arm in arms.items() if name in wanted}


def told(arm: Arm, epochs: int) -> str:
    """Return what an arm does, in words that change with its settings."""
    length = arm.length(epochs)
    ways = [name for name in ("records_means", "fresh_losses", "rate_by_epoch") if getattr(arm, name)]
    return ", ".join([f"{describe(arm.make(length))}", f"{length} epochs", *ways])
