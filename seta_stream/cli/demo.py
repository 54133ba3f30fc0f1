"""`seta-stream demo`: a corpus rendered on the spot, one recogniser trained twice, a table and a picture.

Takes options; prints the table on stdout and progress on stderr, writes under `--out`.
"""

from __future__ import annotations

from pathlib import Path

import click

from seta_stream.demo.command import DemoOptions, run_demo, table_of

DEFAULTS = DemoOptions()
INTERRUPTED = 130
"""What shells expect of a command that Ctrl-C ended."""


@click.command("demo")
@click.option("--samples", default=DEFAULTS.samples, show_default=True, help="Word images to train on.")
@click.option("--epochs", default=DEFAULTS.epochs, show_default=True, help="Epochs of each run.")
@click.option(
    "--out", default=DEFAULTS.out, show_default=True, type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the corpus, the state and the picture.",
)  # fmt: skip
@click.option(
    "--seed", default=DEFAULTS.seed, show_default=True, type=click.IntRange(0, 2**63 - 1),
    help="Decides corpus, model and order.",
)  # fmt: skip
@click.option("--fonts", type=click.Path(exists=True, file_okay=False), help="A folder with more fonts.")
@click.option("--target", default=DEFAULTS.target, show_default=True, help="Share of all sample visits to save.")
@click.option("--jobs", type=click.IntRange(1), help="Processes that render; one per core where not given.")
@click.option(
    "--workers", default=DEFAULTS.workers, show_default=True, type=click.IntRange(0),
    help="DataLoader worker processes.",
)  # fmt: skip
@click.option("--progress/--no-progress", default=True, help="Bars on stderr.")
def command(
    samples: int,
    epochs: int,
    out: Path,
    seed: int,
    fonts: str | None,
    target: float,
    jobs: int | None,
    workers: int,
    progress: bool,
) -> None:
    """Train a small text recogniser on all samples and on half of the visits, and compare.

    About three minutes on two cores. Needs torch, Pillow and matplotlib: pip install 'seta-stream[demo]'

    \b
    Example:
        seta-stream demo
        seta-stream demo --samples 5000 --epochs 6 --out /tmp/demo
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    from rich.console import Console  # noqa: PLC0415  (100 ms that other commands need not pay)

    options = DemoOptions(
        samples=samples, epochs=epochs, out=out, seed=seed, fonts=fonts, target=target, jobs=jobs, workers=workers,
        progress=progress,
    )  # fmt: skip
    console = Console(stderr=True)
    try:
        results = run_demo(options, console)
    except OSError as error:
        raise click.ClickException(
            f"The demo stopped: {error}. Can {out} be written, and has its disk room?"
        ) from error
    except KeyboardInterrupt:
        click.echo(
            f"Stopped. Shards that are finished stay under {out / 'corpus'} for the next run, which trains anew in a "
            "folder of its own.",
            err=True,
        )
        raise SystemExit(INTERRUPTED) from None
    output = Console()
    output.print(table_of(results, options))
    for title, path in (("picture", results.picture), ("figures", results.folder / "results.json")):
        click.echo(f"{title}: {path}")
    click.echo(f"what the losses look like now: seta-stream inspect {results.state}")
