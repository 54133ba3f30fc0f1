"""`seta-stream index`: writes the indexes of shards, beside them or into a folder.

Takes URLs and patterns; gives index files and a summary. Acts: reads shards, writes files, prints.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from seta_stream.cli.command import Command
from seta_stream.cli.engines import engine_options
from seta_stream.cli.kinds import FOLDER
from seta_stream.cli.numbers import told_bytes, told_count
from seta_stream.cli.options import json_option, urls_argument
from seta_stream.cli.storage import refuse_web, storage_options
from seta_stream.errors import SetaStreamWarning

if TYPE_CHECKING:
    from seta_stream.corpus.folders import Folders
    from seta_stream.corpus.ids import ShardFacts
    from seta_stream.jobs import Engine
    from seta_stream.store import ObjectInfo


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


@click.command(
    "index", cls=Command, resumes="indexes that were written stay, and the same command goes on with the others."
)
@urls_argument
@click.option("-o", "--out", type=FOLDER, metavar="FOLDER", help="Write the indexes here instead of beside the shards.")
@click.option("--force", is_flag=True, help="Scan shards again whose index fits them.")
@click.option(
    "--way",
    type=click.Choice(["hops", "whole"]),
    help="How remote shards are scanned: from header to header, or read whole; what takes less time by default.",
)
@engine_options
@storage_options
@json_option()
def command(
    urls: tuple[str, ...],
    out: str | None,
    *,
    force: bool,
    way: Literal["hops", "whole"] | None,
    engine: Engine,
    options: dict[str, Any] | None,
    as_json: bool,
) -> None:
    """Index shards, so that a stream opens at once.

    URLS are tar files, brace patterns (train-{00000..00149}.tar), globs in quotes, or .txt lists of these, on disk or
    in a bucket. Indexes are named <shard>.seta-index; a stream finds them beside the shards, or by index=FOLDER. What
    it will take is told first; interrupted, the same command goes on where it stopped.

    \b
    Examples:
        seta-stream index "/data/train-{00000..00149}.tar"
        seta-stream index "s3://bucket/train-*.tar" --options-file s3.json
    """  # noqa: D301  (click's mark for lines to keep is the character itself)
    summary = index_shards(urls, out=out, engine=engine, force=force, way=way, options=options)
    if not summary.samples:
        _warn_of_none(urls)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
        return
    click.echo(
        f"{told_count(summary.shards, 'shard')}, {summary.samples:,} samples, {summary.members:,} members, "
        f"{told_bytes(summary.bytes)}\n{summary.indexed:,} indexed, {summary.shards - summary.indexed:,} were up to "
        f"date; {told_bytes(summary.index_bytes)} of index written in {summary.seconds:.1f} s"
    )


def index_shards(
    urls: Sequence[str],
    *,
    out: str | None,
    force: bool,
    jobs: int | None = None,
    engine: Engine | None = None,
    way: Literal["hops", "whole"] | None = None,
    options: dict[str, Any] | None = None,
) -> Summary:
    """Index what `urls` names and return what was done; a bar is drawn on stderr where that is a terminal.

    Args:
        urls: shards, patterns and lists.
        out: folder of the indexes; None for beside the shards.
        force: whether indexes that fit are made anew.
        jobs: processes of this machine; None for as many as pay.
        engine: where the work runs, instead.
        way: how remote shards are scanned; None for the cheaper way.
        options: of the file system.

    Raises:
        SetaStreamError: a shard is missing, damaged or refused, or an index cannot be written.
    """
    from seta_stream.corpus.bar import index_bar  # noqa: PLC0415  (rich; `seta-stream --help` need not wait for it)
    from seta_stream.corpus.building import Task, build  # noqa: PLC0415  (numpy, likewise)
    from seta_stream.corpus.folders import Folders  # noqa: PLC0415  (numpy, likewise)
    from seta_stream.corpus.indexing import announce  # noqa: PLC0415  (likewise)
    from seta_stream.corpus.listing import expand  # noqa: PLC0415  (likewise)
    from seta_stream.corpus.probing import foresee  # noqa: PLC0415  (likewise)
    from seta_stream.jobs import Engine  # noqa: PLC0415  (likewise)

    engine = engine or Engine(jobs=jobs)
    started = time.perf_counter()
    shards = expand(urls, options)
    targets = _targets(shards, out)
    folders = Folders(options)
    infos = folders.infos(shards)
    headers: dict[int, Any] = {} if force else _up_to_date(targets, infos, folders, options)
    tasks = [
        Task(shard, url, infos[shard], targets[shard], options, must_write=True)
        for shard, url in enumerate(shards)
        if shard not in headers
    ]
    plan, estimate = foresee(tasks, len(shards), jobs=engine.jobs, way=way) if tasks else (None, None)
    if estimate is not None:
        announce(estimate)
    index_bytes = 0
    with index_bar(tasks) as advance:
        for built in build(tasks, engine.jobs, plan, engine=engine):
            advance(built)
            headers[built.task.shard] = built.header
            index_bytes += built.index_bytes
    return Summary(
        shards=len(shards),
        indexed=len(tasks),
        samples=sum(header.samples for header in headers.values()),
        members=sum(header.members for header in headers.values()),
        bytes=sum(header.shard_size for header in headers.values()),
        index_bytes=index_bytes,
        seconds=round(time.perf_counter() - started, 3),
    )


def _warn_of_none(urls: Sequence[str]) -> None:
    from seta_stream.store import shown  # noqa: PLC0415  (numpy; --help need not wait for it)

    warnings.warn(
        f"No shard that {', '.join(map(shown, urls))} names has a sample: members must be named key.field.",
        SetaStreamWarning,
        stacklevel=3,
    )


def _targets(shards: Sequence[str], out: str | None) -> list[str]:
    """Return where each index goes; ArgumentError where nothing can be written."""
    from seta_stream.corpus.places import beside, index_names  # noqa: PLC0415  (as above)
    from seta_stream.store import join  # noqa: PLC0415  (likewise)

    if out is not None:
        return [join(out, name) for name in index_names(shards)]
    refuse_web(shards)
    return [beside(url) for url in shards]


def _up_to_date(
    targets: Sequence[str], infos: Sequence[ObjectInfo], folders: Folders, options: dict[str, Any] | None
) -> dict[int, ShardFacts]:
    """Return the headers of the indexes that lie where they shall and fit their shards, by shard."""
    from seta_stream.corpus.places import places_at  # noqa: PLC0415  (as above)
    from seta_stream.corpus.surveying import fitting  # noqa: PLC0415  (likewise)

    there = places_at(targets, folders, options)
    return {shard: found.facts for shard, found in fitting(range(len(targets)), infos, there).items()}
