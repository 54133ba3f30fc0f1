"""`seta-stream export`: losses and selections as Parquet, CSV and shard lists, the selected samples as new shards.

Takes a state; writes files and prints a summary. Acts through the room `carry`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seta_stream.cli.command import Command
from seta_stream.cli.engines import engine_options
from seta_stream.cli.kinds import FOLDER, LocalFile
from seta_stream.cli.numbers import told_bytes
from seta_stream.cli.options import (
    count_option,
    index_option,
    json_option,
    policy_option,
    seed_option,
    shards_option,
    split_option,
    state_argument,
)
from seta_stream.cli.storage import state_options, storage_options, to_options
from seta_stream.errors import SetaStreamWarning
from seta_stream.visible import visible

if TYPE_CHECKING:
    from seta_stream.carry import Exported, Source
    from seta_stream.carry.choosing import Selected
    from seta_stream.repack import Report


@click.command(
    "export",
    cls=Command,
    resumes="no file was written; new shards that are whole stay, and the same command goes on with the others.",
)
@state_argument()
@click.option(
    "-o",
    "--to",
    metavar="FILE",
    type=LocalFile(),
    help="losses.parquet or losses.csv; with --selection that instead; a .json or .txt file lists shards with masks.",
)
@click.option("--selection", is_flag=True, help="Write which samples an epoch keeps, and their weights, not losses.")
@click.option(
    "--shards",
    type=FOLDER,
    metavar="FOLDER",
    help="Write the selected samples as new shards into this folder or URL.",
)
@count_option(
    "--epoch",
    least=-1,
    help="The losses of the end of this epoch, or the selection of this epoch; the newest by default.",
)
@click.option("--generation", metavar="NAME", help="A generation of the state; the newest by default.")
@policy_option(help='Decide anew, as "seta(num_epochs=90, target=0.5)".')
@seed_option(default=None, help="The stream's seed=; 0 by default, as there.")
@shards_option
@index_option
@click.option("--no-keys", is_flag=True, help="Leave keys out: neither shards nor indexes are read.")
@split_option
@engine_options
@storage_options
@to_options
@state_options
@json_option()
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
    told = _do(state, choices)
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
        with _rows(source) as told:
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
    from seta_stream.cli.screen import shard_bar  # noqa: PLC0415  (rich, likewise)

    selected, _ = choose(source, epoch=choices["epoch"], seed=choices["seed"], policy=choices["policy"])
    _warn_of_weights(selected, choices)
    if path is not None:
        with _rows(source) as told:
            return export_selection(source, selected, path, told)
    with shard_bar("writing") as advance:
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
        warnings.warn(
            f"{selected.policy} weights the losses of the samples it keeps, and shards hold no weights: write them "
            "too, by --selection --to weights.parquet, or train without.",
            SetaStreamWarning,
            stacklevel=2,
        )


@contextmanager
def _rows(source: Source) -> Iterator[Callable[[int], None]]:
    from seta_stream.cli.screen import bar  # noqa: PLC0415  (rich; --help need not wait for it)

    with bar("exporting", source.shards.total) as advance:
        yield lambda count: advance(advance=count)


def _print(told: Exported | Report, choices: dict[str, Any]) -> None:
    from seta_stream.carry import Exported  # noqa: PLC0415  (as above)

    if not isinstance(told, Exported):
        click.echo(
            f"{told.samples:,} samples in {told.shards:,} shards, {told.written:,} of them written now, in "
            f"{visible(choices['shards'])}; {told_bytes(told.bytes_written)}, {told.seconds:,.1f} s"
        )
        return
    if told.selected is None:
        what = f"losses of the end of epoch {told.epoch} ({told.generation}): {told.seen:,} of {told.samples:,} samples"
    else:
        share = told.selected / told.samples
        what = f"selection of epoch {told.epoch} ({told.generation}): {told.selected:,} of {told.samples:,} samples"
        what += f", {share:.1%}"
    click.echo(f"{what}\n{told.rows:,} rows written to {visible(told.file)}")
