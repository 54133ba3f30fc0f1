"""Many shards → their indexes, in several processes where that pays.

Takes shards and where their indexes go; gives them as they are done. Acts: reads shards, writes indexes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from seta_stream.corpus.index import IndexHeader, read_header
from seta_stream.corpus.scanning import scan_quietly
from seta_stream.errors import ReadError, SetaStreamWarning
from seta_stream.store import Options, store_for

_BYTES_PER_PROCESS: Final = 1 << 30
"""A process takes a second to start, in which one scans about this much."""


@dataclass(frozen=True)
class Task:
    """One shard to scan.

    Args:
        shard: its number.
        url: where it lies.
        size: its bytes.
        target: URL at which its index is written.
        storage_options: what the fsspec file system is given.
        must_write: whether it is an error if the index cannot be written; else it is kept in memory.
    """

    shard: int
    url: str
    size: int
    target: str
    storage_options: Options | None
    must_write: bool


@dataclass(frozen=True)
class Built:
    """A shard whose index was built.

    Args:
        task: what was asked.
        header: the index's header.
        index_bytes: length of the index file.
        data: the index file, where it could not be written; else None.
        note: a warning for the user, or None.
    """

    task: Task
    header: IndexHeader
    index_bytes: int
    data: bytes | None
    note: str | None


def build(tasks: Sequence[Task], jobs: int | None = None) -> Iterator[Built]:
    """Scan shards and write their indexes; give each as it is done, in any order, its warning issued.

    Args:
        tasks: what to scan.
        jobs: number of processes; None for as many as there are CPUs, if there is enough to do for them.

    Raises:
        CorpusError: a shard is damaged (TarError), refused, or replaced meanwhile (ShardChangedError).
        ReadError: a shard cannot be read, or an index that must be written cannot.
    """
    for built in _results(tasks, _processes(tasks, jobs)):
        if built.note:
            warnings.warn(built.note, SetaStreamWarning, stacklevel=3)
        yield built


def _processes(tasks: Sequence[Task], jobs: int | None) -> int:
    if jobs is not None:
        return max(1, min(jobs, len(tasks)))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, len(tasks), sum(task.size for task in tasks) // _BYTES_PER_PROCESS))


def _results(tasks: Sequence[Task], processes: int) -> Iterator[Built]:
    if processes == 1:
        yield from map(build_one, tasks)
        return
    from joblib import Parallel, delayed  # noqa: PLC0415  (only where several processes pay)

    # Large shards first, so that no process is left alone with one at the end.
    ordered = sorted(tasks, key=lambda task: -task.size)
    pool = Parallel(n_jobs=processes, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
    yield from pool(delayed(build_one)(task) for task in ordered)


def build_one(task: Task) -> Built:
    """Scan one shard and write its index; in a worker process, its result is what travels back."""
    scan = scan_quietly(task.url, task.storage_options)
    data = scan.index.to_bytes()
    try:
        store_for(task.target, task.storage_options).write(task.target, data)
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
