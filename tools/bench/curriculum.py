"""Decode time per resolution of EfficientTrain: the photos, and the same at four times their width.

python tools/bench/curriculum.py [--runs 5] [--photos 1000]

CPU time of one thread, in process, which other programs disturb least; `center` crops but for the last column. Beside
it the same squares made the long way: the whole JPEG decoded, then resized. The last line of each table weighs the
stages by their shares of a run's samples.
"""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import WORK, consume, corpus, median_ratio, show, warm
from PIL import Image

from seta_stream import EfficientTrain, Reading, SetaStream
from seta_stream.demo.shards import Sample, write_shard
from seta_stream.read.curriculum import middle
from seta_stream.read.images import dct_scale

SIDES = (96, 160, 224)
LARGE = (2000, 1500)
LARGE_PHOTOS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--photos", type=int, default=1_000, help="rounded up to whole shards of 500")
    arguments = parser.parse_args()
    shards = corpus("photos")[: -(-arguments.photos // 500)]
    warm(shards)
    measure("500 × 375, 79 KB", (500, 375), shards, 500 * len(shards), arguments.runs)
    large = [enlarged(shards[0])]
    warm(large)
    measure(f"{LARGE[0]} × {LARGE[1]}", LARGE, large, LARGE_PHOTOS, arguments.runs)


def enlarged(shard: str) -> str:
    """Return a shard of the first photos at four times their width, made on first use."""
    path = WORK / "photos-large" / "large-000000.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        photos = itertools.islice(SetaStream(shard, shuffle=False, decode="pil"), LARGE_PHOTOS)
        write_shard(path, (Sample(f"{n:06d}", (("jpg", enlarge(photo["jpg"])),)) for n, photo in enumerate(photos)))
    return str(path)


def enlarge(photo: Image.Image) -> bytes:
    file = io.BytesIO()
    photo.resize(LARGE, Image.Resampling.LANCZOS).save(file, "JPEG", quality=85)
    return file.getvalue()


def the_long_way(side: int) -> Callable[[str, bytes], Any]:
    """Return a decoder that makes the same square from the whole picture."""

    def decode(_field: str, data: bytes) -> Any:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
        return np.array(image.resize((side, side), Image.Resampling.BICUBIC, middle(*image.size)))

    return decode


def measure(title: str, size: tuple[int, int], shards: list[str], count: int, runs: int) -> None:
    """Time every way of decoding, in turn, and print them."""

    def work(decode: Any) -> Callable[[], object]:
        stream = SetaStream(shards, shuffle=False, decode=decode, fields=("jpg",), read=Reading(decode_threads=0))
        return lambda: consume(stream)

    def staged(side: int, crop: Any) -> EfficientTrain:
        return EfficientTrain(num_epochs=1, stages=[(side, 0)], crop=crop)

    works = {"whole": work("rgb8")}
    for side in SIDES:
        works[f"{side}"] = work(staged(side, "center"))
        works[f"{side} long"] = work(the_long_way(side))
        works[f"{side} random"] = work(staged(side, "random-resized"))
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, run_once in works.items():
            begin = time.process_time()
            run_once()
            times[name].append(time.process_time() - begin)
    milliseconds = {name: 1000 * statistics.median(seen) / count for name, seen in times.items()}
    full = times[f"{SIDES[-1]}"]
    rows = [
        [
            f"{side} × {side}",
            f"1/{dct_scale(middle(*size), side)}",
            f"{milliseconds[f'{side}']:.2f}",
            f"{median_ratio(times[f'{side}'], full):.2f}",
            f"{median_ratio(times[f'{side}'], times[f'{side} long']):.2f}",
            f"{median_ratio(times[f'{side}'], times['whole']):.2f}",
            f"{milliseconds[f'{side} random']:.2f}",
        ]
        for side in SIDES
    ]
    columns = [
        "stage",
        "DCT",
        "CPU ms",
        "× stage 224",
        "× decoded whole, resized",
        "× rgb8, not resized",
        "random, ms",
    ]
    show(f"Photos of {title}, {count:,} of them; decode='rgb8' takes {milliseconds['whole']:.2f} ms", columns, rows)
    curriculum = EfficientTrain()
    places = (np.arange(10_000) + 0.5) / 10_000
    sides = [curriculum.stage(place).resolution for place in places.tolist()]
    run = statistics.mean(milliseconds[f"{side}"] for side in sides)
    print(
        f"a run of the published stages: {run:.2f} ms per photo, {run / milliseconds['224']:.2f} of a run at 224, "
        f"{run / milliseconds['224 long']:.2f} of one at 224 decoded whole; {curriculum.relative_compute:.2f} of its "
        "compute\n"
    )


if __name__ == "__main__":
    main()
