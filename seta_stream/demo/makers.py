"""What the three corpus tools share: their common options, and the line at the end.

Takes a maker and options; prints the brace pattern on stdout. Effects: those of `make_corpus`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from seta_stream.demo.shards import Maker, make_corpus
from seta_stream.errors import SetaStreamError


def corpus_options(samples: int, shard_samples: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds --samples, --shard-samples, --out, --seed, --jobs and --progress.

    Args:
        samples, shard_samples: their defaults.
    """
    options = (
        click.option("--samples", default=samples, show_default=True, type=click.IntRange(1), help="How many."),
        click.option(
            "--shard-samples",
            default=shard_samples,
            show_default=True,
            type=click.IntRange(1),
            help="Samples per shard.",
        ),
        click.option(
            "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the shards."
        ),
        click.option(
            "--seed",
            default=0,
            show_default=True,
            type=click.IntRange(-(2**63), 2**63 - 1),
            help="Decides every byte, whatever --jobs.",
        ),
        click.option("--jobs", type=click.IntRange(1), help="Processes; one per core where not given."),
        click.option("--progress/--no-progress", default=True, help="A bar on stderr."),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def run_maker(build: Callable[[], Maker], out: Path, shard_samples: int, jobs: int | None, *, progress: bool) -> None:
    """Make the corpus and print its brace pattern; what goes wrong on purpose becomes a message.

    Args:
        build: gives the maker; called here so that its errors are shown like the others.
        out, shard_samples, jobs, progress: as `make_corpus` takes them.
    """
    try:
        made = make_corpus(build(), out, shard_samples=shard_samples, jobs=jobs, progress=progress)
    except SetaStreamError as error:
        raise click.ClickException(error.message) from error
    rate = f", {made.samples / made.seconds:,.0f} samples/s" if made.made == len(made.urls) else ""
    click.echo(
        f"{made.samples:,} samples in {len(made.urls)} shards, {made.size_bytes / 1e6:,.1f} MB: {made.made} made "
        f"now in {made.seconds:.1f} s{rate}",
        err=True,
    )
    click.echo(made.pattern)
