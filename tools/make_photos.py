"""Makes a corpus of photos as WebDataset shards: 500 x 375 JPEGs of 60 to 100 KB with class numbers.

Example:
    python tools/make_photos.py --samples 6000 --shard-samples 500 --out /tmp/photos
"""

from __future__ import annotations

from pathlib import Path

import click

from seta_stream.demo.extras import require
from seta_stream.demo.makers import corpus_options, run_maker
from seta_stream.demo.photos import PhotoMaker


@click.command(epilog="Example: python tools/make_photos.py --samples 6000 --shard-samples 500 --out /tmp/photos")
@corpus_options(samples=6_000, shard_samples=500)
@click.option("--classes", default=1000, show_default=True, type=click.IntRange(1), help="How many different labels.")
def main(
    *, samples: int, shard_samples: int, out: Path, seed: int, jobs: int | None, progress: bool, classes: int
) -> None:
    """Make photos: `.jpg` and `.cls` per sample."""

    def build() -> PhotoMaker:
        require("Painting photos", "PIL")
        return PhotoMaker(samples, seed, classes)

    run_maker(build, out, shard_samples, jobs, progress=progress)


if __name__ == "__main__":
    main()
