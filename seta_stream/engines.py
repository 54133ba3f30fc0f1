"""The engines of jobs.py: each takes calls, and gives what comes of them, in any order.

Takes a call and numbered tasks, taken as there are places for them; gives what the call returns. Acts: starts or joins
clusters. What the work itself raises is a value here: what an engine raises is a failure of its own.

Local processes and Spark are joblib's. Dask and Ray are asked through their own clients, since (joblib 1.6, Dask
2026.8, Ray 2.60) joblib's Dask backend waits for ever once the scheduler has given up a task whose workers died
(`_collect` in joblib/_dask.py calls nobody back on errors), and Ray's gives nothing before all of it is done and leaves
the calls of a dead actor lost.
"""

from __future__ import annotations

import importlib
import logging
import socket
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Final
from urllib.parse import urlsplit

from seta_stream.errors import MissingExtraError, PeerError

Call = Callable[[int, Any], tuple[int, Any]]
Numbered = Iterator[tuple[int, Any]]
Results = Generator[tuple[int, Any], None, None]

_AHEAD: Final = 2
"""Tasks that each place of a cluster is given: one runs, and the next is there when it ends."""
_PATIENCE_S: Final = 60.0
"""How long a cluster without workers is waited for, before the job and in the midst of it."""
_LOOK_S: Final = 2.0
"""How long a cluster may give nothing before it is asked for its workers."""
_DEAF: Final = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""What Dask's workers of this machine run first: a terminal sends Ctrl-C to them too, and this process ends them."""
_SPARK_HERE: Final = "local[*,4]"
"""Every processor of this machine, and four attempts at a task, as on a cluster: plain local[*] makes one."""
_KNOCK_S: Final = 10.0
"""How long an address may take to answer; the clusters' own clients try for minutes."""


def in_processes(call: Call, tasks: Numbered, processes: int) -> Results:
    """Run calls in processes of this machine.

    Raises:
        BrokenExecutor: one of them died.
    """
    from joblib import Parallel, delayed  # noqa: PLC0415  (only where several processes pay)

    pool = Parallel(
        n_jobs=processes, backend="loky", return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1
    )
    results = pool(delayed(call)(number, task) for number, task in tasks)
    try:
        for outcome in results:  # noqa: UP028  (`yield from` would close it outside of what follows)
            yield outcome
    finally:
        with warnings.catch_warnings():  # who ends early does so on purpose
            warnings.filterwarnings("ignore", message="[0-9]+ tasks (have been|which were)")
            results.close()


def on_dask(call: Call, tasks: Numbered, address: str | None, jobs: int | None) -> Results:
    """Run calls on a Dask cluster, whose workers may come and go; without an address, on one of this machine.

    Raises:
        MissingExtraError: Dask is not installed.
        PeerError: the cluster cannot be reached, has no worker, or gave up a task whose workers died.
    """
    distributed = _needed("dask", "distributed")
    with _dask_client(distributed, address, jobs) as client:
        # Without results: as they are gathered in its own task, one is lost with the worker that held it.
        ended: SimpleQueue[Any] = SimpleQueue()
        under_way: set[Any] = set()

        def await_(future: Any) -> None:
            under_way.add(future)
            future.add_done_callback(ended.put)

        def fill() -> None:
            places = jobs if address is not None and jobs is not None else _AHEAD * sum(client.nthreads().values())
            for number, task in islice(tasks, max(0, max(1, places) - len(under_way))):
                await_(client.submit(_perform, call, number, task, pure=False))

        fill()
        while under_way:
            future = _next_ended(client, ended)
            try:
                outcome = future.result(timeout=_PATIENCE_S)
            except OSError:  # its worker died as it handed it over: Dask has it made again
                await_(future)
                continue
            except Exception as error:
                raise _gave_up("Dask", error) from error
            under_way.discard(future)
            del future
            fill()
            yield outcome


def _next_ended(client: Any, ended: SimpleQueue[Any]) -> Any:
    """Return the next future that ended, however it did.

    Raises:
        PeerError: the cluster had no worker for too long; Dask itself waits for ever.
    """
    alone_s = 0.0
    while True:
        try:
            return ended.get(timeout=_LOOK_S)
        except Empty:
            with suppress(OSError):  # a scheduler that is gone ends all futures
                alone_s = 0.0 if client.nthreads() else alone_s + _LOOK_S
        if alone_s >= _PATIENCE_S:
            raise _gave_up("Dask", TimeoutError(f"it has had no worker for {alone_s:.0f} seconds"))


