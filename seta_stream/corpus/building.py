"""Many shards → their indexes: local ones in several processes where that pays, remote ones many at once in threads.

Takes shards and where their indexes go; gives them as they are done. Acts: reads shards, writes indexes. Each index is
written when its shard is done, whole or not at all: interrupted, the work goes on with the shards that lack one.
"""

from __future__ import annotations

import queue
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from threading import Event
from typing import TYPE_CHECKING, Final

from seta_stream.corpus.conditions import Conditions, Plan
from seta_stream.corpus.costs import HOPS_AT_ONCE
from seta_stream.corpus.index import IndexHeader, read_header
from seta_stream.corpus.places import Home, Place
from seta_stream.corpus.scanning import Scan, scan_quietly
from seta_stream.errors import ReadError, SetaStreamWarning
from seta_stream.jobs import LOCAL, Engine, run
from seta_stream.store import ObjectInfo, Options, is_local, store_for

if TYPE_CHECKING:
    from seta_stream.corpus.interop import Found as Foreign

_BATCH: Final = 4 * HOPS_AT_ONCE
"""Remote shards that are handed to the processes at once, so that each has enough of them under way."""
_CLUSTER_TASKS: Final = 256
"""Into so many tasks the remote shards of a cluster's job are divided at least, so that every worker has some."""
_LOOKS_EVERY_S: Final = 0.5
"""How often it is looked whether the work is still wanted."""


@dataclass(frozen=True)
class Task:
    """One shard to scan.

    Args:
        shard: its number.
        url: where it lies.
        info: its size and version when it was listed; another version of a remote shard is refused.
        target: URL at which its index is written.
        storage_options: what the fsspec file system is given.
        must_write: whether it is an error if the index cannot be written; else it is kept in memory.
        foreign: other tools' indexes beside a remote shard, one of which may spare most of the scan.
        home: which home of indexes the target is, where it is one.
        target_options: what the target's file system is given; None for what the shard's is.
    """

    shard: int
    url: str
    info: ObjectInfo
    target: str
    storage_options: Options | None = field(repr=False)
    must_write: bool
    foreign: tuple[Foreign, ...] = ()
    home: Home = "cache"
    target_options: Options | None = field(default=None, repr=False)

    @property
    def place(self) -> Place:
        """Where its index lies once it is built."""
        options = self.storage_options if self.target_options is None else self.target_options
        return Place(self.target, options, None, self.home)

    @property
    def size(self) -> int:
        """Bytes of the shard."""
        return self.info.size


@dataclass(frozen=True)
class Built:
    """A shard whose index was built.

    Args:
        task: what was asked.
        header: the index's header.
        index_bytes: length of the index file; 0 where another process of the run made it.
        data: the index file, where it could not be written; else None.
        note: a warning for the user, or None.
    """

    task: Task
    header: IndexHeader
    index_bytes: int
    data: bytes | None
    note: str | None


def build(
    tasks: Sequence[Task],
    jobs: int | None = None,
    plan: Plan | None = None,
    *,
    halt: Event | None = None,
    engine: Engine = LOCAL,
) -> Generator[Built, None, None]:
    """Scan shards and write their indexes; give each as it is done, in any order, its warning issued.

    The tasks of a corpus may be divided among processes, as sharing.py does: what each gives is small and can be sent.
    Closed before its end, it gives up what is under way.

    Args:
        tasks: what to scan.
        jobs: number of processes for local shards; None for as many as there are CPUs for each process of the run, if
            there is enough to do.
        plan: how remote shards are scanned, as probing.foresee gives it.
        halt: is set, by another thread, when no more are wanted.
        engine: a cluster that does it, instead of processes of this machine.

    Raises:
        CorpusError: a shard is damaged (TarError), refused, or replaced meanwhile (ShardChangedError).
        ReadError: a shard cannot be read, or an index that must be written cannot.
    """
    near = [task for task in tasks if is_local(task.url)]
    far = [task for task in tasks if not is_local(task.url)]
    plan = plan or Plan()
    results: Iterator[Built]
    if engine.is_local:
        results = chain(_near(near, _processes(near, jobs, plan.ranks)), _far(far, plan, halt))
    else:
        results = _on_cluster(near, far, plan, engine)
    for built in results:
        if built.note:
            warnings.warn(built.note, SetaStreamWarning, stacklevel=3)
        yield built


