"""Makes a corpus of captions as WebDataset shards: about 100 bytes of text and as much json per sample.

Example:
    python tools/make_captions.py --samples 300000 --shard-samples 20000 --out /tmp/captions
"""

from __future__ import annotations

from pathlib import Path

import click

from seta_stream.demo.captions import CaptionMaker
from seta_stream.demo.makers import corpus_options, run_maker


@click.command(
    epilog="Example: python tools/make_captions.py --samples 300000 --shard-samples 20000 --out /tmp/captions"
)
@corpus_options(samples=300_000, shard_samples=20_000)
def main(*, samples: int, shard_samples: int, out: Path, seed: int, jobs: int | None, progress: bool) -> None:
    """Make captions: a `.txt` of about 100 bytes and a `.json` of about 105 per sample."""
    run_maker(lambda: CaptionMaker(samples, seed), out, shard_samples, jobs, progress=progress)


if __name__ == "__main__":
    main()
