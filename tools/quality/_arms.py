"""The arms of the accuracy experiments: policies by name, each made for the length of the run.

Takes names; gives arms. No effects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

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
        unit: what is decided: each sample, or each run by its mean loss.
        run_length: neighbours that share one draw, and are a run.
        repacked: the epochs before which the samples of each shard are put in the order of their losses.
        as_planned: in the order of a stream's plan, from shards of ten times as many samples: where these are in the
            order of their losses, a batch comes from a part of that order. Else each epoch is one permutation.
    """

    make: Callable[[int], Any]
    compressed: bool = False
    records_means: bool = False
    fresh_losses: bool = False
    rate_by_epoch: bool = False
    recorded: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)
    unit: Literal["sample", "run"] = "sample"
    run_length: int = 1
    repacked: Callable[[int], tuple[int, ...]] | None = None
    as_planned: bool = False

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


def _in_runs(length: int, **how: Any) -> Arm:
    return replace(SETA_LOG, run_length=length, **how)


def _once(epochs: int) -> tuple[int, ...]:
    """Return the epoch before which everything is repacked: a fifth of the run is over."""
    return (math.ceil(epochs / 5),)


def _again(epochs: int) -> tuple[int, ...]:
    """Return each fifth of the run."""
    return tuple(range(_once(epochs)[0], epochs, _once(epochs)[0]))


RUN_LENGTHS = (16, 64)
RUNS = BASELINES | {"dynamic": DYNAMIC, "seta-log": SETA_LOG}
for _length in RUN_LENGTHS:
    RUNS |= {
        f"dynamic draws for {_length}": replace(DYNAMIC, run_length=_length),
        f"draws for {_length}": _in_runs(_length),
        f"runs of {_length}": _in_runs(_length, unit="run"),
        f"runs of {_length} repacked once": _in_runs(_length, unit="run", repacked=_once),
        f"runs of {_length} repacked each fifth": _in_runs(_length, unit="run", repacked=_again),
    }
RUNS |= {
    f"{name} as planned": replace(RUNS[name], as_planned=True) for name in ("seta-log", "runs of 64 repacked once")
}
"""What deciding for runs of neighbours costs: one draw for all of them, or one decision by their mean loss."""

WORD_RUNS = WORDS | {
    name: arm
    for name, arm in RUNS.items()
    if arm.run_length > 1 and name.startswith(("draws", "runs")) and not arm.as_planned
}

STUDIES = {"policies": POLICIES, "seta": SETA_STUDY, "words": WORDS, "runs": RUNS, "word-runs": WORD_RUNS}


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
    if arm.run_length > 1:
        ways.append(f"{arm.unit}s in runs of {arm.run_length}" if arm.unit == "sample" else f"runs of {arm.run_length}")
    if arm.repacked is not None:
        ways.append(f"repacked before {', '.join(map(str, arm.repacked(length)))}")
    if arm.as_planned:
        ways.append("in the order of the plan")
    return ", ".join([f"{describe(arm.make(length))}", f"{length} epochs", *ways])
