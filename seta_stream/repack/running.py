"""Repacks a corpus: begins or goes on, in several processes where that pays, and carries the losses over.

Takes URLs and choices; gives a Report, or a Forecast of what would be done. Acts: all that the files beside it do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from seta_stream.corpus.index import SUFFIX, ShardIndex
from seta_stream.corpus.listing import Urls
from seta_stream.errors import CorpusError, StateLockedError
from seta_stream.jobs import Engine
from seta_stream.jobs import run as run_tasks
from seta_stream.losses.generations import Generations
from seta_stream.repack.carrying import Taken, carry, keep, read_losses, reread
from seta_stream.repack.drafts import remove_left_over, write_file, writing
from seta_stream.repack.forecasting import Forecast, foretell
from seta_stream.repack.holding import Shard
from seta_stream.repack.plan import Order, chained
from seta_stream.repack.preparing import Choice, Prepared, began, finished, prepare, read_record
from seta_stream.repack.record import FOLDER, MANIFEST_NAME, RECORD_SUFFIX, Record, pack_manifest
from seta_stream.repack.writing import NewShard, Task, Written, write_task
from seta_stream.store import ObjectInfo, Options, is_local, join, normalise, store_for

MEMORY_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class Progress:
    """How far a repack has come.

    Args:
        shards_done, shards: new shards that are finished, and all.
        bytes_done, bytes: of samples.
    """

    shards_done: int
    shards: int
    bytes_done: int
    bytes: int


@dataclass(frozen=True)
class Report:
    """What a repack did.

    Args:
        shards_before: shards of the corpus.
        shards: new shards.
        written: how many of these were written now; the others were finished before.
        samples, members: of all new shards; as many as the corpus has.
        bytes_read: from the corpus, and read back from a bucket.
        bytes_written: of shards, indexes and records.
        requests: to remote stores, for shards.
        seconds: wall time.
        generation: by whose losses the samples are ordered, or whose were carried over; None for none.
        carried: name of the generation that holds the losses of the new corpus; None for none.
    """

    shards_before: int
    shards: int
    written: int
    samples: int
    members: int
    bytes_read: int
    bytes_written: int
    requests: int
    seconds: float
    generation: str | None
    carried: str | None


def repack(
    urls: Urls,
    to: str,
    *,
    order: Order = "loss",
    state: str | None = None,
    generation: str | None = None,
    state_out: str | None = None,
    shard_bytes: int | None = None,
    shard_samples: int | None = None,
    prefix: str | None = None,
    jobs: int | None = None,
    index: str | None = None,
    storage_options: Options | None = None,
    to_options: Options | None = None,
    state_options: Options | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Write a corpus anew, samples of similar loss side by side inside each shard, and return what was done.

    Keys, fields and bytes of all samples stay as they are, and each stays in its shard, or in the one that its
    neighbours are split or joined into. Each new shard is verified, and has its final name only then; killed at any
    moment, the same call goes on with the next shard.

    Args:
        urls: the corpus: a pattern, or several.
        to: folder of the new shards, of any protocol; another than the corpus's.
        order: "loss" (ascending, never seen ones last), "key" or "corpus"; equal ones keep their corpus order.
        state: folder of the run whose losses order the samples.
        generation: which of its generations; the newest by default.
        state_out: folder to which the losses are carried over, for a run on the new shards.
        shard_bytes: size that shards are split or joined to, in corpus order, before samples are ordered.
        shard_samples: the same, in samples.
        prefix: of the new shards' names; they keep their own where shards are not split or joined.
        jobs: processes; None for as many as pay.
        index: folder of the corpus's indexes.
        storage_options: what the corpus's file system is given.
        to_options: what that of `to` is given; those of the corpus where the protocol is the same.
        state_options: what those of the states are given; likewise.
        progress: is called after each task.

    Raises:
        ArgumentError: an option is wrong; the folder is the corpus's own, holds other files of these names, or was
            begun with other settings, and what differs is told.
        CorpusError: a shard is damaged, was replaced meanwhile or cannot be repacked; or a new one is not as it should
            be, and was removed.
        StateError: the losses cannot be used, or cannot be carried over.
        StateLockedError: another process repacks into this folder.
        ReadError: a shard cannot be read, or a new one not be written, as on a full disk; what is finished stays.
    """
    patterns = urls if isinstance(urls, str | os.PathLike) else tuple(urls)
    choice = Choice(
        patterns, normalise(to), order, state, generation, state_out, shard_bytes, shard_samples, prefix, jobs, index,
        storage_options, to_options, state_options,
    )  # fmt: skip
    return run(choice, progress)


