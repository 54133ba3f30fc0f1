"""`seta-stream simulate [STATE]`: what other policies would have read of a recorded run, or of one that never was.

Takes a state URL or the shape of a history; prints tables on stdout (or JSON), and draws a picture on request. Only
reads the state.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from seta_stream.cli.storage import storage_options
from seta_stream.errors import SetaStreamError, SetaStreamWarning

if TYPE_CHECKING:
    from seta_stream.cli.scenario import Task
    from seta_stream.report.outcome import Simulation

SHAPES = ("exponential", "lognormal", "gamma", "late")
STORES = ("s3", "gcs", "azure", "none")


@click.command("simulate")
@click.argument("state", required=False)
@click.option("--synthetic", type=click.Choice(SHAPES), help="Losses of a run that never was, instead of STATE.")
@click.option(
    "--samples", type=click.IntRange(1), metavar="N", help="Samples of the synthetic corpus.  [default: 1,000,000]"
)
@click.option("--samples-per-shard", type=click.IntRange(1), metavar="N", help="Likewise.  [default: 10,000]")
@click.option(
    "--sample-bytes", type=click.FloatRange(1), metavar="X", help="Likewise, mean size in the shard.  [default: 4096]"
)
@click.option(
    "--epochs", type=click.IntRange(1), metavar="N",
    help="Epochs to simulate.  [default: those recorded; 30 of a synthetic history]",
)  # fmt: skip
@click.option(
    "--policy", multiple=True, metavar="SPEC",
    help="As \"seta(num_epochs=90, target=0.5)\" or infobatch; may be repeated.  [default: the run's own and a few]",
)  # fmt: skip
@click.option(
    "--correlation", type=click.FloatRange(0, 1), metavar="X",
    help="Rank correlation of a sample's losses between epochs.  [default: as the state tells, else 0.9]",
)  # fmt: skip
@click.option(
    "--simulated", type=click.IntRange(1), metavar="N", default=200_000, show_default=True,
    help="Samples to simulate at most; figures are scaled up.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", default=0, show_default=True, help="Of every draw."
)
@click.option(
    "--store", type=click.Choice(STORES), default="none", show_default=True, help="Whose list price to reckon with."
)
@click.option(
    "--price-per-gb", type=click.FloatRange(0), metavar="X", help="Dollars for 2^30 bytes; replaces the list price."
)
@click.option(
    "--price-per-1000-requests", type=click.FloatRange(0), metavar="X", help="Dollars; replaces the list price."
)
@click.option(
    "--reading", type=click.Choice(("auto", "local", "bucket")), default="auto", show_default=True,
    help="Count requests as of local files or of a bucket; auto: as the shards lie, a bucket where there is a price.",
)  # fmt: skip
@click.option(
    "--max-waste", type=click.FloatRange(0, 1), metavar="X", default=0.05, show_default=True,
    help="Share of the bytes that may lie outside selected samples.",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(1), metavar="N", help="Samples per step.  [default: as recorded, else 256]"
)
@click.option(
    "--unit", type=click.Choice(("sample", "run")), help="What is judged.  [default: as recorded, else sample]"
)
@click.option(
    "--run-bytes", type=click.IntRange(0), metavar="N",
    help="Decide for runs of neighbouring samples of about this size.  [default: as recorded, else 0]",
)  # fmt: skip
@click.option("--repacked", is_flag=True, help="As if seta-stream repack had put each shard in the order of losses.")
@click.option(
    "-o", "--png", metavar="FILE", type=click.Path(dir_okay=False, writable=True), help="Draw the figures into FILE."
)
@storage_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--progress/--no-progress", default=True, help="A bar on stderr.")
def command(png: str | None, *, as_json: bool, progress: bool, **options: Any) -> None:
    """Replay the history in STATE (a folder or URL) under other policies: what would they have read, and saved?

    Samples are simulated with the losses that the history recorded, and selected by the real policies and draws; bytes
    and requests come from the real plan. Nothing is read or trained. What is assumed is printed.

    \b
    Examples:
        seta-stream simulate runs/7 -o saved.png
        seta-stream simulate runs/7 --store s3 --policy infobatch --policy "seta(num_epochs=90, target=0.5)"
        seta-stream simulate --synthetic late --samples 15000000 --sample-bytes 4096 --epochs 90
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    _check(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("always", SetaStreamWarning)
        warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
        try:
            simulation, task = _simulated(options, progress=progress)
            if png is not None:
                _draw(simulation, png)
        except SetaStreamError as error:
            raise click.ClickException(error.message) from error
    _tell(simulation, task, png, as_json=as_json)


def _simulated(options: Mapping[str, Any], *, progress: bool) -> tuple[Simulation, Task]:
    # All of these bring numpy, which `seta-stream --help` need not wait for.
    from seta_stream.cli.scenario import Options, task_of  # noqa: PLC0415
    from seta_stream.report.simulation import simulate  # noqa: PLC0415

    task = task_of(Options(**options))
    with _bar((len(task.policies) + 1) * task.scenario.epochs, shown=progress) as advance:
        return simulate(task.scenario, task.policies, progress=advance), task


def _draw(simulation: Simulation, png: str) -> None:
    from seta_stream.report.comparison import draw_simulation  # noqa: PLC0415  (brings matplotlib)

    try:
        draw_simulation(simulation, png)
    except (OSError, ValueError) as error:  # matplotlib's word for a suffix that is no picture's
        raise click.ClickException(
            f"Cannot draw {png}: {error}. Give a place that can be written, and a name that ends in .png."
        ) from error


def _check(*, state: str | None, synthetic: str | None, **others: Any) -> None:
    """Refuse options that exclude each other."""
    if (state is None) == (synthetic is None):
        raise click.UsageError(
            "Give the state folder of a run, or --synthetic with the shape of its losses: one of them."
        )
    for name in ("samples", "samples_per_shard", "sample_bytes"):
        if state is not None and others[name] is not None:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is of a synthetic corpus; the state tells its own. Leave it out."
            )


@contextmanager
def _bar(steps: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr, where that is a terminal; what is yielded moves it on by one."""
    from rich.console import Console  # noqa: PLC0415  (100 ms that other commands need not pay)
    from rich.progress import Progress  # noqa: PLC0415

    hidden = not (shown and sys.stderr.isatty())
    with Progress(console=Console(stderr=True), transient=True, disable=hidden) as progress:
        row = progress.add_task("simulating", total=steps)
        yield lambda: progress.advance(row)


def _tell(simulation: Simulation, task: Task, png: str | None, *, as_json: bool) -> None:
    if as_json:
        recorded = None if task.recorded is None else list(task.recorded.visits)
        own = {"source": task.source, "assumptions": list(task.assumptions), "correlation": task.scenario.correlation}
        click.echo(json.dumps({**own, "own": task.own, "recorded": recorded, **simulation.to_plain()}))
        return
    from seta_stream.cli.figures import print_simulation  # noqa: PLC0415  (brings rich)

    print_simulation(simulation, task)
    if png is not None:
        click.echo(f"Picture: {png}")
