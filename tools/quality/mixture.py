"""Accuracy of every policy on a mixture of Gaussians with near-duplicates and wrong labels, in minutes on two cores.

    python tools/quality/mixture.py [--study policies|seta|runs] [--arms seta,infobatch] [--seeds 20] [--out FOLDER]

30,000 samples of 32 numbers in 10 classes, half of them near-duplicates, a tenth with a wrong label; a small network;
20 epochs. The arms save half of the sample visits, or as much as they do; without --arms, only the main ones run on the
second and third variant of the data. Runs with one seed share data, initial weights, the order of the samples and the
policies' random draws, so arms are compared in pairs. A stopped command goes on where it stopped. Writes results.jsonl,
table.md and plot.png.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from _arms import MAIN, Arm, arms_of, told
from _common import Job, Rows, report, run_jobs
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from seta_stream.losses.histogram import Histogram
from seta_stream.losses.table import LossTable
from seta_stream.options import DEFAULT_WIDTH
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.plan.shuffle import block_length
from seta_stream.plan.walk import Share, rounds
from seta_stream.policies.deciding import apply, columns_of, decide, takes_means
from seta_stream.policies.runs import Runs
from seta_stream.schedule import Schedule

MIXTURE_STUDIES = ("policies", "seta", "runs")
CLASSES, DIMENSIONS, COMPONENTS, TEST_SAMPLES = 10, 32, 8, 10_000
COPIES = 10
"""Near-duplicates per original, on average."""
JITTER = 0.1
"""Their distance from it, of a component's width."""
SHARD_SAMPLES, SAMPLE_BYTES = 1_000, 3_000
HIDDEN, PEAK_RATE, WEIGHT_DECAY, BATCH = 160, 5e-3, 1e-2, 128


@dataclass(frozen=True)
class Variant:
    """A kind of data.

    Attributes:
        duplicates: share of near-duplicates.
        wrong: share of wrong labels.
        spread: of the components' centres; their own width is 1.
    """

    duplicates: float
    wrong: float
    spread: float = 1.1


VARIANTS = {
    "standard": Variant(0.5, 0.1),
    "no wrong labels": Variant(0.5, 0.0),
    "60 % duplicates": Variant(0.6, 0.1),
    "hard": Variant(0.5, 0.0, spread=0.8),
}
DEFAULT_VARIANTS = ("standard", "no wrong labels", "60 % duplicates")


@dataclass(frozen=True)
class Data:
    """Training and test samples.

    Attributes:
        inputs: float32 [samples, 32].
        labels: int64 [samples], some of them wrong.
        is_wrong, is_duplicate: bool [samples].
        test_inputs, test_labels: as above, none wrong.
    """

    inputs: Tensor
    labels: Tensor
    is_wrong: NDArray[np.bool_]
    is_duplicate: NDArray[np.bool_]
    test_inputs: Tensor
    test_labels: Tensor


