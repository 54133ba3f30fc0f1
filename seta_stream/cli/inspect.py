"""`seta-stream inspect STATE`: what the sidecars of a state hold.

Takes a state URL; prints tables on stdout (or JSON), and draws a picture on request. Only reads the state.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from seta_stream.cli.storage import storage_options
from seta_stream.errors import SetaStreamError, StateError

if TYPE_CHECKING:
    from seta_stream.losses.generations import Generations
    from seta_stream.report.summary import Summary

PARTS_SHOWN: Final = 20
"""Groups of samples in the table; --json tells all."""


@click.command("inspect")
@click.argument("state")
@click.option("--png", metavar="FILE", type=click.Path(dir_okay=False, writable=True), help="Draw the run into FILE.")
@storage_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(state: str, png: str | None, options: dict[str, Any] | None, *, as_json: bool) -> None:
    """Show what STATE (a folder or URL) holds: losses, groups, the next window, and what each epoch kept.

    \b
    Examples:
        seta-stream inspect runs/7 --png run7.png
        seta-stream inspect s3://bucket/runs/7 --options-file s3.json
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    try:
        generations, summary = _read(state, options)
        if png is not None:
            from seta_stream.report.picture import draw_history  # noqa: PLC0415  (brings matplotlib)

            draw_history(generations.history(), png)
    except SetaStreamError as error:
        raise click.ClickException(error.message) from error
    if as_json:
        click.echo(json.dumps(summary.to_plain()))
    else:
        _print(summary)
        if png is not None:
            click.echo(f"Picture: {png}")


def _read(state: str, options: dict[str, Any] | None) -> tuple[Generations, Summary]:
    # All of these bring numpy, which `seta-stream --help` need not wait for.
    from seta_stream.losses.generations import Generations  # noqa: PLC0415
    from seta_stream.losses.table import LossTable  # noqa: PLC0415
    from seta_stream.report.summary import summarise  # noqa: PLC0415

    generations = Generations(state, options)
    kept = generations.kept()
    if not kept:
        raise StateError(
            f"There are no losses in {state}: no generation is kept there. Give the folder that was passed as state=, "
            "after an epoch with recorded losses."
        )
    newest = kept[-1]
    shards = _shards(state, newest.sidecars, options)
    table = LossTable(shards.samples)
    report = generations.load(newest, table, shards)
    summary = summarise(
        table,
        generations.history(),
        generation=newest.name,
        epoch=newest.epoch,
        rule=newest.rule,
        group=_grouping(newest.facts.get("policy")),
        unmatched_shards=report.unseen_shards,
    )
    return generations, summary


def _grouping(described: Any) -> Any:
    """Return how the run's policy groups losses; None where it does not, or is none that is known here."""
    from seta_stream.errors import PolicyError  # noqa: PLC0415  (as above)
    from seta_stream.policies import SeTa, policy_from  # noqa: PLC0415

    try:
        policy = policy_from(described) if isinstance(described, dict) else None
    except PolicyError:  # a class of the user's own
        return None
    return policy.groups if isinstance(policy, SeTa) else None


class _Sidecars:
    """The shards as a generation knows them, where the state holds no shard table."""

    def __init__(self, sidecars: Any) -> None:
        self.samples = [one.samples for one in sidecars]
        self.digests = tuple(one.digest for one in sidecars)


def _shards(state: str, sidecars: Any, options: dict[str, Any] | None) -> Any:
    """Return samples and digests of the corpus as it was last opened, or else of the generation."""
    from seta_stream.corpus.ids import ShardTable  # noqa: PLC0415  (as above)
    from seta_stream.store import join, store_for  # noqa: PLC0415

    url = join(state, "corpus")
    store = store_for(url, options)
    return ShardTable.from_bytes(store.read(url), url) if store.exists(url) else _Sidecars(sidecars)


def _print(summary: Summary) -> None:
    from rich.console import Console  # noqa: PLC0415  (100 ms that other commands need not pay)
    from rich.markup import escape  # noqa: PLC0415

    console = Console()
    console.print(f"[bold]{escape(summary.generation)}[/bold], losses at the end of epoch {summary.epoch}")
    parts = [_parts(summary)] if summary.parts else []
    for table in (_overview(summary), _groups(summary), *parts, _epochs(summary)):
        console.print(table)


def _grid(title: str, *columns: str) -> Any:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  (as above)
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right")
    return table


def _overview(summary: Summary) -> Any:
    table = _grid("Samples", "", "")
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
    next_share = "" if summary.next_share is None else f"; epoch {summary.next_epoch} keeps {summary.next_share:.1%}"
    table = _grid(f"Groups, easy to hard{next_share}", "group", "mean loss", "from", "samples", "share", "kept next")
    for number, group in enumerate(summary.groups):
        table.add_row(
            str(number),
            f"{group.centre:.4g}",
            "" if group.lowest is None else f"{group.lowest:.4g}",
            f"{group.samples:,}",
            f"{group.share:.1%}",
            _bar(group.next_keep),
        )
    unseen = summary.samples - summary.seen
    if unseen:
        share = unseen / summary.samples
        table.add_row("unseen", "", "", f"{unseen:,}", f"{share:.1%}", _bar(summary.unseen_keep))
    return table


def _parts(summary: Summary) -> Any:
    from rich.markup import escape  # noqa: PLC0415  (as above)

    more = f", the largest {PARTS_SHOWN} of {len(summary.parts):,}" if len(summary.parts) > PARTS_SHOWN else ""
    table = _grid(f"Decided within{more}", "group of samples", "samples", "kept next")
    for part in summary.parts[:PARTS_SHOWN]:
        table.add_row(escape(part.name), f"{part.samples:,}", _bar(part.next_keep))
    return table


def _epochs(summary: Summary) -> Any:
    saved = "" if summary.saved_share is None else f"; {summary.saved_share:.1%} of all visits saved so far"
    table = _grid(f"Epochs{saved}", "epoch", "kept", "seen", "mean loss")
    for one in summary.epochs[-20:]:
        mean = "" if one.mean_loss is None else f"{one.mean_loss:.4g}"
        table.add_row(str(one.epoch), _bar(one.share), f"{one.seen_share:.1%}", mean)
    return table


def _bar(share: float | None) -> str:
    if share is None:
        return ""
    filled = round(10 * share)
    return f"[blue]{'█' * filled}[/blue][dim]{'·' * (10 - filled)}[/dim] {share:6.1%}"
