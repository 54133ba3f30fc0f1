"""`seta-stream repack`: writes shards anew, samples of similar loss side by side inside each.

Takes URLs and choices; gives new shards, a bar on stderr and a summary. Acts through the room `repack`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from seta_stream.cli.command import Command
from seta_stream.cli.engines import engine_options
from seta_stream.cli.kinds import FOLDER, ByteCount
from seta_stream.cli.numbers import told_bytes
from seta_stream.cli.options import index_option, json_option, split_option, state_option, urls_argument
from seta_stream.cli.storage import state_options, storage_options, to_options
from seta_stream.visible import visible_lines

if TYPE_CHECKING:
    from seta_stream.repack import Forecast, Report


@click.command(
    "repack", cls=Command, resumes="shards that are whole stay, and the same command goes on with the others."
)
@urls_argument
@click.option("-o", "--to", type=FOLDER, required=True, metavar="FOLDER", help="Folder or URL of the new shards.")
@state_option(help="State folder or URL of the run whose losses order the samples.")
@click.option("--generation", metavar="NAME", help="A generation of it; the newest by default.")
@click.option(
    "--state-out",
    type=FOLDER,
    metavar="STATE",
    help="Carry the losses over to this state, for a run on the new shards.",
)
@click.option(
    "--order",
    type=click.Choice(["loss", "key", "corpus"]),
    default="loss",
    show_default=True,
    help="What the samples of a shard are sorted by; corpus: as they are.",
)
@click.option("--shard-bytes", type=ByteCount(), metavar="BYTES", help="Split or join shards to this size, as 256MiB.")
@split_option
@index_option
@engine_options
@storage_options
@to_options
@state_options
@click.option("--dry-run", is_flag=True, help="Tell what would be read and written, and write nothing.")
@json_option()
def command(urls: tuple[str, ...], *, dry_run: bool, as_json: bool, **choices: Any) -> None:
    """Write shards anew, so that samples of similar loss lie side by side.

    URLS are tar files, brace patterns (train-{00000..00149}.tar), globs in quotes, or .txt lists of these. Keys, fields
    and bytes stay as they are, and so does what lies in which shard, unless --shard-bytes or --shard-samples are given.
    Killed or out of disk, the same command goes on with the next shard.

    \b
    Examples:
        seta-stream repack "/data/*.tar" --to /data/new --state runs/7 --dry-run
        seta-stream repack "s3://bucket/train-{00000..00149}.tar" \\
            --to s3://bucket/by-loss --state s3://bucket/runs/7 \\
            --state-out s3://bucket/runs/8
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    told = _do(urls, choices, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(asdict(told)))
    else:
        _print(told, choices["to"])


def _do(urls: Sequence[str], choices: dict[str, Any], *, dry_run: bool) -> Report | Forecast:
    from seta_stream.cli.screen import shard_bar  # noqa: PLC0415  (rich; --help need not wait for it)
    from seta_stream.repack import Choice, forecast, run  # noqa: PLC0415  (numpy, likewise)
    from seta_stream.store import normalise  # noqa: PLC0415  (likewise)

    names = (
        "order", "state", "generation", "state_out", "shard_bytes", "shard_samples", "prefix", "jobs", "index",
        "options", "to_options", "state_options", "engine",
    )  # fmt: skip
    choices["jobs"] = choices["engine"].jobs
    choice = Choice(urls, normalise(choices["to"]), *(choices[name] for name in names))
    if dry_run:
        return forecast(choice)
    with shard_bar("repacking") as advance:
        return run(choice, advance)


def _print(told: Report | Forecast, to: str) -> None:
    from rich.text import Text  # noqa: PLC0415  (rich; --help need not wait for it)

    from seta_stream.cli.screen import facts, screen  # noqa: PLC0415  (rich; --help need not wait for it)
    from seta_stream.repack import Report  # noqa: PLC0415  (numpy, likewise)

    rows, lines = _of_report(told, to) if isinstance(told, Report) else _of_forecast(told, to)
    console = screen()
    console.print(facts(rows))
    for line in lines:
        console.print(Text(visible_lines(line)), soft_wrap=not console.is_terminal)


def _of_report(told: Report, to: str) -> tuple[list[tuple[str, str]], list[str]]:
    moved = told.bytes_written / max(told.seconds, 1e-3)
    rows = [
        ("shards", f"{told.shards:,} from {told.shards_before:,}; {told.written:,} written now"),
        ("samples", f"{told.samples:,}, with {told.members:,} members: all of the corpus, each verified"),
        ("read", told_bytes(told.bytes_read)),
        ("written", told_bytes(told.bytes_written) + (f", {told_bytes(moved)}/s" if told.written else "")),
        ("requests", f"{told.requests:,}"),
        ("seconds", f"{told.seconds:,.1f}"),
        ("losses", f"of {told.generation}" if told.generation else "none were used"),
    ]
    if told.carried:
        rows.append(("carried over", f"as {told.carried}"))
        return rows, []
    if told.generation:
        return rows, [
            f"To begin a run on {to} with these losses, run this again with --state-out: it only writes them."
        ]
    return rows, []


def _of_forecast(told: Forecast, to: str) -> tuple[list[tuple[str, str]], list[str]]:
    rate = f"{told_bytes(told.bytes_per_s)}/s"
    is_done = told.finished == told.shards
    seconds = "0" if is_done else f"about {told.seconds:,.0f} in one process, at the {rate} of a first span"
    rows = [
        ("shards", f"{told.shards:,} from {told.shards_before:,}; {told.finished:,} are finished"),
        ("samples", f"{told.samples:,}"),
        ("would read", told_bytes(told.bytes_read)),
        ("would write", told_bytes(told.bytes_written)),
        ("would read back", told_bytes(told.bytes_checked)),
        ("requests", f"{told.requests:,}"),
        ("seconds", seconds),
        ("processes", f"{told.processes:,}"),
    ]
    return rows, [f"Nothing was written to {to}."]
