"""`seta-stream demo`: a corpus rendered on the spot, one recogniser trained twice, a table and a picture.

Takes options; prints the table on stdout and progress on stderr, writes under `--out`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from seta_stream.cli.command import Command
from seta_stream.cli.options import count_option, json_option, number_option, seed_option
from seta_stream.demo.command import LEAST_SAMPLES, DemoOptions, run_demo, table_of

DEFAULTS = DemoOptions()


@click.command(
    "demo", cls=Command, resumes="shards that are finished stay for the next run, which trains anew in its own folder."
)
@count_option(
    "--samples", least=LEAST_SAMPLES, default=DEFAULTS.samples, show_default=True, help="Word images to train on."
)
@count_option("--epochs", default=DEFAULTS.epochs, show_default=True, help="Epochs of each run.")
@click.option(
    "-o",
    "--out",
    default=DEFAULTS.out,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder for the corpus, the state and the picture.",
)
@seed_option(default=DEFAULTS.seed, help="Decides corpus, model and order.")
@click.option(
    "--fonts", type=click.Path(exists=True, file_okay=False), metavar="FOLDER", help="A folder with more fonts."
)
@number_option(
    "--target", most=1, default=DEFAULTS.target, show_default=True, help="Share of all sample visits to save."
)
@count_option("--jobs", help="Processes that render; one per core where not given.")
@count_option("--workers", least=0, default=DEFAULTS.workers, show_default=True, help="DataLoader worker processes.")
@json_option()
def command(out: Path, *, as_json: bool, **choices: Any) -> None:
    """Train a small text recogniser on all samples and on half of the visits, and compare.

    About three minutes on two cores. Needs torch, Pillow and matplotlib: pip install 'seta-stream[demo]'

    \b
    Examples:
        seta-stream demo
        seta-stream demo --samples 5000 --epochs 6 --out /tmp/demo
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    from rich.console import Console  # noqa: PLC0415  (100 ms that other commands need not pay)

    from seta_stream.cli.screen import screen  # noqa: PLC0415  (likewise)

    options = DemoOptions(out=out, progress=sys.stderr.isatty(), **choices)
    results = run_demo(options, Console(stderr=True))
    figures = results.folder / "results.json"
    if as_json:
        places = {"folder": results.folder, "picture": results.picture, "state": results.state}
        told = {name: str(path) for name, path in places.items()}
        click.echo(json.dumps({**json.loads(figures.read_text()), **told}))
        return
    screen().print(table_of(results, options))
    for title, path in (("picture", results.picture), ("figures", figures)):
        click.echo(f"{title}: {path}")
    click.echo(f"what the losses look like now: seta-stream inspect {results.state}")
