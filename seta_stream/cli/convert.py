"""`seta-stream convert`: indexes of other tools made ours, and ours theirs.

Takes URLs and patterns; gives index files and a table. Acts: reads indexes and headers of shards, writes files, prints.
Exit status: 0 where every shard was converted, 1 where one was not, 2 where the command is wrong.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import click

from seta_stream.cli.command import Command
from seta_stream.cli.ending import FAILED
from seta_stream.cli.kinds import FOLDER, SHARDS
from seta_stream.cli.options import json_option, urls_argument
from seta_stream.cli.storage import refuse_web, storage_options

if TYPE_CHECKING:
    from seta_stream.corpus.interop_converting import Outcome

_TOLD: Final = 10
"""Notes and errors that are printed one by one; --json has all."""

To = Literal["seta", "energon", "dali"]


@dataclass(frozen=True)
class Summary:
    """What `seta-stream convert` did.

    Args:
        to: the format that was written.
        shards: how many were named.
        converted: how many of them have an index in that format now.
        written: index files that were written; the others were there already, byte for byte.
        samples, members: of the converted shards.
        headers: members whose headers were read to check the indexes.
        sources: shards by the kind of index that was used; "scan" where the shard was scanned.
        notes: what a person should know.
        failed: why a shard was not converted, by its URL.
        seconds: wall time.
    """

    to: str
    shards: int
    converted: int
    written: int
    samples: int
    members: int
    headers: int
    sources: dict[str, int]
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@click.command(
    "convert", cls=Command, resumes="indexes that were written stay, and the same command goes on with the others."
)
@urls_argument
@click.option(
    "--from",
    "source",
    type=click.Choice(["auto", "seta", "energon", "dali", "webshart", "ratarmount", "wids"]),
    default="auto",
    show_default=True,
    help="The index to read beside each shard; auto takes the best that agrees with the shard, else scans it.",
)
@click.option("--to", type=click.Choice(["seta", "energon", "dali"]), required=True, help="The format to write.")
@click.option("-o", "--out", type=FOLDER, metavar="FOLDER", help="Write the indexes here instead of beside the shards.")
@click.option(
    "--check",
    type=click.Choice(["sample", "all"]),
    default="sample",
    show_default=True,
    help="Compare the index with the first, the last and some headers of each shard, or with all of them.",
)
@click.option("--counts", type=SHARDS, metavar="URL", help="A wids JSON file whose samples per shard must be met.")
@click.option("--overwrite", is_flag=True, help="Replace files of these names that somebody else wrote.")
@storage_options
@json_option()
def command(
    urls: tuple[str, ...],
    source: str,
    to: str,
    out: str | None,
    check: str,
    counts: str | None,
    *,
    overwrite: bool,
    options: dict[str, Any] | None,
    as_json: bool,
) -> None:
    """Convert indexes, each compared with its shard before it is believed.

    URLS are tar files, brace patterns (train-{00000..00149}.tar), globs in quotes, or .txt lists of these, on disk or
    in a bucket. Read are indexes of seta_stream, Energon, DALI, webshart, hfutils and ratarmount; pickled ones (wids)
    are never loaded. For Energon, a .nv-meta folder is written too, so that the folder is a data set.

    \b
    Examples:
        seta-stream convert "s3://bucket/train-{000..149}.tar" --to energon
        seta-stream convert "/data/*.tar" --from dali --to seta --out /data/index
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    summary = convert_shards(
        urls,
        source=source,
        to=cast("To", to),
        out=out,
        whole=check == "all",
        counts=counts,
        overwrite=overwrite,
        options=options,
    )
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        _print(summary)
    if summary.failed:
        raise click.exceptions.Exit(FAILED)


def convert_shards(
    urls: Sequence[str],
    *,
    source: str = "auto",
    to: To,
    out: str | None = None,
    whole: bool = False,
    counts: str | None = None,
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Summary:
    """Convert what `urls` names and return what was done; a bar is drawn on stderr where that is a terminal.

    Raises:
        SetaStreamError: nothing can be converted at all; what fails for one shard stands in the summary.
    """
    from seta_stream.cli.screen import bar  # noqa: PLC0415  (rich; --help need not wait for it)
    from seta_stream.corpus.interop_converting import Wanted, convert  # noqa: PLC0415  (numpy; --help need not wait)
    from seta_stream.corpus.interop_lists import read_wids_counts  # noqa: PLC0415  (likewise)
    from seta_stream.corpus.listing import expand  # noqa: PLC0415  (likewise)
    from seta_stream.store import normalise, store_for  # noqa: PLC0415  (likewise)

    started = time.perf_counter()
    shards = expand(urls, options)
    if out is None:
        refuse_web(shards)
    wanted = Wanted(
        source=source,
        to=to,
        out=None if out is None else normalise(out).rstrip("/"),
        whole=whole,
        overwrite=overwrite,
        counts=None if counts is None else read_wids_counts(store_for(counts, options).read(counts), counts),
        options=options,
    )
    outcomes: list[Outcome] = []
    with bar("converting", len(shards)) as advance:
        for outcome in convert(shards, wanted):
            advance(advance=1)
            outcomes.append(outcome)
    return _summary(outcomes, shards=len(shards), to=to, seconds=time.perf_counter() - started)


def _summary(outcomes: Sequence[Outcome], *, shards: int, to: str, seconds: float) -> Summary:
    good = [outcome for outcome in outcomes if outcome.error is None and outcome.kind != "notes"]
    return Summary(
        to=to,
        shards=shards,
        converted=len(good),
        written=sum(outcome.is_written for outcome in good),
        samples=sum(outcome.samples for outcome in good),
        members=sum(outcome.members for outcome in good),
        headers=sum(outcome.headers for outcome in good),
        sources=dict(Counter(str(outcome.kind) for outcome in good)),
        notes=[note for outcome in good for note in outcome.notes],
        failed={outcome.shard: outcome.error.message for outcome in outcomes if outcome.error is not None},
        seconds=round(seconds, 3),
    )


def _print(summary: Summary) -> None:
    sources = {"the shards, scanned" if kind == "scan" else kind: n for kind, n in sorted(summary.sources.items())}
    read_from = ", ".join(f"{kind} ({n:,})" for kind, n in sources.items()) or "nothing"
    click.echo(
        f"{summary.converted:,} of {summary.shards:,} shards, "
        f"{summary.samples:,} samples, {summary.members:,} members; read from {read_from}\n"
        f"{summary.headers:,} headers read; {summary.written:,} indexes for {summary.to} written in "
        f"{summary.seconds:.1f} s"
    )
    _tell("Note: ", summary.notes)
    _tell("Error: ", list(summary.failed.values()))


def _tell(mark: str, lines: Sequence[str]) -> None:
    for line in lines[:_TOLD]:
        click.echo(f"{mark}{line}", err=True)
    if len(lines) > _TOLD:
        click.echo(f"{mark}… and {len(lines) - _TOLD:,} more; --json lists all.", err=True)
