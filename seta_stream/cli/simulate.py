"""`seta-stream simulate [STATE]`: what other policies would have read of a recorded run, or of one that never was.

Takes a state URL or the shape of a history; prints tables on stdout (or JSON), and draws a picture on request. Only
reads the state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seta_stream.cli.command import Command
from seta_stream.cli.kinds import ByteCount
from seta_stream.cli.options import (
    count_option,
    json_option,
    number_option,
    picture_option,
    policy_option,
    seed_option,
    state_argument,
)
from seta_stream.cli.pricing import price_options
from seta_stream.cli.storage import storage_options
from seta_stream.cli.writing import written

if TYPE_CHECKING:
    from seta_stream.cli.scenario import Task
    from seta_stream.report.outcome import Simulation

SHAPES = ("exponential", "lognormal", "gamma", "late")


@click.command("simulate", cls=Command)
@state_argument(required=False)
@click.option("--synthetic", type=click.Choice(SHAPES), help="Losses of a run that never was, instead of STATE.")
@count_option("--samples", most=10**12, help="Samples of the synthetic corpus.  [default: 1,000,000]")
@count_option("--samples-per-shard", most=10**12, help="Likewise.  [default: 10,000]")
@click.option(
    "--sample-bytes", type=ByteCount(), metavar="BYTES", help="Likewise, mean size in the shard.  [default: 4096]"
)
@count_option("--epochs", help="Epochs to simulate.  [default: those recorded; 30 of a synthetic history]")
@policy_option(
    multiple=True,
    help='As "seta(num_epochs=90, target=0.5)" or infobatch; repeatable.  [default: the run\'s own and a few]',
)
@number_option(
    "--correlation",
    most=1,
    help="Rank correlation of a sample's losses between epochs.  [default: as the state tells, else 0.9]",
)
@count_option(
    "--simulated", default=200_000, show_default=True, help="Samples to simulate at most; figures are scaled up."
)
@seed_option(help="Of every draw.")
@price_options(default="none", help="Whose list price to reckon with.")
@click.option(
    "--reading",
    type=click.Choice(("auto", "local", "bucket")),
    default="auto",
    show_default=True,
    help="Count requests as of local files or of a bucket; auto: as the shards lie, a bucket where there is a price.",
)
@number_option(
    "--max-waste",
    most=1,
    default=0.05,
    show_default=True,
    help="Share of the bytes that may lie outside selected samples.",
)
@count_option("--batch-size", most=2**40, help="Samples per step.  [default: as recorded, else 256]")
@click.option(
    "--unit", type=click.Choice(("sample", "run")), help="What is judged.  [default: as recorded, else sample]"
)
@click.option(
    "--run-bytes",
    type=ByteCount(0),
    metavar="BYTES",
    help="Decide for runs of neighbouring samples of about this size.  [default: as recorded, else 0]",
)
@click.option("--repacked", is_flag=True, help="As if seta-stream repack had put each shard in the order of losses.")
@picture_option(help="Draw the figures into this picture, of the kind that its name ends in.")
@storage_options
@json_option()
def command(png: Path | None, *, as_json: bool, **options: Any) -> None:
    """Replay the history in STATE (a folder or URL) under other policies: what would they have read, and saved?

    Samples are simulated with the losses that the history recorded, and selected by the real policies and draws; bytes
    and requests come from the real plan. Nothing is read or trained. What is assumed is printed.

    \b
    Examples:
        seta-stream simulate runs/7 -o saved.png
        seta-stream simulate runs/7 --store s3 --policy infobatch \\
            --policy "seta(num_epochs=90, target=0.5)"
        seta-stream simulate --synthetic late --samples 15000000 --epochs 90
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    _check(**options)
    simulation, task = _simulated(options)
    if png is not None:
        from seta_stream.report.comparison import draw_simulation  # noqa: PLC0415  (brings matplotlib)

        with written(png) as place:
            draw_simulation(simulation, place)
    _tell(simulation, task, png, as_json=as_json)


def _simulated(options: Mapping[str, Any]) -> tuple[Simulation, Task]:
    # All of these bring numpy, which `seta-stream --help` need not wait for.
    from seta_stream.cli.scenario import Options, task_of  # noqa: PLC0415
    from seta_stream.cli.screen import bar  # noqa: PLC0415  (and rich)
    from seta_stream.report.simulation import simulate  # noqa: PLC0415

    task = task_of(Options(**options))
    with bar("simulating", (len(task.policies) + 1) * task.scenario.epochs) as advance:
        return simulate(task.scenario, task.policies, progress=lambda: advance(advance=1)), task


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


def _tell(simulation: Simulation, task: Task, png: Path | None, *, as_json: bool) -> None:
    if as_json:
        recorded = None if task.recorded is None else list(task.recorded.visits)
        own = {"source": task.source, "assumptions": list(task.assumptions), "correlation": task.scenario.correlation}
        click.echo(json.dumps({**own, "own": task.own, "recorded": recorded, **simulation.to_plain()}))
        return
    from seta_stream.cli.figures import print_simulation  # noqa: PLC0415  (brings rich)

    print_simulation(simulation, task)
    if png is not None:
        click.echo(f"Picture: {png}")
