"""Where the work of a command runs: processes of this machine, or a cluster that the user has.

Takes a function and its tasks; gives results as they come. Acts: starts processes or asks a cluster, and alone of the
package imports Dask's, Ray's and Spark's clients.

Work may be done twice: a worker that dies (killed, out of memory) takes nothing along but time, since what had come is
kept and the rest runs again. So work must be safe to repeat, as writing a file whole is.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import BrokenExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Generic, Literal, TypeVar, get_args

from seta_stream import engines
from seta_stream.errors import ArgumentError, PeerError

T = TypeVar("T")
R = TypeVar("R")

Backend = Literal["local", "dask", "ray", "spark"]
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)

_BYTES_PER_PROCESS: Final = 1 << 30
"""A process takes a second to start, in which one reads about this much."""


@dataclass(frozen=True)
class Engine:
    """Where work runs.

    Args:
        backend: "local" for processes of this machine, else the cluster's kind. Its workers must have this package,
            and reach the same files and buckets by the same names.
        address: of the cluster, as its own client takes it; None for one that is started on this machine.
        jobs: processes, or tasks that a cluster is given at a time; None for as many as pay, or as it has places.

    Raises:
        ArgumentError: an unknown backend, an address without a cluster, or fewer than one process.
    """

    backend: Backend = "local"
    address: str | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ArgumentError(
                f"Cannot run anything on {self.backend!r}: the backends are {', '.join(BACKENDS)}.",
                expected=BACKENDS,
                found=self.backend,
            )
        if self.backend == "local" and self.address is not None:
            raise ArgumentError(
                f"Cannot run on {self.address}: the backend is local, this machine. Name the cluster's kind: "
                "--backend dask, ray or spark.",
                expected="no address",
                found=self.address,
            )
        if self.jobs is not None and self.jobs < 1:
            raise ArgumentError(f"Cannot run in {self.jobs} processes: give 1 or more.", expected=1, found=self.jobs)

    @property
    def is_local(self) -> bool:
        """Whether work runs in processes of this machine, or in this one."""
        return self.backend == "local"

    def processes(self, tasks: int, size_bytes: int | None = None, *, sharers: int = 1) -> int:
        """Return how many local processes pay; of a cluster nothing is known, and as many as there are tasks do.

        Args:
            tasks: that there are.
            size_bytes: which they read in all, where that is known.
            sharers: processes of this machine that each start so many.
        """
        most = max(1, tasks)
        if self.jobs is not None:
            return min(self.jobs, most)
        if not self.is_local:
            return most
        pay = most if size_bytes is None else size_bytes // _BYTES_PER_PROCESS
        return max(1, min(cpus() // sharers, most, pay))


LOCAL: Final = Engine()
"""As many processes of this machine as pay."""


def cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    work: Callable[[T], R], tasks: Iterable[T], engine: Engine = LOCAL, *, attempts: int = 3
) -> Generator[tuple[T, R], None, None]:
    """Give each task with its result, as they come and in any order.

    What `work` raises is raised here, the same class with the same facts; the worker's traceback is its note. No task
    is begun from then on, and what is under way elsewhere is handed on before. Closed or interrupted before its end,
    it gives up what is under way.

    Args:
        work: a module's function, or a small frozen value that can be called; it travels with each task.
        tasks: values that can be pickled; made one by one as they are needed, where this is a generator.
        engine: where they run. One local process is this one, and goes in order.
        attempts: how often a task may be under way when a local worker dies. A cluster has its own limit.

    Raises:
        PeerError: workers died too often over the same task, or the cluster cannot be reached.
        MissingExtraError: the cluster's client is not installed.
    """
    processes = engine.processes(len(tasks) if isinstance(tasks, Sized) else cpus())
    if engine.is_local and processes == 1:
        for task in tasks:
            yield task, work(task)
        return
    left = _Tasks(tasks)
    while left.error is None and not left.are_done:
        try:
            with closing(_outcomes(_Call(work), left.take(), engine, processes, attempts)) as outcomes:
                yield from left.of(outcomes)
        except BrokenExecutor as death:
            left.blame(attempts, death)
    if left.error is not None:
        raise left.error


def _outcomes(
    call: _Call[T, R], tasks: Iterator[tuple[int, T]], engine: Engine, processes: int, attempts: int
) -> Generator[tuple[int, _Outcome[R]], None, None]:
    """Give what comes of the tasks until all are done, or until a local worker dies."""
    match engine.backend:
        case "local":
            return engines.in_processes(call, tasks, processes)
        case "dask":
            return engines.on_dask(call, tasks, engine.address, engine.jobs)
        case "ray":
            return engines.on_ray(call, tasks, engine.address, engine.jobs, attempts)
        case "spark":
            return engines.on_spark(call, tasks, engine.address, engine.jobs)


@dataclass(frozen=True)
class _Outcome(Generic[R]):
    """What came of a task: its result, or what it raised."""

    result: R
    error: Exception | None = None


@dataclass(frozen=True)
class _Call(Generic[T, R]):
    """Does the work where the task is; an exception comes back as a value.

    So it is told apart from a failure of the engine, and keeps its class whatever the cluster wraps errors in.
    """

    work: Callable[[T], R]

    def __call__(self, number: int, task: T) -> tuple[int, _Outcome[Any]]:
        try:
            return number, _Outcome(self.work(task))
        except Exception as error:  # noqa: BLE001  (raised again where the results are wanted)
            return number, _Outcome(None, _portable(error))


def _portable(error: Exception) -> Exception:
    """Return an error that can travel: itself, or one that says the same where its class cannot be made again."""
    told = "".join(traceback.format_exception(error))
    try:
        reduced = error.__reduce_ex__(2)
        if isinstance(reduced, tuple):
            make, arguments = reduced[:2]
            make(*arguments)
    except Exception:  # noqa: BLE001  (a class whose arguments are not what it keeps fails in its own way)
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error = error.with_traceback(None)
    error.add_note(f"In a worker process:\n{told}")
    return error


class _Tasks(Generic[T]):
    """Tasks by number: those that wait, and those under way, which wait again when a worker dies."""

    def __init__(self, tasks: Iterable[T]) -> None:
        self._fresh = enumerate(tasks)
        self._again: list[tuple[int, T]] = []
        self._under_way: dict[int, T] = {}
        self._deaths: dict[int, int] = {}
        self.error: Exception | None = None
        """What the first task that failed raised."""
        self._is_exhausted = self._is_stopped = False
        # joblib takes tasks in its own threads, and one of a pool that died may be at it still.
        self._lock = threading.Lock()

    @property
    def are_done(self) -> bool:
        return self._is_exhausted and not self._again and not self._under_way

    def take(self) -> Iterator[tuple[int, T]]:
        """Give the tasks that wait, one by one; each is under way from then on."""
        while True:
            with self._lock:
                if self._is_stopped:
                    return
                try:
                    number, task = self._again.pop() if self._again else next(self._fresh)
                except StopIteration:
                    self._is_exhausted = True
                    return
                self._under_way[number] = task
            yield number, task

    def of(self, outcomes: Iterable[tuple[int, _Outcome[R]]]) -> Iterator[tuple[T, R]]:
        """Give tasks that are done, with their results; after the first error, or closed, begin no more."""
        try:
            for number, outcome in outcomes:
                task = self._under_way.pop(number)
                if outcome.error is None:
                    yield task, outcome.result
                elif self.error is None:
                    self.error, self._is_stopped = outcome.error, True
        except GeneratorExit:
            self._is_stopped = True
            raise

    def blame(self, attempts: int, death: BaseException) -> None:
        """Let those under way when a worker died run again.

        Raises:
            PeerError: one of them was under way at so many deaths.
        """
        if self.error is not None:
            return  # which is what the caller will hear of
        with self._lock:
            for number in self._under_way:
                self._deaths[number] = self._deaths.get(number, 0) + 1
            self._again = sorted(chain(self._again, self._under_way.items()), reverse=True)
            self._under_way = {}
        times = max(self._deaths.values(), default=0)
        if times >= attempts:
            worst = [str(number) for number, deaths in sorted(self._deaths.items()) if deaths == times]
            raise PeerError(
                f"Cannot go on: worker processes died {times} times with task {' or '.join(worst)} under way, "
                "killed or out of memory. Results that had come are kept. Give it fewer processes (--jobs) or more "
                f"memory, and run it again. ({str(death).partition('.')[0]})",
                expected="workers that live",
                found=times,
            ) from death


__all__ = ["BACKENDS", "LOCAL", "Backend", "Engine", "cpus", "run"]
