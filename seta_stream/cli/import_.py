"""`seta-stream import`: a state that begins with the losses of a file.

Takes a file and a corpus; writes a generation and prints a summary. Acts through the room `carry`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seta_stream.cli.command import Command
from seta_stream.cli.options import count_option, index_option, json_option, state_option, urls_argument
from seta_stream.cli.storage import state_options, storage_options
from seta_stream.visible import visible

if TYPE_CHECKING:
    from seta_stream.carry import Imported


@click.command("import", cls=Command, resumes="nothing was committed.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@urls_argument
@state_option(required=True, help="State folder or URL of the run that starts from them.")
@click.option(
    "--by", type=click.Choice(["key", "id"]), help="Match rows by url and key, or by id; key where there is one."
)
@count_option("--epoch", least=-1, help="The epoch whose end they stand for; -1, before the first.")
@click.option("--merge", is_flag=True, help="Lay them over the newest losses that the state holds.")
@index_option
@storage_options
@state_options
@json_option()
def command(file: Path, urls: tuple[str, ...], *, state: str, as_json: bool, **choices: Any) -> None:
    """Begin a state with the losses of FILE (.parquet or .csv), for the corpus URLS.

    The file has a column loss, and url and key, or id; index, age and what a policy remembers are taken where they are
    there. Rows that are of no sample are counted and named. A run on the state selects its first epoch by these.

    \b
    Examples:
        seta-stream import losses.parquet "/data/*.tar" --state runs/8
        seta-stream import losses.csv "/data/*.tar" --state runs/7 --merge
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    told = _do(file, urls, state, choices)
    if as_json:
        click.echo(json.dumps(asdict(told)))
    else:
        _print(told, state)


def _do(file: Path, urls: tuple[str, ...], state: str, choices: dict[str, Any]) -> Imported:
    from seta_stream.carry import import_losses  # noqa: PLC0415  (numpy; --help need not wait for it)
    from seta_stream.cli.screen import bar  # noqa: PLC0415  (rich, likewise)

    with bar("importing") as advance:
        return import_losses(
            file,
            urls,
            state,
            by=choices["by"],
            epoch=choices["epoch"],
            merge=choices["merge"],
            index=choices["index"],
            storage_options=choices["options"],
            state_options=choices["state_options"],
            told=lambda count: advance(advance=count),
        )


def _print(told: Imported, state: str) -> None:
    click.echo(
        f"{told.generation} in {visible(state)}, as of the end of epoch {told.epoch}: {told.seen:,} of "
        f"{told.samples:,} samples have a loss"
    )
    lines = [f"{told.rows:,} rows, {told.matched:,} matched by {told.by}"]
    if told.empty:
        lines.append(f"{told.empty:,} without a finite loss")
    if told.repeated:
        lines.append(f"{told.repeated:,} of samples that a later row names again")
    click.echo("; ".join(lines))
    if told.columns:
        click.echo(f"Besides: {', '.join(told.columns)}")
    if told.unmatched:
        more = ", …" if told.unmatched > len(told.examples) else ""
        click.echo(
            f"{told.unmatched:,} rows are of no sample: {', '.join(map(visible, told.examples))}{more}", err=True
        )
