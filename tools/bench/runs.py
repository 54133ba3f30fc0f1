"""Count what deciding in runs reads: requests and bytes of half an epoch, by the real plan and spans, with no network.

Run: python tools/bench/runs.py [--selection]. Words of 3 KB and captions of 2 KB (100 bytes, two members) in shards of
10,000 and 50,000, half selected by `DynamicRandom(0.5)` and by `SeTa(target=0.5, warm=True)` (the mean of its three
windows). Repacked: the samples of each shard lie in the order of losses whose rank correlation with those that decide
is given. With --selection: seconds and memory of a whole selection of 15M samples, for each sample and by runs.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seta_stream.losses.columns import LOSS
from seta_stream.losses.histogram import round_losses
from seta_stream.losses.table import LossTable
from seta_stream.policies import DynamicRandom, SeTa
from seta_stream.policies.deciding import apply, decide
from seta_stream.policies.policy import Policy
from seta_stream.policies.runs import EACH, Runs
from seta_stream.read.options import Reading
from seta_stream.report.losscurves import Population, synthetic_curves
from seta_stream.report.readcosts import CorpusShape, ReadCosts, ReadModel

POLICIES = {"random": DynamicRandom(0.5), "SeTa": SeTa(90, target=0.5, warm=True)}
EPOCHS = (3, 4, 5)
BATCH, ROUNDS = 256, 5
KIB = 1 << 10


@dataclass(frozen=True)
class Kind:
    """A corpus of samples of one size."""

    name: str
    sample_bytes: int
    shards: int
    per_shard: int


KINDS = (Kind("words", 3 * KIB, 24, 10_000), Kind("captions", 2 * KIB, 6, 50_000))


@dataclass(frozen=True)
class Way:
    """How samples are decided together, and how they lie.

    Attributes:
        told: in words.
        unit, run_bytes: as a stream takes them.
        correlation: of the losses by which shards were repacked with those of now; None: as they came.
    """

    told: str
    unit: str = "sample"
    run_bytes: int = 0
    correlation: float | None = None


def ways() -> Iterator[Way]:
    """Yield the rows of the table."""
    yield Way("each sample")
    yield Way("each sample, repacked 0.9", correlation=0.9)
    sizes = {64 * KIB: "64 KiB", 256 * KIB: "256 KiB", 1024 * KIB: "1 MiB"}
    for run_bytes, size in sizes.items():
        yield Way(f"draws for {size}", run_bytes=run_bytes)
    for correlation in (None, 0.9, 0.7):
        for run_bytes, size in sizes.items():
            how = "" if correlation is None else f", repacked {correlation}"
            yield Way(f"runs of {size}{how}", "run", run_bytes, correlation)


def losses_of(kind: Kind, way: Way) -> NDArray[np.float32]:
    """Return the losses of now, as the samples lie in their shards."""
    population = Population(kind.shards * kind.per_shard, 0.9 if way.correlation is None else way.correlation)
    curve = synthetic_curves("exponential", 2)[0]
    now = population.losses(curve, 1)
    if way.correlation is None:
        return now
    shard = np.repeat(np.arange(kind.shards), kind.per_shard)
    return now[np.lexsort((population.losses(curve, 0), shard))]


def row(kind: Kind, policy: Policy, way: Way) -> list[str]:
    """Return a line of the table, the mean over some epochs."""
    corpus = CorpusShape.even([kind.per_shard] * kind.shards, kind.sample_bytes)
    sketch = corpus.sketch(corpus.total)
    reading = Reading()
    model = ReadModel(reading.max_waste, reading.max_span_bytes, None, reading.prefetch_bytes // 2, BATCH)
    costs = ReadCosts(corpus, sketch, model, 0, probe_samples=corpus.total)
    table = LossTable(sketch.samples)
    table.record(np.arange(corpus.total), losses_of(kind, way))
    values, runs = table.remembered(), Runs.of(way.unit, way.run_bytes, kind.sample_bytes)
    shares, requests, fetched = [], [], []
    for epoch in EPOCHS:
        rule = decide(policy, values, epoch, first_id=sketch.first_id, runs=runs).rule
        mask, _ = apply(policy, rule, values, sketch.first_id, seed=0, epoch=epoch, runs=runs)
        cost = costs.of(mask, epoch)
        shares.append(mask.mean())
        requests.append(cost.requests)
        fetched.append(cost.bytes)
    share, asked, got = (statistics.fmean(map(float, one)) for one in (shares, requests, fetched))
    whole = costs.of(np.ones(corpus.total, np.bool_), 0)
    return [
        f"{share:.1%}",
        f"{1e6 * asked / corpus.total:,.0f}",
        f"{asked / whole.requests:.1f} ×",
        f"{got / asked / KIB:,.0f}",
        f"{got / (share * corpus.total * kind.sample_bytes):.3f}",
        f"{got / whole.bytes:.3f}",
    ]


def table() -> None:
    """Print what each way reads."""
    headings = ("kept", "requests per 1M samples", "of a full epoch", "KiB each", "fetched / needed", "of a full epoch")
    for kind in KINDS:
        for name, policy in POLICIES.items():
            print(f"\n{kind.name}, {name}\n\n| decided | samples per run | {' | '.join(headings)} |")
            print("| --- |" + " ---: |" * (len(headings) + 1))
            for way in ways():
                if name == "random" and (way.unit == "run" or way.correlation is not None):
                    continue  # losses play no part: as the draws
                length = Runs.of(way.unit, way.run_bytes, kind.sample_bytes).length
                print(f"| {way.told} | {length} | {' | '.join(row(kind, policy, way))} |", flush=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB


def selection(samples: int = 15_000_000, shard: int = 100_000) -> None:
    """Print what a whole selection takes: scores, histogram, k-means, rule and masks."""
    rng = np.random.default_rng(0)
    table = LossTable(np.full(samples // shard, shard))
    for start in range(0, table.total, 1 << 20):
        part = table.values[start : start + (1 << 20)]
        part[:] = round_losses(rng.standard_exponential(len(part), np.float32))
        part[rng.random(len(part), np.float32) < 0.1] = np.nan
    values, first_id, policy = table.remembered(), table.first_id, SeTa(90, target=0.5)
    small = {LOSS: values[LOSS][:1000], **{name: column[:1000] for name, column in values.items() if name != LOSS}}
    decide(policy, small, 3)  # imports scikit-learn
    for runs in (EACH, Runs("sample", 1, 85), Runs("run", 1, 85)):
        seconds = []
        gc.collect()
        before = peak_mb()
        for _ in range(ROUNDS):
            start_s = time.perf_counter()
            made = decide(policy, values, 3, first_id=first_id, runs=runs)
            apply(policy, made.rule, values, first_id, seed=0, epoch=3, runs=runs, scores=made.scores)
            seconds.append(time.perf_counter() - start_s)
            del made
        grown = peak_mb() - before
        told = f"{runs.unit}s, runs of {runs.length}"
        print(f"{told}: {statistics.median(seconds):.3f} s (fastest {min(seconds):.3f}), {grown:.0f} MB more at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--selection", action="store_true", help="time and memory of a selection instead")
    if parser.parse_args().selection:
        selection()
    else:
        table()


if __name__ == "__main__":
    main()
