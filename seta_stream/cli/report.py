"""`seta-stream report STATE`: a run as one HTML page that needs nothing else.

Takes a state URL; writes a page, and prints its place or all its numbers as JSON. Only reads state and corpus.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from seta_stream.cli.command import Command
from seta_stream.cli.kinds import LocalFile
from seta_stream.cli.options import index_option, json_option, number_option, shards_option, state_argument
from seta_stream.cli.pricing import price_of, price_options
from seta_stream.cli.storage import state_options, storage_options
from seta_stream.cli.writing import written
from seta_stream.visible import visible

if TYPE_CHECKING:
    from seta_stream.report.html_values import RunReport
    from seta_stream.report.runfigures import Costs

MOST_SAMPLES: Final = 50
"""Of each kind: the page stays below 1.5 MB."""


@click.command("report", cls=Command)
@state_argument()
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=LocalFile(),
    help="Write the page here.  [default: report.html, and none with --json]",
)
@click.option(
    "--samples",
    type=click.IntRange(0, MOST_SAMPLES),
    default=12,
    show_default=True,
    metavar="N",
    help="Show so many of the hardest and of the easiest samples.",
)
@click.option(
    "--by",
    metavar="WHAT",
    default="source",
    show_default=True,
    help="Tell samples apart by source (folder and name of the shard), shard, folder (of the key), fields, or by the "
    "content of a field, as cls, which is read of every sample.",
)
@shards_option
@index_option
@price_options("auto", default="auto", help="Whose list price to reckon with; auto goes by the shards' URLs.")
@number_option("--price-per-hour", default=0.0, help="Dollars for an hour of all machines together.")
@number_option("--watts", help="Power of all machines together.  [default: 400, assumed]")
@storage_options
@state_options
@json_option(help="Print one JSON document instead; a page only with --out.")
def command(state: str, out: Path | None, *, as_json: bool, **choices: Any) -> None:
    """Write what the run in STATE (a folder or URL) kept, read and cost as one HTML page.

    The page holds the loss distribution and the kept window of each epoch, shares by source, coverage, bytes, waiting,
    money and energy with their assumptions, and the hardest and easiest samples. It needs no network.

    \b
    Examples:
        seta-stream report runs/7 -o report.html
        seta-stream report s3://bucket/runs/7 --options-file s3.json \\
            --watts 2800 --price-per-hour 12.5
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    report = _read(state, choices)
    target = out if out is not None or as_json else Path("report.html")
    if target is not None:
        _write(report, target)
    if as_json:
        from seta_stream.report.plain import finite  # noqa: PLC0415  (numpy; --help need not wait for it)

        click.echo(json.dumps(finite(report.to_plain()), allow_nan=False))
        return
    for note in report.notes:
        click.echo(f"Note: {visible(note)}", err=True)
    click.echo(f"Report: {visible(target)}")


def _read(state: str, choices: dict[str, Any]) -> RunReport:
    from seta_stream.cli.reported import Choices, read_report  # noqa: PLC0415  (numpy; --help need not wait for it)

    names = ("samples", "by", "urls", "index", "options", "state_options")
    return read_report(state, Choices(**{name: choices[name] for name in names}), lambda price: _costs(price, choices))


def _costs(price: Any, choices: dict[str, Any]) -> Costs:
    """Return prices and power; what is not given is the store's list price, and what is assumed."""
    from seta_stream.report.prices import STORES  # noqa: PLC0415  (as above)
    from seta_stream.report.runfigures import Costs  # noqa: PLC0415  (likewise)

    if choices["store"] != "auto":
        price = STORES[choices["store"]]
    price = price_of(price, choices["price_per_gb"], choices["price_per_1000_requests"])
    power = {} if choices["watts"] is None else {"watts": choices["watts"], "watts_source": "as given"}
    return Costs(price, per_hour=choices["price_per_hour"], **power)


def _write(report: RunReport, target: Path) -> None:
    from seta_stream.report.html import page  # noqa: PLC0415  (as above)

    with written(target) as place:
        place.write_text(page(report), encoding="utf-8")