@contextmanager
def _dask_client(distributed: Any, address: str | None, jobs: int | None) -> Iterator[Any]:
    """Give a client of a cluster; one that was started here ends with it."""
    with ExitStack() as stack:
        where: Any = address
        # What fails is raised, and told once; Dask would log it too, with tracebacks.
        stack.enter_context(_silent("distributed.client"))
        try:
            _knock(address)
            if where is None:
                where = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=jobs,
                        threads_per_worker=1,
                        processes=True,
                        dashboard_address=None,
                        silence_logs=logging.ERROR,
                        preload=[_DEAF],
                    )
                )
            client = stack.enter_context(distributed.Client(where, set_as_default=False))
            client.wait_for_workers(1, timeout=_PATIENCE_S)
        except (OSError, ValueError, RuntimeError) as error:  # TimeoutError is an OSError
            raise _unreachable("Dask", address, "tcp://host:8786", error) from error
        yield client


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Let a module log nothing meanwhile."""
    logging.getLogger(logger).disabled, before = True, logging.getLogger(logger).disabled
    try:
        yield
    finally:
        logging.getLogger(logger).disabled = before


def on_ray(call: Call, tasks: Numbered, address: str | None, jobs: int | None, attempts: int) -> Results:
    """Run calls on a Ray cluster; without an address, on one of this machine, or the one that this process is in.

    Raises:
        MissingExtraError: Ray is not installed.
        PeerError: the cluster cannot be reached, or a task's workers died too often.
    """
    ray = _needed("ray", "ray")
    with _in_ray(ray, address, jobs):
        remote = ray.remote(max_retries=attempts - 1)(_perform)
        under_way: list[Any] = []

        def fill() -> None:
            places = jobs if jobs is not None else _AHEAD * int(ray.cluster_resources().get("CPU", 1))
            under_way.extend(
                remote.remote(call, number, task)
                for number, task in islice(tasks, max(0, max(1, places) - len(under_way)))
            )

        fill()
        try:
            while under_way:
                (ready, *_), left = ray.wait(under_way, num_returns=1)
                under_way[:] = left
                try:
                    outcome = ray.get(ready)
                except ray.exceptions.RayError as error:
                    raise _gave_up("Ray", error) from error
                fill()
                yield outcome
        finally:
            for one in under_way:
                ray.cancel(one, force=True)


@contextmanager
def _in_ray(ray: Any, address: str | None, jobs: int | None) -> Iterator[None]:
    """Be part of a Ray cluster; what was begun here ends with it."""
    if ray.is_initialized():
        yield
        return
    try:
        _knock(address)
        ray.init(
            address=address or "local",
            num_cpus=jobs if address is None else None,
            include_dashboard=False if address is None else None,
            logging_level="ERROR",
            log_to_driver=False,  # it would print to stdout, which is the command's result
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreachable("Ray", address, "ray://host:10001", error) from error
    try:
        yield
    finally:
        ray.shutdown()


def on_spark(call: Call, tasks: Numbered, address: str | None, jobs: int | None) -> Results:
    """Run calls on Spark through joblibspark, which gives nothing before all is done: so in rounds.

    Raises:
        MissingExtraError: joblibspark is not installed.
        PeerError: the cluster cannot be reached, or gave up a task.
    """
    spark = _needed("spark", "joblibspark", "pyspark.sql")
    from joblib import Parallel, delayed, effective_n_jobs, parallel_config  # noqa: PLC0415  (only where asked for)

    try:
        _knock(address)
        session = _spark_session(address)
        spark.register_spark()
    except Exception as error:  # Py4JError and its kin: pyspark brings them, and they have no common base
        raise _unreachable("Spark", address, "spark://host:7077", error) from error
    with _ended(session), parallel_config(backend="spark", n_jobs=-1 if jobs is None else jobs):
        places = _AHEAD * max(1, effective_n_jobs(-1)) if jobs is None else jobs
        while batch := list(islice(tasks, places)):
            try:
                outcomes = Parallel(batch_size=1)(delayed(call)(number, task) for number, task in batch)
            except Exception as error:  # the work's own are values, so this is Spark's
                raise _gave_up("Spark", error) from error
            yield from outcomes


def _spark_session(address: str | None) -> Any:
    """Return a session that was begun here, and is ended here; None where the caller's own is used."""
    builder = importlib.import_module("pyspark.sql").SparkSession
    if builder.getActiveSession() is not None:
        return None
    return builder.builder.master(address or _SPARK_HERE).appName("seta-stream").getOrCreate()


@contextmanager
def _ended(session: Any) -> Iterator[None]:
    try:
        yield
    finally:
        if session is not None:
            session.stop()


def _perform(call: Call, number: int, task: Any) -> tuple[int, Any]:
    """Call; a function, which Ray needs, and with a name by which Dask shows the tasks."""
    return call(number, task)


def _needed(extra: str, *modules: str) -> Any:
    """Return the first of some modules.

    Raises:
        MissingExtraError: one of them cannot be imported.
    """
    try:
        first, *_ = [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise MissingExtraError(
            f"--backend {extra} needs a package that cannot be imported ({error}). Install it here and on the "
            f"cluster's workers: pip install 'seta-stream[{extra}]'",
            expected=modules,
            found=str(error),
        ) from error
    return first


def _knock(address: str | None) -> None:
    """Return where something answers at an address, or it is not of TCP.

    Raises:
        OSError, ValueError: nothing does, or it names no host and port.
    """
    if address is None or address in {"auto", "local"} or address.startswith("local["):
        return
    parts = urlsplit(f"{address}" if "://" in f"{address}" else f"tcp://{address}")
    if parts.scheme not in {"tcp", "tls", "ray", "spark"}:
        return
    if not parts.hostname or not parts.port:
        raise ValueError("it names no host and port")
    socket.create_connection((parts.hostname, parts.port), timeout=_KNOCK_S).close()


def _unreachable(name: str, address: str | None, example: str, error: Exception) -> PeerError:
    what = f"start {name} on this machine" if address is None else f"reach the {name} cluster at {address}"
    advice = "Run it with --backend local." if address is None else f"Check --address ({example}) and that it runs."
    said = (str(error) or type(error).__name__).splitlines()[0]  # the JVM's own trace follows
    return PeerError(f"Cannot {what}: {said}. {advice}", expected=address, found=str(error))


def _gave_up(name: str, error: BaseException) -> PeerError:
    told = " ".join(str(error).split()).rstrip(".")
    return PeerError(
        f"{name} gave up a task: {told}. Its workers died, killed or out of memory, or could not load this package. "
        "Results that had come are kept: look at the workers' logs, and run it again.",
        expected="workers that live",
        found=type(error).__name__,
    )
