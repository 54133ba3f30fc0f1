"""`seta-stream score`: losses ahead of training, by a model of the user's, so that epoch 0 is pruned too.

Takes URLs and choices; gives a generation of epoch −1 in the state, a bar on stderr and a summary. Acts through the
room `scoring`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from seta_stream.cli.command import Command
from seta_stream.cli.engines import engine_options
from seta_stream.cli.kinds import Decoder
from seta_stream.cli.options import count_option, index_option, json_option, state_option, urls_argument
from seta_stream.cli.storage import state_options, storage_options
from seta_stream.visible import visible

if TYPE_CHECKING:
    from seta_stream.scoring import Progress, Report

_CAUSES = {"decode": "could not be decoded", "loss": "have a loss that is NaN or infinite"}


@click.command(
    "score", cls=Command, resumes="shards that are scored stay, and the same command goes on with the others."
)
@urls_argument
@state_option(required=True, help="State folder or URL of the run that is to begin.")
@click.option(
    "--model",
    required=True,
    metavar="MODULE:NAME",
    help="A callable batch → one loss per sample, or a function without arguments that returns one.",
)
@click.option(
    "--decode",
    type=Decoder(),
    metavar="NAME",
    help="basic, pil, rgb8, …, or package.module:function; bytes by default.",
)
@count_option("--batch-size", default=256, show_default=True, help="Samples per call.")
@click.option("--fields", metavar="NAMES", help="Read these fields only, as jpg,txt.")
@click.option("--device", metavar="NAME", help="Where the model shall be, as cuda:0.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="skip: a sample that cannot be decoded has no loss.",
)
@index_option
@click.option("--restart", is_flag=True, help="Throw away what was scored before.")
@engine_options
@storage_options
@state_options
@json_option()
def command(urls: tuple[str, ...], *, as_json: bool, **choices: Any) -> None:
    """Give every sample a loss ahead of training, so that the first epoch can be pruned.

    URLS are tar files, brace patterns (train-{00000..00149}.tar), globs in quotes, or .txt lists of these. The model is
    called with batches (dicts of arrays and lists, as stream.batches gives them); a function or class that can be
    called without arguments is a factory, and what it returns is the model. Train with --state's folder as state= and
    SeTa(warm=True). Killed or interrupted, the same command goes on with the shards that are left.

    \b
    Examples:
        seta-stream score "/data/train-{00000..00149}.tar" --state runs/8 \\
            --model my_project.losses:load --decode pil
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    told = _do(urls, choices)
    if as_json:
        click.echo(json.dumps(asdict(told)))
    else:
        _print(told, choices["state"])


def _do(urls: tuple[str, ...], choices: dict[str, Any]) -> Report:
    from seta_stream.scoring import Choice, score  # noqa: PLC0415  (numpy; --help need not wait for it)

    names = (
        "state", "model", "decode", "batch_size", "fields", "device", "on_error", "index", "engine", "restart",
        "options", "state_options",
    )  # fmt: skip
    if choices["fields"] is not None:
        choices["fields"] = tuple(name.strip() for name in choices["fields"].split(",") if name.strip())
    choice = Choice(urls, *(choices[name] for name in names))
    with _bar() as advance:
        return score(choice, advance)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """Show a bar over the samples, with their rate, where stderr is a terminal."""
    from seta_stream.cli.screen import bar  # noqa: PLC0415  (rich; --help need not wait for it)

    with bar("scoring", failed="") as advance:
        yield lambda progress: advance(
            completed=progress.samples_done,
            total=progress.samples,
            failed=f"{progress.failed:,} failed" if progress.failed else "",
        )


def _print(told: Report, state: str) -> None:
    rate = f", {told.scored / max(told.seconds, 1e-3):,.0f} samples/s" if told.scored else ""
    click.echo(f"{told.samples:,} samples in {told.shards:,} shards; {told.scored:,} scored now{rate}")
    click.echo(
        f"{told.seen:,} have a loss: {told.minimum:.4g} … {told.maximum:.4g}, {told.mean:.4g} in the mean; "
        f"{told.seconds:,.1f} s"
    )
    for cause, failed in told.failed.items():
        if failed:
            click.echo(f"{failed:,} samples {_CAUSES[cause]}: they stay unseen", err=True)
    for one in told.failures:
        click.echo(visible(f"  {one.key} in {one.url}: {one.message}"), err=True)
    click.echo(f"Written as {told.generation}. Train with state={state!r} and SeTa(warm=True, …).")
