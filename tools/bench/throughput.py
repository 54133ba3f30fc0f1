"""Full epochs, raw bytes, one process, warm cache: ours, webdataset and LitData, samples per second in one run.

    python tools/bench/throughput.py [--runs 3] [--only words]

LitData reads its own converted copy of the same samples; the views that it gives are made bytes, which is when they
are read (the last row leaves them untouched). Ratios are medians of paired runs.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from _common import CORPORA, WORK, consume, corpus, median_ratio, paired, show, warm

from seta_stream import SetaStream

NEEDED = {"captions": 25, "words": 15, "photos": 5}


def litdata_copy(name: str, shards: list[str]) -> Path:
    """Return a folder with the corpus in LitData's format: one dict of bytes per sample."""
    from litdata import optimize

    folder = WORK / f"litdata-{name}"
    if not (folder / "index.json").exists():
        optimize(fn=_samples, inputs=shards, output_dir=str(folder), chunk_bytes="64MB", num_workers=1)
    return folder


def _samples(shard: str):
    for sample in SetaStream([shard], shuffle=False):
        yield {field: value for field, value in sample.items() if not field.startswith("__")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=CORPORA)
    parser.add_argument("--no-litdata", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import webdataset
    from litdata import StreamingDataset

    for name in [arguments.only] if arguments.only else CORPORA:
        shards = corpus(name)
        warm(shards)
        count = CORPORA[name][0]
        plain = SetaStream(shards, shuffle=False)
        shuffled = SetaStream(shards)
        theirs = partial(webdataset.WebDataset, shards, shardshuffle=False)
        works = {
            "seta_stream": partial(_epoch, lambda stream=plain: stream, count),
            "seta_stream, shuffled": partial(_epoch, lambda stream=shuffled: stream, count),
            "webdataset": partial(_epoch, theirs, count),
        }
        if not arguments.no_litdata:
            copy = litdata_copy(name, shards)
            warm([str(path) for path in copy.glob("*.bin")])
            views = partial(StreamingDataset, str(copy), shuffle=False)
            works["LitData"] = partial(_epoch, lambda views=views: map(_as_bytes, views()), count)
            works["LitData, bytes untouched"] = partial(_epoch, views, count)
        times = paired(works, arguments.runs)
        rows = [
            [
                what,
                f"{count / statistics.median(seen):,.0f}",
                f"{median_ratio(times['webdataset'], seen):.1f}",
                f"{median_ratio(times['LitData'], seen):.2f}" if "LitData" in times else "",
            ]
            for what, seen in times.items()
        ]
        hold = f"to hold: {NEEDED[name]} × webdataset, 1.2 × LitData"
        title = f"{name}: {count:,} samples, medians of {arguments.runs} ({hold})"
        show(title, ["loader", "samples/s", "× webdataset", "× LitData"], rows)


def _as_bytes(sample: dict[str, object]) -> dict[str, bytes]:
    """Return what every other loader here gives: LitData 0.2.76 gives views of a memory map, and reads nothing."""
    return {field: bytes(value) for field, value in sample.items()}


def _epoch(make: Callable[[], Iterable[object]], expected: int) -> None:
    """Iterate once and check that nothing is missing."""
    found = consume(make())
    assert found == expected, (found, expected)


if __name__ == "__main__":
    main()
