"""Half of the samples, drawn at random, against the same stream's full epoch: bytes, kernel's bytes, wall.

    python tools/bench/half.py [--runs 3] [--only photos]

Bytes: fetched by needed, and the kernel's own count (/proc/self/io, cold cache) by needed and by the whole corpus.
Wall: warm cache, raw and decoded (text as text, JPEGs by Pillow), unshuffled and shuffled; medians of paired runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from _common import CORPORA, consume, corpus, drop_cache, kernel_read_bytes, median_ratio, paired, show, warm

from seta_stream import DynamicRandom, SetaStream


def cold(name: str, *, half: bool) -> None:
    """Print needed, fetched, read by the kernel, and all bytes of one cold epoch (run in a process of its own)."""
    shards = corpus(name)
    stream = SetaStream(shards, policy=DynamicRandom(prune_ratio=0.5) if half else DynamicRandom(prune_ratio=0.0))
    stream.set_epoch(1)
    drop_cache(shards)
    before = kernel_read_bytes()
    consume(stream)
    stats = stream.stats
    print(stats.bytes_needed, stats.bytes_fetched, kernel_read_bytes() - before, stats.bytes_total, stats.requests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=CORPORA)
    parser.add_argument("--cold", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cold:
        cold(arguments.cold, half=True)
        return
    rows_bytes, rows_wall = [], []
    for name in [arguments.only] if arguments.only else CORPORA:
        command = [sys.executable, __file__, "--cold", name]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        needed, fetched, kernel, everything, requests = map(int, out)
        rows_bytes.append(
            [
                name,
                f"{needed / 1e6:,.0f}",
                f"{fetched / needed:.3f}",
                f"{kernel / needed:.3f}",
                f"{kernel / everything:.3f}",
                f"{requests:,}",
            ]
        )
        shards = corpus(name)
        warm(shards)
        row = [name]
        for decode in (None, "pil"):
            for shuffle in (False, True):
                both = {
                    share: SetaStream(shards, policy=DynamicRandom(prune_ratio=share), shuffle=shuffle, decode=decode)
                    for share in (0.0, 0.5)
                }
                for stream in both.values():
                    stream.set_epoch(1)
                    consume(stream)
                times = paired(
                    {str(share): lambda stream=stream: consume(stream) for share, stream in both.items()},
                    arguments.runs,
                )
                row.append(f"{median_ratio(times['0.5'], times['0.0']):.3f}")
        rows_wall.append(row)
    show(
        "Half of the samples, bytes (to hold: fetched ≤ 1.053, photos by the kernel ≤ 1.06)",
        ["corpus", "needed MB", "fetched / needed", "kernel / needed", "kernel / all", "requests"],
        rows_bytes,
    )
    show(
        "Half against full, wall (to hold: raw ≤ 0.60, captions ≤ 0.75; decoded ≤ 0.55)",
        ["corpus", "raw", "raw, shuffled", "decoded", "decoded, shuffled"],
        rows_wall,
    )


if __name__ == "__main__":
    main()
