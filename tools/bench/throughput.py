"""Full epochs, raw bytes, one process, warm cache: ours, webdataset and LitData, samples per second in one run.

    python tools/bench/throughput.py [--runs 3] [--only words]

LitData reads its own converted copy of the same samples. Ratios are medians of paired runs.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
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


def _samples(shard: str):  # noqa: ANN202
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
        works = {
            "seta_stream": lambda plain=plain: _check(consume(plain), count),
            "seta_stream, shuffled": lambda shuffled=shuffled: _check(consume(shuffled), count),
            "webdataset": lambda shards=shards: _check(
                consume(webdataset.WebDataset(shards, shardshuffle=False)), count
            ),
        }
        if not arguments.no_litdata:
            copy = litdata_copy(name, shards)
            warm([str(path) for path in copy.glob("*.bin")])
            works["LitData"] = partial(_litdata, StreamingDataset, str(copy), count)
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
        title = f"{name}: {count:,} samples, medians of {arguments.runs} (to hold: {NEEDED[name]} × webdataset, 1.2 × LitData)"
        show(title, ["loader", "samples/s", "× webdataset", "× LitData"], rows)


def _litdata(dataset: type, folder: str, count: int) -> None:
    _check(consume(dataset(folder, shuffle=False)), count)


def _check(found: int, expected: int) -> None:
    assert found == expected, (found, expected)


if __name__ == "__main__":
    main()