def _processes(tasks: Sequence[Task], jobs: int | None, ranks: int = 1) -> int:
    return Engine(jobs=jobs).processes(len(tasks), sum(task.size for task in tasks), sharers=ranks)


def _near(tasks: Sequence[Task], processes: int) -> Iterator[Built]:
    ordered = tasks if processes == 1 else _largest_first(tasks)
    for _, built in run(build_one, ordered, Engine(jobs=processes)):
        yield built


def _far(tasks: Sequence[Task], plan: Plan, halt: Event | None) -> Iterator[Built]:
    ordered = _largest_first(tasks)
    if plan.processes == 1 or len(tasks) < 2:
        yield from _in_threads(ordered, plan, halt)
        return
    # Nothing of a batch is known, and nobody can be told to stop, before all of it is done.
    batch_length = _BATCH if halt is None else HOPS_AT_ONCE
    batches = [
        ordered[begin : begin + batch_length][part :: plan.processes]
        for begin in range(0, len(ordered), batch_length)
        for part in range(plan.processes)
    ]
    for _, built in run(_Batches(plan), [batch for batch in batches if batch], Engine(jobs=plan.processes)):
        yield from built


def _on_cluster(near: Sequence[Task], far: Sequence[Task], plan: Plan, engine: Engine) -> Iterator[Built]:
    """Scan shards elsewhere: a file is a task, and so are some remote shards, which one worker scans at once."""
    ordered = _largest_first(far)
    length = max(1, min(HOPS_AT_ONCE, len(far) // _CLUSTER_TASKS))
    groups = [ordered[begin : begin + length] for begin in range(0, len(far), length)]
    for _, built in run(_Batches(plan), [[task] for task in _largest_first(near)] + groups, engine):
        yield from built


def _largest_first(tasks: Sequence[Task]) -> list[Task]:
    """Order shards so that nobody is left alone with a large one at the end."""
    return sorted(tasks, key=lambda task: -task.size)


@dataclass(frozen=True)
class _Batches:
    """Builds some indexes in a process of its own."""

    plan: Plan

    def __call__(self, tasks: Sequence[Task]) -> list[Built]:
        return list(_in_threads(tasks, self.plan))


def _in_threads(tasks: Sequence[Task], plan: Plan, halt: Event | None = None) -> Iterator[Built]:
    """Scan remote shards many at once; whatever ends this (an error, an interrupt) gives up the requests of all."""
    if not tasks:
        return
    conditions = Conditions(plan)
    pool = ThreadPoolExecutor(min(len(tasks), max(1, HOPS_AT_ONCE // plan.sharers)), "seta-index")
    done: queue.SimpleQueue[Future[Built]] = queue.SimpleQueue()
    try:
        for task in tasks:
            pool.submit(build_one, task, conditions).add_done_callback(done.put)
        left = len(tasks)
        while left and not (halt is not None and halt.is_set()):
            try:
                future = done.get(timeout=None if halt is None else _LOOKS_EVERY_S)
            except queue.Empty:
                continue
            left -= 1
            yield future.result()
    finally:
        conditions.stop()
        pool.shutdown(cancel_futures=True)


def build_one(task: Task, conditions: Conditions | None = None) -> Built:
    """Scan one shard and write its index; in a worker process, its result is what travels back."""
    scan = _scan(task, conditions)
    data = scan.index.to_bytes()
    try:
        store_for(task.target, task.place.options).write(task.target, data)
    except OSError as error:
        if task.must_write:
            raise ReadError(
                f"Cannot write the index of {task.url} to {task.target}: {error}. Choose another folder with --out.",
                shard=task.url,
                expected="a folder that can be written",
                found=str(error),
            ) from error
        return Built(task, read_header(data), len(data), data, scan.note)
    return Built(task, read_header(data), len(data), None, scan.note)


def _scan(task: Task, conditions: Conditions | None) -> Scan:
    """Return a shard's index: another tool's where one lies beside it and agrees, else by scanning."""
    notes: tuple[str, ...] = ()
    if task.foreign:
        from seta_stream.corpus.interop import adopt_quietly  # noqa: PLC0415  (sqlite3; rarely needed)

        adopted, notes = adopt_quietly(task.url, task.storage_options, info=task.info, found=task.foreign)
        if adopted is not None:
            return Scan(adopted, "\n".join(notes) or None)
    scan = scan_quietly(task.url, task.storage_options, info=task.info, conditions=conditions)
    return Scan(scan.index, "\n".join([*notes, *([scan.note] if scan.note else [])]) or None)