def make_data(variant: Variant, samples: int, seed: int) -> Data:
    """Return the data of a seed: eight components per class, common ones and rare ones (one over their rank)."""
    random = np.random.default_rng([seed, 1])
    centres = random.normal(scale=variant.spread, size=(CLASSES * COMPONENTS, DIMENSIONS))
    chances = np.repeat(1 / np.arange(1, COMPONENTS + 1), CLASSES)
    chances /= chances.sum()

    def draw(count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        component = random.choice(len(chances), count, p=chances)
        return centres[component] + random.normal(size=(count, DIMENSIONS)), component % CLASSES

    inputs, labels = draw(samples)
    duplicates = round(samples * variant.duplicates)
    originals, their_labels = draw(max(1, duplicates // COPIES))
    places, which = random.permutation(samples)[:duplicates], random.integers(len(originals), size=duplicates)
    inputs[places] = originals[which] + JITTER * random.normal(size=(duplicates, DIMENSIONS))
    labels[places] = their_labels[which]
    # Each sample's label is wrong or not by itself: copies of one original are not wrong together.
    is_wrong = random.random(samples) < variant.wrong
    labels = np.where(is_wrong, (labels + random.integers(1, CLASSES, size=samples)) % CLASSES, labels)
    test_inputs, test_labels = draw(TEST_SAMPLES)
    return Data(
        torch.from_numpy(inputs.astype(np.float32)),
        torch.from_numpy(labels),
        is_wrong,
        np.isin(np.arange(samples), places),
        torch.from_numpy(test_inputs.astype(np.float32)),
        torch.from_numpy(test_labels),
    )


def make_network() -> nn.Module:
    """Return the network, 32 → 160 → 160 → 10: large enough to learn wrong labels by heart in 20 epochs."""
    return nn.Sequential(
        nn.Linear(DIMENSIONS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)
    )


@dataclass
class Visits:
    """What was trained on: all visits, those of wrong labels, those of duplicates, and each epoch's share."""

    all: int = 0
    wrong: int = 0
    duplicate: int = 0
    shares: tuple[float, ...] = ()

    def add(self, mask: NDArray[np.bool_], data: Data) -> None:
        """Count an epoch's selection."""
        kept = int(np.count_nonzero(mask))
        self.all += kept
        self.wrong += int(np.count_nonzero(mask & data.is_wrong))
        self.duplicate += int(np.count_nonzero(mask & data.is_duplicate))
        self.shares = (*self.shares, round(kept / len(mask), 4))


class Trainer:
    """One run: epochs of visits to what the policy selects, in an order that all arms of a seed share.

    Args:
        arm: the policy, and for how many epochs.
        data: to train on.
        seed: of the initial weights, the order and the draws.
        epochs: of a full run.
    """

    def __init__(self, arm: Arm, data: Data, seed: int, epochs: int) -> None:
        self.arm, self.data, self.seed = arm, data, seed
        self.epochs = arm.length(epochs)
        self.policy = arm.make(self.epochs)
        samples = len(data.labels)
        per_shard = SHARD_SAMPLES * (10 if arm.as_planned else 1)
        shards = np.diff(np.append(np.arange(0, samples, per_shard), samples))
        self.table = LossTable(shards, columns_of(self.policy), takes_means=takes_means(self.policy))
        torch.manual_seed(seed)
        self.network = make_network()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        # The cosine falls with the samples consumed, of those that the policy plans: a pruned run ends at zero too.
        self.schedule = Schedule(self.policy, samples, BATCH, drop_last=False)
        self.schedule.steps(self.epochs, self.table.histogram())
        self.visits = Visits()
        self.runs = Runs(arm.unit, length=arm.run_length)
        self.repacked = () if arm.repacked is None else arm.repacked(self.epochs)
        self.sample_of = np.arange(samples)
        """Which sample of the data stands at each place of the shards: int64 [samples]."""

    def train(self) -> Visits:
        """Train the network, and return what was visited."""
        for epoch in range(self.epochs):
            if self.arm.fresh_losses and epoch:
                self._refresh()
            if epoch in self.repacked:
                self._repack()
            values, first_id = self.table.remembered(), self.table.first_id
            decision = decide(self.policy, values, epoch, first_id=first_id, runs=self.runs)
            mask, weights = apply(
                self.policy, decision.rule, values, first_id, seed=self.seed, epoch=epoch, runs=self.runs
            )
            self.schedule.begin(epoch, int(mask.sum()), {epoch - 1: self.visits.all})
            ids = self._planned(epoch, mask) if self.arm.as_planned else self._permuted(epoch, mask)
            self._epoch(epoch, ids, weights, decision.histogram)
            self.visits.add(mask[np.argsort(self.sample_of)], self.data)
            self.table.advance()
        return self.visits

    def _permuted(self, epoch: int, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the selected ids in an order of the samples that all arms share, wherever the samples lie."""
        order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(mask))
        ids = np.argsort(self.sample_of)[order]
        return ids[mask[ids]]

    def _planned(self, epoch: int, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the selected ids in the order of a stream's plan."""
        block = block_length(SAMPLE_BYTES, DEFAULT_WIDTH, BATCH)
        geometry = Geometry(1, DEFAULT_WIDTH, BATCH, block, 1, self.seed, "blocks", drop_last=False)
        plan = EpochPlan(Selection.of(mask, self.table.first_id), geometry, epoch)
        return np.concatenate([ids for _, ids in rounds(plan, Share())])

    def _repack(self) -> None:
        """Put the samples of each shard in the order of their last losses."""
        shard = np.repeat(np.arange(self.table.shards), np.diff(self.table.first_id))
        order = np.lexsort((self.table.values, shard))
        self.sample_of = self.sample_of[order]
        for column in (self.table.values, self.table.all_ages, *self.table.columns.values()):
            column[:] = column[order]

    def _epoch(
        self, epoch: int, ids: NDArray[np.int64], weights: NDArray[np.float32] | None, histogram: Histogram
    ) -> None:
        rate = self.optimizer.param_groups[0]
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            done = self.schedule.progress(start, lambda: histogram)
            if self.arm.rate_by_epoch:
                done = (epoch + start / len(ids)) / self.epochs
            rate["lr"] = PEAK_RATE * 0.5 * (1 + math.cos(math.pi * done))
            places = torch.from_numpy(self.sample_of[batch])
            labels = self.data.labels[places]
            scores = self.network(self.data.inputs[places])
            losses = functional.cross_entropy(scores, labels, reduction="none")
            loss = losses if weights is None else losses * torch.from_numpy(weights[batch])
            self.optimizer.zero_grad(set_to_none=True)
            loss.mean().backward()
            self.optimizer.step()
            self._record(batch, losses.detach(), scores.detach(), labels)

    @torch.no_grad()
    def _refresh(self) -> None:
        losses = functional.cross_entropy(self.network(self.data.inputs), self.data.labels, reduction="none")
        self.table.record(np.arange(len(losses)), losses[torch.from_numpy(self.sample_of)])

    def _record(self, ids: NDArray[np.int64], losses: Tensor, scores: Tensor, labels: Tensor) -> None:
        if self.arm.records_means:
            self.table.record(ids, losses.mean()[None])
            return
        recorded = {name: self.arm.recorded[name](scores, labels) for name in self.table.takes}
        self.table.record(ids, losses, **recorded)


@torch.no_grad()
def accuracy(network: nn.Module, data: Data) -> float:
    """Return the share of test samples that the network tells right, in per cent."""
    return 100 * float((network(data.test_inputs).argmax(dim=1) == data.test_labels).double().mean())


def run(job: Job, *, samples: int, epochs: int, study: str) -> dict[str, Any]:
    """Do one run, on one thread, and return its figures."""
    torch.set_num_threads(1)
    start = time.monotonic()
    data = make_data(VARIANTS[job.variant], samples, job.seed)
    trainer = Trainer(arms_of(study)[job.arm], data, job.seed, epochs)
    visits = trainer.train()
    return {
        "accuracy": round(accuracy(trainer.network, data), 4),
        "saved": 1 - visits.all / (epochs * samples),
        "bytes": visits.all * SAMPLE_BYTES,
        # Above 1 where the policy visits wrong labels, or duplicates, more often than their share.
        "wrong_ratio": _ratio(visits.wrong / visits.all, float(data.is_wrong.mean())),
        "duplicate_ratio": _ratio(visits.duplicate / visits.all, float(data.is_duplicate.mean())),
        "shares": visits.shares,
        "seconds": round(time.monotonic() - start, 2),
    }


def _ratio(share: float, of_all: float) -> float | None:
    return round(share / of_all, 4) if of_all else None


@click.command()
@click.option("--study", type=click.Choice(MIXTURE_STUDIES), default="policies", show_default=True)
@click.option("--arms", help="Some of the study's arms, by comma; the baselines always run.")
@click.option("--variants", help=f"By comma, of {', '.join(VARIANTS)}; by default all but hard.")
@click.option("--seeds", default=20, show_default=True, type=click.IntRange(1))
@click.option("--samples", default=30_000, show_default=True, type=click.IntRange(100))
@click.option("--epochs", default=20, show_default=True, type=click.IntRange(5))
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Processes, one thread each.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("quality-out/mixture"), show_default=True)
def main(
    *, study: str, arms: str | None, variants: str | None, seeds: int, samples: int, epochs: int, jobs: int, out: Path
) -> None:
    """Train the same network under each policy, on paired seeds, and compare."""
    console = Console(stderr=True)
    chosen = arms_of(study, arms)
    kinds = variants.split(",") if variants else list(DEFAULT_VARIANTS)
    unknown = set(kinds) - set(VARIANTS)
    if unknown:
        raise click.UsageError(f"There is no variant {sorted(unknown)}: choose from {', '.join(VARIANTS)}.")
    settings = {"experiment": "mixture", "samples": samples, "epochs": epochs}
    rows = Rows(out / "results.jsonl", settings | {"variants": {name: asdict(VARIANTS[name]) for name in VARIANTS}})
    # Seed by seed: a run that is stopped has whole pairs.
    wanted = [
        Job(variant, name, seed, told(arm, epochs))
        for seed in range(seeds)
        for variant in kinds
        for name, arm in chosen.items()
        if arms or study != "policies" or variant == kinds[0] or name in MAIN
    ]
    start = time.monotonic()
    run_jobs(rows, wanted, partial(run, samples=samples, epochs=epochs, study=study), jobs, console)
    console.print(f"{time.monotonic() - start:.0f} s", highlight=False)
    panels = {kind: rows.of(job for job in wanted if job.variant == kind) for kind in kinds}
    report(out, panels, "accuracy", list(chosen), Console(width=120))


if __name__ == "__main__":
    main()
