"""`seta-stream import`: a state that begins with the losses of a file.

Takes a file and a corpus; writes a generation and prints a summary. Acts through the room `carry`.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seta_stream.cli.rowbar import row_bar
from seta_stream.cli.storage import key_values, storage_options
from seta_stream.errors import SetaStreamError, SetaStreamWarning

if TYPE_CHECKING:
    from seta_stream.carry import Imported


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("urls", nargs=-1, required=True)
@click.option("--state", required=True, metavar="STATE", help="State folder or URL of the run that starts from them.")
@click.option(
    "--by", type=click.Choice(["key", "id"]), help="Match rows by url and key, or by id; key where there is one."
)
@click.option("--epoch", type=click.IntRange(min=-1), help="The epoch whose end they stand for; -1, before the first.")
@click.option("--merge", is_flag=True, help="Lay them over the newest losses that the state holds.")
@click.option("--index", metavar="FOLDER", help="Folder of the indexes, if they are not beside the shards.")
@storage_options
@key_values(
    "--state-option", "state_options", help="The same for the state; --option by default, where the protocol is one."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(file: Path, urls: tuple[str, ...], *, state: str, as_json: bool, **choices: Any) -> None:
    """Begin a state with the losses of FILE (.parquet or .csv), for the corpus URLS.

    The file has a column loss, and url and key, or id; index, age and what a policy remembers are taken where they are
    there. Rows that are of no sample are counted and named. A run on the state selects its first epoch by these.

    \b
    Example:
        seta-stream import losses.parquet "/data/train-{00000..00149}.tar" --state runs/8
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    with warnings.catch_warnings():
        warnings.simplefilter("always", SetaStreamWarning)
        warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
        try:
            told = _do(file, urls, state, choices)
        except SetaStreamError as error:
            raise click.ClickException(error.message) from error
    if as_json:
        click.echo(json.dumps(asdict(told)))
    else:
        _print(told, state)


def _do(file: Path, urls: tuple[str, ...], state: str, choices: dict[str, Any]) -> Imported:
    from seta_stream.carry import import_losses  # noqa: PLC0415  (numpy; --help need not wait for it)

    with row_bar("importing", None) as told:
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
            told=told,
        )


def _print(told: Imported, state: str) -> None:
    click.echo(
        f"{told.generation} in {state}, as of the end of epoch {told.epoch}: {told.seen:,} of {told.samples:,} samples "
        f"have a loss"
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
            f"{told.unmatched:,} rows are of no sample: {', '.join(map(_printable, told.examples))}{more}", err=True
        )


def _printable(text: str) -> str:
    """Return a text without what could move a terminal's cursor: it comes from a file."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
