"""`seta-stream inspect STATE`: what the sidecars of a state hold.

Takes a state URL; prints tables on stdout (or JSON), and draws a picture on request. Only reads the state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from seta_stream.cli.command import Command
from seta_stream.cli.options import json_option, picture_option, state_argument
from seta_stream.cli.storage import storage_options
from seta_stream.cli.writing import written
from seta_stream.visible import visible

if TYPE_CHECKING:
    from seta_stream.losses.generations import Generations
    from seta_stream.report.summary import Summary

PARTS_SHOWN: Final = 20
"""Groups of samples in the table; --json tells all."""


@click.command("inspect", cls=Command)
@state_argument()
@picture_option(help="Draw the run into this picture, of the kind that its name ends in.")
@storage_options
@json_option()
def command(state: str, png: Path | None, options: dict[str, Any] | None, *, as_json: bool) -> None:
    """Show what STATE (a folder or URL) holds: losses, groups, the next window, and what each epoch kept.

    \b
    Examples:
        seta-stream inspect runs/7 --png run7.png
        seta-stream inspect s3://bucket/runs/7 --options-file s3.json
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    generations, summary = _read(state, options)
    if png is not None:
        from seta_stream.report.picture import draw_history  # noqa: PLC0415  (brings matplotlib)

        with written(png) as place:
            draw_history(generations.history(), place)
    if as_json:
        click.echo(json.dumps(summary.to_plain()))
    else:
        _print(summary)
        if png is not None:
            click.echo(f"Picture: {png}")


def _read(state: str, options: dict[str, Any] | None) -> tuple[Generations, Summary]:
    # All of these bring numpy, which `seta-stream --help` need not wait for.
    from seta_stream.cli.states import Sidecars, grouping_of, newest_of, shards_of  # noqa: PLC0415
    from seta_stream.losses.generations import Generations  # noqa: PLC0415
    from seta_stream.losses.table import LossTable  # noqa: PLC0415
    from seta_stream.report.summary import summarise  # noqa: PLC0415

    generations = Generations(state, options)
    newest = newest_of(generations, state)
    table_of_state = shards_of(state, options)
    shards = Sidecars(newest) if table_of_state is None else table_of_state
    table = LossTable(shards.samples)
    report = generations.load(newest, table, shards)
    summary = summarise(
        table,
        generations.history(),
        generation=newest.name,
        epoch=newest.epoch,
        rule=newest.rule,
        group=grouping_of(newest),
        unmatched_shards=report.unseen_shards,
    )
    return generations, summary


def _print(summary: Summary) -> None:
    from rich.markup import escape  # noqa: PLC0415  (100 ms that other commands need not pay)

    from seta_stream.cli.screen import screen  # noqa: PLC0415  (likewise)

    console = screen()
    when = "from before epoch 0" if summary.epoch < 0 else f"at the end of epoch {summary.epoch}"
    console.print(f"[bold]{escape(visible(summary.generation))}[/bold], losses {when}")
    parts = [_parts(summary)] if summary.parts else []
    for table in (_overview(summary), _groups(summary), *parts, _epochs(summary)):
        console.print(table)


def _overview(summary: Summary) -> Any:
    from seta_stream.cli.screen import grid  # noqa: PLC0415  (rich, as above)

    table = grid("Samples", "", "")
    table.show_header = False
    table.add_row("samples", f"{summary.samples:,}")
    table.add_row("shards", f"{summary.shards:,}")
    table.add_row("seen", f"{summary.seen:,} ({summary.seen / max(summary.samples, 1):.1%})")
    if summary.unmatched_shards:
        table.add_row("shards without losses", f"{summary.unmatched_shards:,}")
    for age, count in summary.ages[:6]:
        told = "seen in this epoch" if age == 0 else f"last seen {age} epoch{'s' if age > 1 else ''} ago"
        table.add_row(told if age < 255 else "last seen 255 epochs ago or more", f"{count:,}")
    if len(summary.ages) > 6:
        table.add_row("longer ago", f"{sum(count for _, count in summary.ages[6:]):,}")
    if summary.mean_loss is not None:
        table.add_row("mean loss", f"{summary.mean_loss:.4g}")
    for share, loss in summary.quantiles:
        name = {0.0: "lowest loss", 0.5: "median loss", 1.0: "highest loss"}.get(share, f"{share:.0%} of losses below")
        table.add_row(name, f"{loss:.4g}")
    return table


def _groups(summary: Summary) -> Any:
    from seta_stream.cli.screen import gauge, grid  # noqa: PLC0415  (rich, as above)

    next_share = "" if summary.next_share is None else f"; epoch {summary.next_epoch} keeps {summary.next_share:.1%}"
    table = grid(f"Groups, easy to hard{next_share}", "group", "mean loss", "from", "samples", "share", "kept next")
    for number, group in enumerate(summary.groups):
        table.add_row(
            str(number),
            f"{group.centre:.4g}",
            "" if group.lowest is None else f"{group.lowest:.4g}",
            f"{group.samples:,}",
            f"{group.share:.1%}",
            gauge(group.next_keep),
        )
    unseen = summary.samples - summary.seen
    if unseen:
        share = unseen / summary.samples
        table.add_row("unseen", "", "", f"{unseen:,}", f"{share:.1%}", gauge(summary.unseen_keep))
    return table


def _parts(summary: Summary) -> Any:
    from rich.markup import escape  # noqa: PLC0415  (as above)

    from seta_stream.cli.screen import gauge, grid  # noqa: PLC0415  (likewise)

    more = f", the largest {PARTS_SHOWN} of {len(summary.parts):,}" if len(summary.parts) > PARTS_SHOWN else ""
    table = grid(f"Decided within{more}", "group of samples", "samples", "kept next")
    for part in summary.parts[:PARTS_SHOWN]:
        table.add_row(escape(visible(part.name)), f"{part.samples:,}", gauge(part.next_keep))
    return table


def _epochs(summary: Summary) -> Any:
    from seta_stream.cli.screen import gauge, grid  # noqa: PLC0415  (rich, as above)

    saved = "" if summary.saved_share is None else f"; {summary.saved_share:.1%} of all visits saved so far"
    table = grid(f"Epochs{saved}", "epoch", "kept", "seen", "mean loss")
    for one in summary.epochs[-20:]:
        mean = "" if one.mean_loss is None else f"{one.mean_loss:.4g}"
        table.add_row(str(one.epoch), gauge(one.share), f"{one.seen_share:.1%}", mean)
    return table
