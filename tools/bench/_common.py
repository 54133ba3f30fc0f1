"""What the benchmarks share: the three corpora, paired runs, and a table."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
WORK = Path(os.environ.get("SETA_BENCH_FOLDER", "/tmp/seta-bench"))
CORPORA = {"captions": (300_000, 10_000), "words": (100_000, 5_000), "photos": (6_000, 500)}
"""Name → (samples, samples per shard)."""


def corpus(name: str) -> list[str]:
    """Return the shards of one of the three corpora, made on first use by tools/make_*.py, and indexed."""
    samples, per_shard = CORPORA[name]
    folder = WORK / name
    command = [sys.executable, str(ROOT / "tools" / f"make_{name}.py"), "--samples", str(samples), "--no-progress"]
    subprocess.run([*command, "--shard-samples", str(per_shard), "--out", str(folder)], check=True, capture_output=True)
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    subprocess.run([sys.executable, "-m", "seta_stream.cli", "index", *shards], check=True, capture_output=True)
    return shards


def consume(samples: Iterable[object]) -> int:
    """Iterate and drop; return how many there were."""
    return sum(1 for _ in samples)


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    gc.collect()
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def paired(works: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Time each work once per run, in turn, so that noise meets all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times


def median_ratio(over: list[float], under: list[float]) -> float:
    """Return the median of the paired ratios over / under."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def warm(shards: list[str]) -> None:
    """Read every shard once, so that the page cache holds it."""
    for shard in shards:
        with open(shard, "rb") as file:
            while file.read(1 << 24):
                pass


def drop_cache(paths: list[str]) -> None:
    """Take files out of the page cache."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def kernel_read_bytes() -> int:
    """Return the bytes that the kernel has fetched from the disk for this process."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)