def run(choice: Choice, progress: Callable[[Progress], None] | None = None) -> Report:
    """Do what `repack` does, for choices that are made."""
    started = time.perf_counter()
    prepared = prepare(choice)
    home = _home(prepared)
    _lock(home, choice.to)
    try:
        taken = _begin(prepared, home)
        done = finished(prepared, None if taken is None else taken.table)
        written = _write_all(prepared, taken, done, progress or (lambda _: None))
        records = _all_records(prepared, done)
        carried = None
        if choice.state_out is not None and taken is not None:
            options = choice.options(choice.state_out)
            carried = carry(taken, prepared.shards, prepared.news, records, choice.state_out, options)
    finally:
        home.close()
    return Report(
        shards_before=len(prepared.shards),
        shards=len(records),
        written=len(written),
        samples=sum(record.samples for record in records),
        members=sum(record.members for record in records),
        bytes_read=sum(one.bytes_read for one in written),
        bytes_written=sum(one.bytes_written for one in written),
        requests=sum(one.requests for one in written),
        seconds=round(time.perf_counter() - started, 3),
        generation=None if taken is None else taken.origin,
        carried=carried,
    )


def forecast(choice: Choice) -> Forecast:
    """Return what `run` would do, without writing anything but indexes into the user's cache folder.

    Raises:
        SetaStreamError: as `run`, for what can be told before something is written.
    """
    prepared = prepare(choice)
    manifest = began(prepared)
    taken = _taken(prepared, _home(prepared), manifest)
    done = {} if manifest is None else finished(prepared, None if taken is None else taken.table)
    return foretell(prepared, frozenset(done), _processes(prepared, done))


def _home(prepared: Prepared) -> Generations:
    return Generations(join(prepared.choice.to, FOLDER), prepared.to_options)


def _lock(home: Generations, to: str) -> None:
    try:
        with writing(join(to, FOLDER)):
            home.lock()
    except StateLockedError as error:
        who = "this process" if error.found == os.getpid() else f"process {error.found}" if error.found else "another"
        raise StateLockedError(
            f"Cannot repack into {to}: {who} does that now. Wait for it to end, or stop it and run the command again.",
            found=error.found,
        ) from error


def _taken(prepared: Prepared, home: Generations, manifest: Mapping[str, Any] | None) -> Taken | None:
    """Return the losses that order the samples, or are carried over; None where none are asked for.

    A repack that has begun keeps to those it began with, whatever its run has learnt meanwhile.
    """
    choice = prepared.choice
    if choice.state is None:
        return None
    if manifest is not None and choice.order == "loss":
        return reread(home, join(choice.to, FOLDER), manifest, prepared.shards, prepared.to_options)
    return read_losses(choice.state, choice.generation, prepared.shards, choice.options(choice.state))


def _begin(prepared: Prepared, home: Generations) -> Taken | None:
    """Go on with what has begun in the folder, or begin: then on, files of the new names there are this repack's."""
    manifest = began(prepared)
    taken = _taken(prepared, home, manifest)
    if manifest is None:
        told = dict(prepared.settings)
        if taken is not None and prepared.choice.order == "loss":
            told |= {"generation": taken.origin, "kept": keep(home, taken, prepared.shards)}
        write_file(prepared.manifest_url, pack_manifest(told), prepared.to_options)
    if is_local(prepared.choice.to):
        folders = (FOLDER,) if manifest is None else (FOLDER, "")
        _remove_left_over(prepared, folders)
    return taken


def _remove_left_over(prepared: Prepared, folders: Sequence[str]) -> None:
    """Remove the hidden files of a start that was killed, or of a worker."""
    names = frozenset(name + ending for name in prepared.names for ending in ("", SUFFIX, RECORD_SUFFIX))
    for folder in folders:
        own = names | {MANIFEST_NAME} if folder else names
        remove_left_over(join(prepared.choice.to, folder), own)


