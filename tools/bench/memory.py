"""A stream over 3M samples: anonymous memory above its imports, and time to the first sample.

    python tools/bench/memory.py

The corpus is one shard of 10,000 captions under 300 names (hard links), indexed ahead; default settings. Memory is
what the kernel counts as anonymous (/proc/self/status RssAnon) at its highest over an epoch of a third of a million
samples.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

from _common import ROOT, WORK, corpus, show

SHARDS = 300


def anonymous_bytes() -> int:
    """Return this process's anonymous memory."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


def measure(pattern: str, state: str, *, shuffle: bool) -> None:
    """Print seconds to the first sample, and peak bytes above the imports."""
    import numpy as np
    import sklearn.cluster  # noqa: F401  (k-means is an import of SeTa's)

    from seta_stream import SeTa, SetaStream
    from seta_stream.losses.table import LossTable

    LossTable([1]).record([0], [1.0])
    base = anonymous_bytes()
    begin = time.perf_counter()
    stream = SetaStream(pattern, policy=SeTa(num_epochs=9), state=state or None, shuffle=shuffle)
    samples = iter(stream)
    next(samples)
    first = time.perf_counter() - begin
    peak = anonymous_bytes()
    for number, _ in enumerate(itertools.islice(samples, 300_000)):
        if number % 2000 == 0:
            peak = max(peak, anonymous_bytes())
    samples = None
    for start in range(0, 3_000_000, 100_000):
        stream.record(np.arange(start, start + 100_000), np.random.default_rng(start).exponential(size=100_000))
    stream.set_epoch(1)
    peak = max(peak, anonymous_bytes())
    print(first, peak - base)
    stream.close()


def main() -> None:
    folder = WORK / "three-million"
    folder.mkdir(parents=True, exist_ok=True)
    source = corpus("captions")[0]
    for number in range(SHARDS):
        path = folder / f"captions-{number:06d}.tar"
        if not path.exists():
            os.link(source, path)
    pattern = str(folder / f"captions-{{000000..{SHARDS - 1:06d}}}.tar")
    subprocess.run([sys.executable, "-m", "seta_stream.cli", "index", pattern], check=True, capture_output=True)
    rows = []
    for shuffle in (True, False):
        code = f"import sys; sys.path[:0] = [{str(ROOT / 'tools/bench')!r}]; from memory import measure; "
        command = [sys.executable, "-c", f"{code} measure({pattern!r}, '', shuffle={shuffle})"]
        first, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        rows.append([f"shuffle={shuffle}", f"{float(first):.2f}", f"{int(peak) / 1e6:.0f}"])
    show(
        "3M samples in 300 shards (to hold: first sample < 1.5 s, ≤ 120 MB)",
        ["stream", "first sample, s", "anonymous MB above imports"],
        rows,
    )


if __name__ == "__main__":
    main()
