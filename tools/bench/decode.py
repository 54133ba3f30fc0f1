"""Decoded photos: one thread, two threads, and a torch DataLoader with two workers around webdataset.

python tools/bench/decode.py [--runs 3]
"""

from __future__ import annotations

import argparse
import statistics
import warnings

from _common import CORPORA, consume, corpus, median_ratio, paired, show, warm

from seta_stream import Reading, SetaStream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import webdataset
    from torch.utils.data import DataLoader

    shards = corpus("photos")
    warm(shards)
    count = CORPORA["photos"][0]

    def ours(threads: int) -> SetaStream:
        return SetaStream(shards, shuffle=False, decode="rgb8", read=Reading(decode_threads=threads))

    def loader() -> object:
        dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("jpg", "cls")
        return DataLoader(dataset, batch_size=None, num_workers=2)

    streams = {threads: ours(threads) for threads in (0, 1, 2)}
    works = {
        **{f"seta_stream, decode_threads={n}": lambda s=s: consume(s) for n, s in streams.items()},
        "DataLoader, 2 workers, webdataset": lambda: consume(loader()),
    }
    times = paired(works, arguments.runs)
    two = times["seta_stream, decode_threads=2"]
    rows = [
        [what, f"{count / statistics.median(seen):,.0f}", f"{median_ratio(seen, two):.2f}"]
        for what, seen in times.items()
    ]
    show(
        "Decoded photos, uint8 arrays (to hold: two threads ≥ 1.7 × one, ≥ 2.2 × DataLoader)",
        ["loader", "samples/s", "two threads are × this"],
        rows,
    )


if __name__ == "__main__":
    main()
