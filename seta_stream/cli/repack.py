"""`seta-stream repack`: writes shards anew, samples of similar loss side by side inside each.

Takes URLs and choices; gives new shards, a bar on stderr and a summary. Acts through the room `repack`.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from seta_stream.cli.engines import engine_options
from seta_stream.cli.storage import key_values, storage_options
from seta_stream.errors import SetaStreamError, SetaStreamWarning

if TYPE_CHECKING:
    from seta_stream.repack import Forecast, Progress, Report

_SIZE: Final = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]i?)?B?$")
_UNITS: Final = {
    "": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "ki": 1 << 10, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30,
    "Ti": 1 << 40,
}  # fmt: skip


def _bytes(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Read a number of bytes, as 268435456, 256MiB or 1GB."""
    if value is None:
        return None
    match = _SIZE.match(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is no number of bytes: write 268435456, 256MiB or 1GB.")
    return int(float(match[1]) * _UNITS[match[2] or ""])


@click.command("repack")
@click.argument("urls", nargs=-1, required=True)
@click.option("--to", required=True, metavar="FOLDER", help="Folder or URL of the new shards.")
@click.option("--state", metavar="STATE", help="State folder or URL of the run whose losses order the samples.")
@click.option("--generation", metavar="NAME", help="A generation of it; the newest by default.")
@click.option("--state-out", metavar="STATE", help="Carry the losses over to this state, for a run on the new shards.")
@click.option(
    "--order", type=click.Choice(["loss", "key", "corpus"]), default="loss", show_default=True,
    help="What the samples of a shard are sorted by; corpus: as they are.",
)  # fmt: skip
@click.option("--shard-bytes", callback=_bytes, metavar="N", help="Split or join shards to this size, as 256MiB.")
@click.option("--shard-samples", type=click.IntRange(min=1), metavar="N", help="The same, in samples.")
@click.option("--prefix", metavar="NAME", help="Name the new shards NAME-000000.tar and so on.")
@click.option("--index", metavar="FOLDER", help="Folder of the corpus's indexes, if they are not beside the shards.")
@engine_options
@storage_options
@key_values("--to-option", "to_options", help="The same for --to; --option by default, where the protocol is one.")
@key_values("--state-option", "state_options", help="The same for the states.")
@click.option("--dry-run", is_flag=True, help="Tell what would be read and written, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(urls: tuple[str, ...], *, dry_run: bool, as_json: bool, **choices: Any) -> None:
    """Write shards anew, so that samples of similar loss lie side by side.

    URLS are tar files, brace patterns (train-{00000..00149}.tar), globs in quotes, or .txt lists of these. Keys, fields
    and bytes stay as they are, and so does what lies in which shard, unless --shard-bytes or --shard-samples are given.
    Killed or out of disk, the same command goes on with the next shard.

    \b
    Example:
        seta-stream repack "s3://bucket/train-{00000..00149}.tar" --to s3://bucket/by-loss \\
            --state s3://bucket/runs/7 --state-out s3://bucket/runs/8
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    with warnings.catch_warnings():
        warnings.simplefilter("always", SetaStreamWarning)
        warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
        try:
            told = _do(urls, choices, dry_run=dry_run)
        except SetaStreamError as error:
            raise click.ClickException(error.message) from error
    if as_json:
        click.echo(json.dumps(asdict(told)))
    else:
        _print(told, choices["to"])


def _do(urls: Sequence[str], choices: dict[str, Any], *, dry_run: bool) -> Report | Forecast:
    from seta_stream.repack import Choice, forecast, run  # noqa: PLC0415  (numpy; --help need not wait for it)
    from seta_stream.store import normalise  # noqa: PLC0415  (likewise)

    names = (
        "order", "state", "generation", "state_out", "shard_bytes", "shard_samples", "prefix", "jobs", "index",
        "options", "to_options", "state_options", "engine",
    )  # fmt: skip
    choices["jobs"] = choices["engine"].jobs
    choice = Choice(urls, normalise(choices["to"]), *(choices[name] for name in names))
    if dry_run:
        return forecast(choice)
    with _bar() as advance:
        return run(choice, advance)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """Show a bar over the bytes of samples, where stderr is a terminal."""
    from rich.console import Console  # noqa: PLC0415  (rich; --help need not wait for it)
    from rich.progress import (  # noqa: PLC0415  (likewise)
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar  # noqa: PLC0415  (likewise)

    columns = (
        TextColumn("repacking"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TextColumn("{task.fields[shards]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        row = bar.add_task("", total=None, shards="")

        def advance(progress: Progress) -> None:
            shards = f"{progress.shards_done:,} of {progress.shards:,} shards"
            bar.update(row, total=progress.bytes, completed=progress.bytes_done, shards=shards)

        yield advance


def _print(told: Report | Forecast, to: str) -> None:
    from rich.console import Console  # noqa: PLC0415  (rich; --help need not wait for it)
    from rich.table import Table  # noqa: PLC0415  (likewise)

    from seta_stream.cli.figures import PIPE_WIDTH  # noqa: PLC0415  (likewise)
    from seta_stream.repack import Report  # noqa: PLC0415  (numpy, likewise)

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows, lines = _of_report(told, to) if isinstance(told, Report) else _of_forecast(told, to)
    for name, figure in rows:
        table.add_row(name, figure)
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    console.print(table)
    for line in lines:
        click.echo(line)


def _of_report(told: Report, to: str) -> tuple[list[tuple[str, str]], list[str]]:
    from seta_stream.cli.figures import told_bytes  # noqa: PLC0415  (rich; --help need not wait for it)

    moved = told.bytes_written / max(told.seconds, 1e-3)
    rows = [
        ("shards", f"{told.shards:,} from {told.shards_before:,}; {told.written:,} written now"),
        ("samples", f"{told.samples:,}, with {told.members:,} members: all of the corpus, each verified"),
        ("read", told_bytes(told.bytes_read)),
        ("written", told_bytes(told.bytes_written) + (f", {moved / 1e6:,.0f} MB/s" if told.written else "")),
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
    from seta_stream.cli.figures import told_bytes  # noqa: PLC0415  (rich; --help need not wait for it)

    rate = f"{told.bytes_per_s / 1e6:,.0f} MB/s"
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
