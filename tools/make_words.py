"""Makes a corpus of word images as WebDataset shards: small JPEGs with their text, repeats and wrong labels among them.

Example:
    python tools/make_words.py --samples 100000 --shard-samples 10000 --out /tmp/words
"""

from __future__ import annotations

from pathlib import Path

import click

from seta_stream.demo.extras import require
from seta_stream.demo.fonts import find_fonts
from seta_stream.demo.lexicon import Lexicon
from seta_stream.demo.makers import corpus_options, run_maker
from seta_stream.demo.words import WordMaker


@click.command(epilog="Example: python tools/make_words.py --samples 100000 --shard-samples 10000 --out /tmp/words")
@corpus_options(samples=100_000, shard_samples=10_000)
@click.option("--fonts", type=click.Path(exists=True, file_okay=False), help="A folder with more fonts.")
@click.option(
    "--words", type=click.Path(exists=True, dir_okay=False), help="A list, one word a line, frequent ones first."
)
@click.option("--vocabulary", default=20_000, show_default=True, help="How many different words.")
@click.option(
    "--zipf", default=0.7, show_default=True, type=click.FloatRange(0), help="0: all words alike; 1: Zipf's law."
)
@click.option("--repeats", default=0.5, show_default=True, type=click.FloatRange(0, 1), help="Share of near-copies.")
@click.option("--wrong", default=0.03, show_default=True, type=click.FloatRange(0, 1), help="Share of wrong labels.")
@click.option("--meta", is_flag=True, help="Add a json member: font, repeat, wrong, and what the picture shows.")
def main(
    *,
    samples: int,
    shard_samples: int,
    out: Path,
    seed: int,
    jobs: int | None,
    progress: bool,
    fonts: str | None,
    words: str | None,
    vocabulary: int,
    zipf: float,
    repeats: float,
    wrong: float,
    meta: bool,
) -> None:
    """Make word images: grey JPEGs of 96 x 32 pixels and about 2 KB, with `.txt` labels."""

    def build() -> WordMaker:
        require("Rendering words", "PIL", "matplotlib")
        lexicon = Lexicon(seed, vocabulary, file=words)
        return WordMaker(samples, seed, lexicon, find_fonts(fonts), zipf, repeats, wrong, meta)

    run_maker(build, out, shard_samples, jobs, progress=progress)


if __name__ == "__main__":
    main()
