"""Small samples on a bucket with the local cache: bucket bytes, hit rates, and the clock against a local corpus.

    python tools/bench/bucket_cache.py                 # words and captions over nginx
    python tools/bench/bucket_cache.py --blocks        # what a pruned first epoch fetches, by the size of a block
    python tools/bench/bucket_cache.py --machines      # caches of 2 and 8 simulated machines

The server is nginx on this machine; what it sent is its own count. Epochs of the cached stream and of a local one are
timed in turn, so that noise meets both alike; the first epoch of a second run compares all checksums once.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from _common import WORK, consume, corpus, median_ratio, seconds, show, warm
from bucket_machines import SELECTIONS, Simulated, hit_rates
from bucket_server import PROFILES, Bucket, serving

from seta_stream import DynamicRandom, Full, SetaStream

EPOCHS = 7
MIB = 1 << 20


Took = tuple[float, float]
"""Seconds of an epoch: on the clock, and of the processor."""


def one_epoch(stream: SetaStream, epoch: int) -> Took:
    """Read an epoch; return its seconds."""
    stream.set_epoch(epoch)
    before = time.process_time()
    wall = seconds(lambda: consume(stream))
    return wall, time.process_time() - before


def served(bucket: Bucket) -> int:
    """Return the bytes of shards that were sent since the last call; looks at versions ask for one byte each."""
    count = bucket.count()
    return max(0, count.shard_bytes - count.shard_requests) if count.shard_bytes < 1000 else count.shard_bytes


def in_turn(cached: SetaStream, local: SetaStream, first: int) -> tuple[list[Took], list[Took]]:
    """Return the seconds of epochs of both streams, each in turn."""
    pairs = [(one_epoch(cached, epoch), one_epoch(local, epoch)) for epoch in range(first, first + EPOCHS)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


@contextmanager
def streams(urls: list[str], shards: list[str], folder: str, *, half: bool) -> Iterator[tuple[SetaStream, SetaStream]]:
    """Open a cached stream over a bucket and one over the same shards on disk."""
    policy = DynamicRandom(0.5) if half else Full()
    with (
        SetaStream(urls, policy=policy, batch_size=256, cache=folder) as cached,
        SetaStream(shards, policy=policy, batch_size=256) as local,
    ):
        yield cached, local


def measure(name: str, profile: str) -> list[list[str]]:
    """Return the rows of one corpus."""
    shards = corpus(name)
    warm(shards)
    rows = []
    with serving(WORK / name, PROFILES[profile]) as bucket, tempfile.TemporaryDirectory(dir=WORK) as folder:
        urls = [f"{bucket.url}/{Path(shard).name}" for shard in shards]
        with streams(urls, shards, folder, half=False) as (cached, local):
            served(bucket)
            took, beside = one_epoch(cached, 0), one_epoch(local, 0)
            rows.append(_row(name, "epoch 0, full", [took], [beside], served(bucket), cached))
            rows.append(_row(name, "epochs 1 …, full", *in_turn(cached, local, 1), served(bucket), cached))
        with streams(urls, shards, folder, half=True) as (cached, local):
            served(bucket)
            took, beside = one_epoch(cached, 0), one_epoch(local, 0)
            rows.append(_row(name, "a new run's first half epoch", [took], [beside], served(bucket), cached))
            rows.append(_row(name, "its later half epochs", *in_turn(cached, local, 1), served(bucket), cached))
        shutil.rmtree(Path(folder) / "seta-cache-1")
        with streams(urls, shards, folder, half=True) as (cached, local):
            served(bucket)
            took, beside = one_epoch(cached, 0), one_epoch(local, 0)
            rows.append(_row(name, "epoch 0, half", [took], [beside], served(bucket), cached))
            rows.append(_row(name, "epochs 1 …, half", *in_turn(cached, local, 1), served(bucket), cached))
    return rows


def _row(name: str, what: str, cached: list[Took], local: list[Took], sent: int, stream: SetaStream) -> list[str]:
    stats = stream.stats
    (wall, cpu), (wall_beside, cpu_beside) = (zip(*took, strict=True) for took in (cached, local))
    return [
        name,
        what,
        f"{np.median(wall):.3f}",
        f"{np.median(wall_beside):.3f}",
        f"{median_ratio(list(wall), list(wall_beside)):.2f}",
        f"{median_ratio(list(cpu), list(cpu_beside)):.2f}",
        f"{sent / MIB:.1f}",
        f"{stats.bytes_total / MIB:.1f}",
        f"{stats.cache_hit_rate:.4f}",
    ]


def machines() -> list[list[str]]:
    """Return hit rates of simulated machines."""
    rows = []
    for shards in (100, 150, 1000, 1500):
        for spread in (0.0, 0.5):
            simulated = Simulated.of(shards, 1000, 2500, spread=spread)
            for count in (2, 8):
                for name, select in SELECTIONS.items():
                    rates = list(hit_rates(simulated, count, select))[1:]
                    whole, worst = [100 * rate for rate, _ in rates], [100 * rate for _, rate in rates]
                    facts = (whole[0], min(whole), whole[-1], min(worst))
                    rows.append([str(shards), f"{spread:g}", str(count), name, *(f"{value:.2f}" for value in facts)])
    return rows


def blocks() -> list[list[str]]:
    """Return the share of bytes that a first epoch fetches, by the size of a block and the share selected."""
    rows = []
    for name, mean, samples in (("captions", 100, 10_000), ("words", 2500, 5000), ("photos", 100_000, 500)):
        simulated = Simulated.of(12, samples, mean)
        for block_bytes in (256 << 10, 1 << 20, 4 << 20):
            first, last, count = simulated.blocks(block_bytes)
            shares = []
            for keep in (0.5, 0.1, 0.02):
                mask = np.random.default_rng(1).random(len(simulated.sizes)) < keep
                fetched = np.zeros(count, bool)
                fetched[first[mask]] = fetched[last[mask]] = True
                shares.append(f"{min(1.0, fetched.sum() * block_bytes / simulated.sizes.sum()):.3f}")
            rows.append([name, f"{block_bytes >> 10} KiB", *shares])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--machines", action="store_true", help="simulate the caches of several machines")
    parser.add_argument("--blocks", action="store_true", help="what a pruned first epoch fetches")
    parser.add_argument("--profile", choices=PROFILES, default="latency", help="how the server answers")
    parser.add_argument("--corpora", nargs="+", default=["words", "captions"])
    options = parser.parse_args()
    if options.machines:
        columns = ["shards", "sizes ±", "machines", "selected", "epoch 1 %", "lowest %", "epoch 9 %", "worst machine %"]
        show("Hits by bytes, from epoch 1 on", columns, machines())
    elif options.blocks:
        show("Bytes fetched by a first epoch, of all", ["corpus", "block", "half", "a tenth", "a fiftieth"], blocks())
    else:
        columns = [
            "corpus",
            "epochs",
            "cached s",
            "local s",
            "ratio",
            "cpu ratio",
            "bucket MiB",
            "corpus MiB",
            "hit rate",
        ]
        rows = [row for name in options.corpora for row in measure(name, options.profile)]
        show(f"Cache over nginx: {PROFILES[options.profile]}", columns, rows)


if __name__ == "__main__":
    main()
