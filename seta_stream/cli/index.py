"""`seta-stream index`: writes the indexes of shards, beside them or into a folder.

Takes URLs and patterns; gives index files and a summary. Acts: reads shards, writes files, prints.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import click

from seta_stream.errors import SetaStreamError, SetaStreamWarning


@dataclass(frozen=True)
class Summary:
    """What `seta-stream index` did.

    Args:
        shards: how many shards were named.
        indexed: how many of them were scanned; the others had an index that fits.
        samples: samples of all shards.
        members: members of all shards.
        bytes: bytes of all shards.
        index_bytes: bytes of the index files that were written.
        seconds: wall time.
    """

    shards: int
    indexed: int
    samples: int
    members: int
    bytes: int
    index_bytes: int
    seconds: float


@click.command("index")
@click.argument("urls", nargs=-1, required=True)
@click.option("--out", metavar="FOLDER", help="Write the indexes here instead of beside the shards.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; as many as pay by default.")
@click.option("--force", is_flag=True, help="Scan shards again whose index fits them.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(urls: tuple[str, ...], out: str | None, jobs: int | None, *, force: bool, as_json: bool) -> None:
    """Index shards, so that a stream opens at once.

    URLS are tar files, brace patterns (train-{00000..00149}.tar), globs in quotes, or .txt lists of these. Indexes are
    named <shard>.seta-index; a stream finds them beside the shards, or by index=FOLDER.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", SetaStreamWarning)
        warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
        try:
            summary = index_shards(urls, out=out, jobs=jobs, force=force)
        except SetaStreamError as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        click.echo(
            f"{summary.shards} shards, {summary.samples:,} samples, {summary.members:,} members, "
            f"{summary.bytes / 1e6:,.1f} MB\n{summary.indexed} indexed, {summary.shards - summary.indexed} were up to "
            f"date; {summary.index_bytes / 1e6:,.1f} MB of index written in {summary.seconds:.1f} s"
        )


def index_shards(urls: Sequence[str], *, out: str | None, jobs: int | None, force: bool) -> Summary:
    """Index what `urls` names and return what was done; a bar is drawn on stderr where that is a terminal.

    Raises:
        SetaStreamError: a shard is missing, damaged or refused, or an index cannot be written.
    """
    from seta_stream.corpus.bar import index_bar  # noqa: PLC0415  (rich; `seta-stream --help` need not wait for it)
    from seta_stream.corpus.building import Task, build  # noqa: PLC0415  (numpy, likewise)
    from seta_stream.corpus.index import IndexHeader  # noqa: PLC0415  (numpy, likewise)
    from seta_stream.corpus.listing import expand  # noqa: PLC0415  (likewise)
    from seta_stream.corpus.places import beside, fits, header_at, index_names  # noqa: PLC0415  (likewise)
    from seta_stream.store import join, store_for  # noqa: PLC0415  (likewise)

    started = time.perf_counter()
    shards = expand(urls)
    targets = [beside(url) for url in shards] if out is None else [join(out, name) for name in index_names(shards)]
    headers: list[IndexHeader] = []
    tasks: list[Task] = []
    for shard, (url, target) in enumerate(zip(shards, targets, strict=True)):
        info = store_for(url).info(url)
        header = None if force else header_at(target)
        if header is not None and fits(header, info):
            headers.append(header)
        else:
            tasks.append(Task(shard, url, info.size, target, None, must_write=True))
    index_bytes = 0
    with index_bar(tasks) as advance:
        for built in build(tasks, jobs):
            advance(built)
            headers.append(built.header)
            index_bytes += built.index_bytes
    return Summary(
        shards=len(shards),
        indexed=len(tasks),
        samples=sum(header.samples for header in headers),
        members=sum(header.members for header in headers),
        bytes=sum(header.shard_size for header in headers),
        index_bytes=index_bytes,
        seconds=round(time.perf_counter() - started, 3),
    )