def _write_all(
    prepared: Prepared, taken: Taken | None, done: dict[int, Record], progress: Callable[[Progress], None]
) -> list[Written]:
    """Write what is not done, and tell after each task."""
    sizes = [record.extent_bytes for record in done.values()]
    whole = prepared.wanted_bytes
    progress(Progress(len(sizes), len(prepared.news), sum(sizes), whole))
    written: list[Written] = []
    engine = prepared.choice.engine
    if engine.is_local:
        engine = Engine(jobs=_processes(prepared, done))
    for _, results in run_tasks(write_task, _tasks(prepared, taken, done), engine):
        written += results
        sizes += [one.extent_bytes for one in results]
        progress(Progress(len(sizes), len(prepared.news), sum(sizes), whole))
    if written and is_local(prepared.choice.to):
        _remove_left_over(prepared, (FOLDER, ""))  # of workers that died
    return written


def _processes(prepared: Prepared, done: Mapping[int, Record]) -> int:
    left = len(prepared.news) - len(done)
    size = prepared.wanted_bytes - sum(record.extent_bytes for record in done.values())
    return prepared.choice.engine.processes(left, size)


def _tasks(prepared: Prepared, taken: Taken | None, done: Mapping[int, Record]) -> Iterator[Task]:
    """Give the tasks one by one: each carries the indexes of its shards, which are read when it is made."""
    seekable = prepared.shards.seekable
    store = store_for(prepared.choice.to, prepared.to_options)
    there = frozenset(store.names(prepared.choice.to))
    # A bucket is put a shard whole, from memory.
    processes = _processes(prepared, done) if prepared.choice.engine.is_local else 1
    memory = MEMORY_BYTES // processes // (1 if is_local(prepared.choice.to) else 2)
    for numbers in chained(prepared.news, lambda shard: not seekable[shard]):
        left = [number for number in numbers if number not in done]
        if not left:
            continue
        news = tuple(_new(prepared, taken, number, there) for number in left)
        shards = sorted({piece.shard for new in news for piece in new.pieces})
        indexes = {shard: prepared.corpus.index(shard) for shard in shards}
        yield Task(
            shards={shard: _shard(prepared, shard, index) for shard, index in indexes.items()},
            indexes={shard: index.to_bytes() for shard, index in indexes.items()},
            news=news,
            order=prepared.choice.order,
            memory_bytes=memory,
            to_options=prepared.to_options,
        )


def _new(prepared: Prepared, taken: Taken | None, number: int, there: frozenset[str]) -> NewShard:
    losses = prepared.losses(None if taken is None else taken.table, number)
    return NewShard(
        number=number,
        url=prepared.url(number),
        record_url=prepared.record_url(number),
        pieces=prepared.news[number],
        losses=losses,
        fingerprint=prepared.fingerprint(number, losses),
        is_there=prepared.names[number] in there,
    )


def _shard(prepared: Prepared, number: int, index: ShardIndex) -> Shard:
    table = prepared.shards
    return Shard(
        url=table.urls[number],
        info=ObjectInfo(int(table.sizes[number]), table.versions[number]),
        seekable=bool(table.seekable[number]),
        tar_size=index.tar_size,
        options=prepared.choice.storage_options,
    )


def _all_records(prepared: Prepared, done: Mapping[int, Record]) -> list[Record]:
    """Return the records of all new shards, which together hold every sample of the corpus once.

    Raises:
        CorpusError: they do not.
    """
    numbers = range(len(prepared.news))
    records = [done[number] if number in done else read_record(prepared, number) for number in numbers]
    chosen = prepared.choice.wanted
    samples = prepared.shards.total if chosen is None else int(chosen.sum())
    found = (sum(record.samples for record in records), sum(record.extent_bytes for record in records))
    wanted = (samples, prepared.wanted_bytes if chosen is None else found[1])
    if wanted != found:
        raise CorpusError(
            f"Cannot finish the repack in {prepared.choice.to}: the corpus has {wanted[0]} samples of {wanted[1]} "
            f"bytes, and the new shards have {found[0]} of {found[1]}. Another process changed that folder meanwhile: "
            "remove it, and run the command again.",
            expected=wanted,
            found=found,
        )
    return records
