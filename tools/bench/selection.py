"""Measure a whole selection: losses to histogram, k-means, rule and all masks; seconds and memory above the table.

Run: python tools/bench/selection.py [--samples 15000000]. Each figure is the median of rounds that take each part in
turn; the budget for 15M samples is 1 s and 200 MB. Importing scikit-learn (about a second, once per process) is
measured apart. Memory is the peak of the resident set over what it was with the table alone.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from typing import Any

import numpy as np

from seta_stream.losses.histogram import Histogram, round_losses
from seta_stream.losses.table import LossTable
from seta_stream.policies import SeTa, kmeans, select

ROUNDS = 7


def table_of(samples: int, shard: int) -> LossTable:
    """Exponential losses, a tenth of them never seen."""
    rng = np.random.default_rng(0)
    table = LossTable(np.full(samples // shard, shard))
    for start in range(0, table.total, 1 << 20):
        part = table.values[start : start + (1 << 20)]
        part[:] = round_losses(rng.standard_exponential(len(part), np.float32))
        part[rng.random(len(part), np.float32) < 0.1] = np.nan
    return table


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_round(table: LossTable, policy: SeTa, epoch: int) -> dict[str, float]:
    marks = [time.perf_counter()]
    histogram = table.histogram()
    marks.append(time.perf_counter())
    kmeans(histogram, policy.num_group)
    marks.append(time.perf_counter())
    rule = policy.rule(histogram, epoch)
    marks.append(time.perf_counter())
    mask, _ = select(rule, table.values, table.first_id, seed=0, epoch=epoch)
    marks.append(time.perf_counter())
    assert 0 < mask.mean() < 1
    names = ("histogram", "k-means alone", "rule (with k-means)", "masks")
    parts = {name: stop - start for name, start, stop in zip(names, marks[:-1], marks[1:], strict=True)}
    return parts | {"all": marks[-1] - marks[0] - parts["k-means alone"]}


def imports_s() -> float:
    start = time.perf_counter()
    import sklearn.cluster

    assert sklearn.cluster
    kmeans(Histogram.of(np.arange(100, dtype=np.float32)), 5)
    return time.perf_counter() - start


def measure(samples: int, shard: int, policy: SeTa) -> None:
    table = table_of(samples, shard)
    before = peak_mb()
    rounds = [one_round(table, policy, 3) for _ in range(ROUNDS)]
    told: dict[str, Any] = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    print(f"{table.total:,} samples in {table.shards:,} shards, {policy.num_group} groups:")
    print("  " + "; ".join(f"{name} {seconds:.3f} s" for name, seconds in told.items()))
    print(f"  at most {peak_mb() - before:.0f} MB above the table ({table.values.nbytes >> 20} MB losses)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=15_000_000)
    parser.add_argument("--shard", type=int, default=100_000)
    parser.add_argument("--groups", type=int, default=5)
    arguments = parser.parse_args()
    print(f"importing scikit-learn and its first k-means: {imports_s():.2f} s, not counted below")
    measure(arguments.samples, arguments.shard, SeTa(90, target=0.5, num_group=arguments.groups))


if __name__ == "__main__":
    main()
