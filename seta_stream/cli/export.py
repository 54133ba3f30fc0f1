"""`seta-stream export`: losses and selections as Parquet, CSV and shard lists, the selected samples as new shards.

Takes a state; writes files and prints a summary. Acts through the room `carry`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seta_stream.cli.engines import engine_options
from seta_stream.cli.rowbar import row_bar
from seta_stream.cli.storage import key_values, storage_options
from seta_stream.errors import SetaStreamError, SetaStreamWarning

if TYPE_CHECKING:
    from seta_stream.carry import Exported, Source
    from seta_stream.carry.choosing import Selected
    from seta_stream.repack import Progress, Report


@click.command("export")
@click.argument("state")
@click.option(
    "--to", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="losses.parquet or losses.csv; with --selection that instead; a .json or .txt file lists shards with masks.",
)  # fmt: skip
@click.option("--selection", is_flag=True, help="Write which samples an epoch keeps, and their weights, not losses.")
@click.option("--shards", metavar="FOLDER", help="Write the selected samples as new shards into this folder or URL.")
@click.option(
    "--epoch", type=click.IntRange(min=-1),
    help="The losses of the end of this epoch, or the selection of this epoch; the newest by default.",
)  # fmt: skip
@click.option("--generation", metavar="NAME", help="A generation of the state; the newest by default.")
@click.option("--policy", metavar="POLICY", help='Decide anew, as "seta(num_epochs=90, target=0.5)".')
@click.option("--seed", type=int, help="The stream's seed=; the one that the run noted by default.")
@click.option(
    "--urls", multiple=True, metavar="URLS", help="The shards, if they are not where the state says; repeatable."
)
@click.option("--index", metavar="FOLDER", help="Folder of the indexes, if they are not beside the shards.")
@click.option("--no-keys", is_flag=True, help="Leave keys out: neither shards nor indexes are read.")
@click.option("--shard-samples", type=click.IntRange(min=1), metavar="N", help="Samples of a new shard.")
@click.option("--prefix", metavar="NAME", help="Name the new shards NAME-000000.tar and so on.")
@engine_options
@storage_options
@key_values("--to-option", "to_options", help="The same for --shards; --option by default, where the protocol is one.")
@key_values("--state-option", "state_options", help="The same for the state.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(state: str, *, as_json: bool, **choices: Any) -> None:
    """Write what STATE (a folder or URL) holds: losses, or which samples an epoch keeps.

    Rows have the columns url, key, index (in the shard) and id, then loss and age (epochs since the loss was recorded)
    and what the policy remembers; or selected and weight. Killed while it writes new shards, the same command goes on.

    \b
    Examples:
        seta-stream export runs/7 --to losses.parquet
        seta-stream export runs/7 --to selection.json --epoch 12
        seta-stream export runs/7 --shards /data/subset --shard-samples 10000
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    if (choices["to"] is None) == (choices["shards"] is None):
        raise click.UsageError("Name what to write: --to FILE, or --shards FOLDER.")
    if choices["shards"] is None and (choices["shard_samples"] or choices["prefix"]):
        raise click.UsageError("--shard-samples and --prefix are about new shards: name their folder by --shards.")
    if choices["to"] is not None and re.match("[a-z0-9+]{2,}:/", str(choices["to"])):
        raise click.UsageError("--to is a file of this machine: write it here, and copy it. --shards takes URLs.")
    with warnings.catch_warnings():
        warnings.simplefilter("always", SetaStreamWarning)
        warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
        try:
            told = _do(state, choices)
        except SetaStreamError as error:
            raise click.ClickException(error.message) from error
    if as_json:
        click.echo(json.dumps(asdict(told)))
    else:
        _print(told, choices)


def _do(state: str, choices: dict[str, Any]) -> Exported | Report:
    from seta_stream.carry import export_losses  # noqa: PLC0415  (numpy; --help need not wait for it)
    from seta_stream.carry.exporting import LISTS  # noqa: PLC0415  (likewise)

    path: Path | None = choices["to"]
    is_losses = path is not None and not choices["selection"] and path.suffix.lower() not in LISTS
    if is_losses and (choices["policy"] is not None or choices["seed"] is not None):
        raise click.UsageError("--policy and --seed are about a selection: add --selection.")
    source = _source(state, choices, is_losses=is_losses)
    if path is not None and is_losses:
        with row_bar("exporting", source.shards.total) as told:
            return export_losses(source, path, told)
    return _selection(source, path, choices)


def _source(state: str, choices: dict[str, Any], *, is_losses: bool) -> Source:
    from seta_stream.carry import open_source  # noqa: PLC0415  (as above)

    epoch: int | None = choices["epoch"]
    if epoch is not None and not is_losses:
        epoch -= 1  # whose losses the selection is made from
    return open_source(
        state,
        urls=choices["urls"] or None,
        generation=choices["generation"],
        epoch=None if choices["generation"] is not None else epoch,
        index=choices["index"],
        with_keys=not choices["no_keys"],
        storage_options=choices["options"],
        state_options=choices["state_options"],
    )


def _selection(source: Source, path: Path | None, choices: dict[str, Any]) -> Exported | Report:
    from seta_stream.carry import export_selection, export_shards  # noqa: PLC0415  (as above)
    from seta_stream.carry.choosing import choose  # noqa: PLC0415  (likewise)

    selected, _ = choose(source, epoch=choices["epoch"], seed=choices["seed"], policy=choices["policy"])
    _warn_of_weights(selected, choices)
    if path is not None:
        with row_bar("exporting", source.shards.total) as told:
            return export_selection(source, selected, path, told)
    with _shard_bar() as advance:
        return export_shards(
            source,
            selected,
            choices["shards"],
            shard_samples=choices["shard_samples"],
            prefix=choices["prefix"],
            index=choices["index"],
            engine=choices["engine"],
            to_options=choices["to_options"],
            progress=advance,
        )


def _warn_of_weights(selected: Selected, choices: dict[str, Any]) -> None:
    if selected.weight is not None and choices["shards"] is not None:
        click.echo(
            f"Warning: {selected.policy} weights the losses of the samples it keeps, and shards hold no weights: write "
            "them too, by --selection --to weights.parquet, or train without.",
            err=True,
        )


@contextmanager
def _shard_bar() -> Iterator[Callable[[Progress], None]]:
    done = 0
    with row_bar("writing bytes", None) as told:

        def advance(progress: Progress) -> None:
            nonlocal done
            told(progress.bytes_done - done)
            done = progress.bytes_done

        yield advance


def _print(told: Exported | Report, choices: dict[str, Any]) -> None:
    from seta_stream.carry import Exported  # noqa: PLC0415  (as above)

    if not isinstance(told, Exported):
        click.echo(
            f"{told.samples:,} samples in {told.shards:,} shards, {told.written:,} of them written now, in "
            f"{choices['shards']}; {told.bytes_written / 1e6:,.1f} MB, {told.seconds:,.1f} s"
        )
        return
    if told.selected is None:
        what = f"losses of the end of epoch {told.epoch} ({told.generation}): {told.seen:,} of {told.samples:,} samples"
    else:
        share = told.selected / told.samples
        what = f"selection of epoch {told.epoch} ({told.generation}): {told.selected:,} of {told.samples:,} samples"
        what += f", {share:.1%}"
    click.echo(f"{what}\n{told.rows:,} rows written to {told.file}")
