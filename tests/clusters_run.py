"""Runs jobs on a real cluster of two worker processes, and prints what came of them as JSON.

Run by test_jobs.py: clusters_run.py dask|ray FOLDER, where train-*.tar lie in FOLDER.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import job_works

from seta_stream import engines
from seta_stream.cli.index import index_shards
from seta_stream.errors import CorpusError, PeerError
from seta_stream.jobs import Engine, run
from seta_stream.repack import Choice as RepackChoice
from seta_stream.repack import run as run_repack
from seta_stream.scoring import Choice, score


def process_of(number: int) -> tuple[int, int]:
    import time

    time.sleep(0.2)  # long enough that one worker cannot take them all
    return number, os.getpid()


@contextmanager
def cluster(backend: str) -> Iterator[tuple[Engine, Any]]:
    if backend == "dask":
        import dask
        from distributed import LocalCluster

        dask.config.set({"distributed.scheduler.allowed-failures": 1})
        with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as made:
            yield Engine("dask", made.scheduler_address), made
        return
    import ray

    ray.init(
        "local", num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False,
        _temp_dir=os.environ["TMPDIR"],
    )  # fmt: skip
    yield Engine("ray"), None
    ray.shutdown()


def work(engine: Engine, folder: Path) -> dict[str, Any]:
    tasks = [(str(folder), number) for number in range(8)]
    told: dict[str, Any] = {"processes": len({pid for _, (_, pid) in run(process_of, range(8), engine)})}
    told["squares"] = sorted(done for _, done in run(job_works.square_or_die, tasks, engine))
    try:
        list(run(job_works.refuse, range(8), engine))
    except CorpusError as error:
        told["error"] = [type(error).__name__, error.message, error.shard]
    urls = [str(path) for path in sorted(folder.glob("train-*.tar"))]
    index_shards(urls, out=str(folder / "index"), force=True, engine=engine)
    choice = RepackChoice(urls, str(folder / "repacked"), "key", *[None] * 4, 15, *[None] * 6, engine)
    run_repack(choice)
    report = score(Choice(urls, str(folder / "state"), "job_works:one_dies", "basic", batch_size=8, engine=engine))
    told["scored"] = [report.scored, report.seen, report.mean, report.maximum]
    try:
        list(run(job_works.die, range(8), engine, attempts=2))
    except PeerError as error:
        told["deadly"] = error.message
    return told


def is_deaf(_: int) -> bool:
    """Say whether Ctrl-C, which a terminal sends to every process, leaves this one alone."""
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def abandoned(engine: Engine, made: Any) -> str:
    """Return how a job ends whose cluster loses all workers and gets no others."""
    engines._PATIENCE_S, engines._LOOK_S = 1.0, 0.1  # type: ignore[misc]  # so that the test need not wait a minute
    made.scheduler.allowed_failures = 100
    results = run(process_of, range(200), engine)
    next(results)
    made.scale(0)
    try:
        list(results)
    except PeerError as error:
        return error.message
    return "it came to an end"


if __name__ == "__main__":
    with cluster(sys.argv[1]) as (engine, made):
        told = work(engine, Path(sys.argv[2]))
        if made is not None:
            told["abandoned"] = abandoned(engine, made)
            told["deaf"] = [deaf for _, deaf in run(is_deaf, range(2), Engine("dask", jobs=1))]
    sys.stdout.write(json.dumps(told) + "\n")
