"""Work runs on any engine, and a worker that dies loses none of it."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import job_works
import joblib
import numpy as np
import pytest
from click.testing import CliRunner
from joblib.parallel import ThreadingBackend
from small_corpora import MakeCorpus

from seta_stream import engines, jobs
from seta_stream.cli import main
from seta_stream.cli.index import index_shards
from seta_stream.errors import ArgumentError, CorpusError, MissingExtraError, PeerError
from seta_stream.jobs import Engine, run
from seta_stream.repack import repack
from seta_stream.scoring import Choice, score

TWO = Engine(jobs=2)
TESTS = Path(__file__).parent
SQUARES = {number: number * number for number in range(8)}

BACKENDS = ("dask", "ray")


# ---- local processes


def test_one_process_is_this_one() -> None:
    """It goes in order, hands tasks on as they are made, and starts nothing."""
    made: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    results = run(lambda number: (number, os.getpid()), tasks(), Engine(jobs=1))
    assert next(results) == (0, (0, os.getpid()))
    assert made == [0]
    assert [number for _, (number, _) in results] == [1, 2]


def test_two_processes_share_the_tasks() -> None:
    """Every task comes back with its result, whichever process did it; tasks may be made as they are needed."""
    assert dict(run(job_works.square, range(8), TWO)) == SQUARES
    assert dict(run(job_works.square, iter(range(8)), TWO)) == SQUARES
    assert list(run(job_works.square, [], TWO)) == []


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL in mid-job: its tasks run again, and what had come is not done twice."""
    tasks = [(str(tmp_path), number) for number in range(30)]
    found = {}
    with (tmp_path / "gate").open("wb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # the tasks from 20 on wait for it
        for (_, number), result in run(job_works.square_or_die_late, tasks, TWO):
            found[number] = result
            if len(found) == 20:
                fcntl.flock(gate, fcntl.LOCK_UN)
    assert found == {number: number * number for number in range(30)}
    times = [(tmp_path / f"{number}").stat().st_size for number in range(30)]
    assert times[:20] == [1] * 20
    assert times[20] == 2


def test_a_deadly_task_is_given_up() -> None:
    """After so many deaths over the same task it is named; what had come was handed on."""
    came: list[tuple[int, int]] = []
    with pytest.raises(PeerError, match=r"died 2 times with task .*\b3\b.* under way.*--jobs.*run it again") as caught:
        came.extend(run(job_works.die, range(8), TWO, attempts=2))
    assert caught.value.found == 2
    assert set(came) <= set(SQUARES.items())


def test_errors_keep_their_class_and_facts() -> None:
    """What the work raises is raised as it is, with the worker's traceback as its note."""
    with pytest.raises(CorpusError, match="no good") as caught:
        list(run(job_works.refuse, range(8), TWO))
    assert str(caught.value) == "no good"
    assert (caught.value.shard, caught.value.offset) == ("three.tar", 512)
    assert "in refuse" in caught.value.__notes__[0]


def test_an_error_that_cannot_travel_is_told() -> None:
    """One that cannot be made from its arguments would break the pool: its class and text come instead."""
    with pytest.raises(RuntimeError, match="OddError: 1 is not 0"):
        list(run(job_works.raise_odd, [1, 1], TWO))


def test_an_error_leaves_what_is_under_way() -> None:
    """Other processes' results are handed on before the error, and no further task is begun."""
    made = itertools.count()
    came: list[tuple[int, int]] = []
    with pytest.raises(CorpusError, match="no good"):
        came.extend(run(job_works.refuse, made, TWO))
    assert {(0, 0), (1, 1), (2, 4)} <= set(came)
    assert len(came) == next(made) - 1


# loky, killed while it takes up a task, trips over it in its own thread (joblib 1.6, process_executor.py, line 659)
@pytest.mark.filterwarnings("ignore:Exception in thread ExecutorManagerThread")
def test_closed_early_it_ends() -> None:
    """Tasks that are not begun are not made, and nothing is left running."""
    made = itertools.count()
    results = run(job_works.square, made, TWO)
    next(results)
    results.close()
    assert next(made) < 1000


def test_an_interrupt_ends_all(tmp_path: Path) -> None:
    """Ctrl-C reaches the processes too: the command ends at once, and no worker outlives it."""
    script = f"""
import os, sys, time
sys.path.insert(0, {str(TESTS)!r})
from seta_stream.jobs import Engine, run
import interrupted_work
for task, result in run(interrupted_work.wait, range(100), Engine(jobs=2)):
    pass
"""
    (tmp_path / "interrupted_work.py").write_text(
        "import os, time\n"
        "def wait(number):\n"
        "    if number < 2:\n"
        "        os.write(1, f'{os.getpid()}\\n'.encode())\n"
        "        time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{TESTS.parent}"},
    )  # fmt: skip
    assert child.stdout is not None
    workers = [int(child.stdout.readline()) for _ in range(2)]
    os.killpg(child.pid, signal.SIGINT)
    _, told = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in told
    assert child.returncode != 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}/cmdline").exists() and _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


# ---- what is asked for


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "slurm"}, "Cannot run anything on 'slurm': the backends are local, dask, ray, spark"),
        ({"address": "tcp://a:1"}, "Cannot run on tcp://a:1: the backend is local.*--backend dask, ray or spark"),
        ({"jobs": 0}, "Cannot run in 0 processes: give 1 or more"),
    ],
)
def test_engines_are_checked(arguments: dict[str, Any], message: str) -> None:
    """A wrong engine is refused before anything runs."""
    with pytest.raises(ArgumentError, match=message):
        Engine(**arguments)


def test_as_many_processes_as_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """By processors, tasks and bytes, unless the user says how many; a cluster has its own places."""
    monkeypatch.setattr(jobs, "cpus", lambda: 8)
    assert Engine().processes(100) == 8
    assert Engine().processes(100, 3 << 30) == 3
    assert Engine().processes(100, 5) == 1
    assert Engine().processes(2) == 2
    assert Engine().processes(0) == 1
    assert Engine().processes(100, sharers=4) == 2
    assert Engine(jobs=5).processes(3, 1) == 3
    assert Engine("dask").processes(100, 1) == 100
    assert Engine("dask", jobs=4).processes(100, 1) == 4


@pytest.mark.parametrize(("address", "why"), [("tcp://127.0.0.1:{port}", "refused"), ("nowhere", "no host and port")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_cluster_at_the_address(backend: Any, address: str, why: str) -> None:
    """It is told at once, with the address, where the clients themselves try for minutes."""
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = address.format(port=free.getsockname()[1])
        with pytest.raises(PeerError, match=rf"Cannot reach the \w+ cluster at {where}: .*{why}.*Check --address"):
            list(run(job_works.square, range(3), Engine(backend, where)))


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray"), ("spark", "joblibspark")])
def test_a_missing_client_is_named(backend: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message holds the pip command."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"--backend {backend} needs.*pip install 'seta-stream\[{backend}\]'"):
        list(run(job_works.square, range(3), Engine(backend)))


@pytest.mark.parametrize("command", [("index",), ("repack", "--order", "key", "--to", "new"), ("score",)])
def test_commands_run_where_they_are_told(
    command: tuple[str, ...], make_corpus: MakeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--backend reaches the work: a cluster whose client is missing is one message, not a run on this machine."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.chdir(tmp_path)
    model = ("--state", "state", "--model", "job_works:by_number") if command == ("score",) else ()
    done = CliRunner().invoke(main, [*command, *model, *make_corpus(2, 5), "--backend", "dask", "--jobs", "3"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: --backend dask needs a package")


# ---- Spark, whose part in it is joblib's backend: played by threads here, since pyspark takes 450 MB and a Java


class Threads(ThreadingBackend):  # type: ignore[misc]
    """A joblib backend that, as joblibspark's, gives nothing before all is done."""

    supports_return_generator = False
    lost = False

    def submit(self, func: Any, callback: Any = None) -> Any:
        if self.lost:
            raise ConnectionError("the cluster is gone")
        return super().submit(func, callback)


class Session:
    """The part of pyspark's SparkSession that is used: builder methods return the builder."""

    stopped = 0
    asked: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.builder = self

    def getActiveSession(self) -> None:  # noqa: N802  (Spark's name)
        return None

    def master(self, address: str) -> Session:
        self.asked.append(address)
        return self

    def appName(self, name: str) -> Session:  # noqa: N802  (Spark's name)
        return self

    def getOrCreate(self) -> Session:  # noqa: N802  (Spark's name)
        return self

    def stop(self) -> None:
        type(self).stopped += 1


@pytest.fixture
def spark(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    """Put a stand-in for pyspark and joblibspark where they would be imported."""
    fakes = {"joblibspark": types.ModuleType("joblibspark"), "pyspark.sql": types.ModuleType("pyspark.sql")}
    fakes["joblibspark"].register_spark = lambda: joblib.register_parallel_backend("spark", Threads)  # type: ignore[attr-defined]
    fakes["pyspark.sql"].SparkSession = Session()  # type: ignore[attr-defined]
    monkeypatch.setattr(Session, "stopped", 0)
    monkeypatch.setattr(Session, "asked", [])
    monkeypatch.setitem(sys.modules, "pyspark", types.ModuleType("pyspark"))
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    return Session


def test_spark_goes_in_rounds(spark: type[Session]) -> None:
    """All results come, and no more tasks are made than a round has; the session that was begun is ended."""
    made = itertools.count()
    results = run(job_works.square, itertools.islice(made, 8), Engine("spark", "local[2]", 3))
    first = next(results)
    assert next(made) == 3
    assert dict([first, *results]) == {number: number * number for number in (0, 1, 2, 4, 5, 6, 7, 8)}
    assert (spark.asked, spark.stopped) == (["local[2]"], 1)


def test_spark_that_fails_is_told(spark: type[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the work is the work's, one of the cluster the cluster's."""
    with pytest.raises(CorpusError, match="no good"):
        list(run(job_works.refuse, range(8), Engine("spark")))
    monkeypatch.setattr(Threads, "lost", True)
    with pytest.raises(PeerError, match="Spark gave up a task: the cluster is gone"):
        list(run(job_works.square, range(8), Engine("spark", jobs=2)))
    monkeypatch.setattr(Session, "getOrCreate", lambda self: (_ for _ in ()).throw(ConnectionError("no master")))
    with pytest.raises(PeerError, match="Cannot start Spark on this machine: no master"):
        list(run(job_works.square, range(8), Engine("spark")))
    assert spark.stopped == 2


def test_no_spark_at_the_address(spark: type[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    """Told at once, where Spark itself tries for more than a minute; and without the JVM's trace."""
    with pytest.raises(PeerError, match=r"Cannot reach the Spark cluster at spark://127\.0\.0\.1:1: .*refused"):
        list(run(job_works.square, range(3), Engine("spark", "spark://127.0.0.1:1")))
    trace = "no master\n\tat org.apache.spark.SparkContext"
    monkeypatch.setattr(Session, "getOrCreate", lambda self: (_ for _ in ()).throw(ConnectionError(trace)))
    with pytest.raises(PeerError, match=r"at local\[2\]: no master\. Check --address"):
        list(run(job_works.square, range(3), Engine("spark", "local[2]")))


# ---- real clusters


@pytest.mark.timeout(300)  # several processes start that import much: 10 s alone, over 90 s on a busy machine
@pytest.mark.parametrize("backend", BACKENDS)
def test_on_a_real_cluster(backend: str, make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Two worker processes of Dask or Ray do what this process does; killed in mid-job, they are replaced."""
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    urls = make_corpus(4, 20)
    with tempfile.TemporaryDirectory(prefix="jobs-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        done = subprocess.run(
            [sys.executable, str(TESTS / "clusters_run.py"), backend, str(tmp_path)],
            env={
                **os.environ,
                "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
                "TMPDIR": temporary,
            },
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["squares"] == [number * number for number in range(8)]
    assert told["processes"] == 2
    assert told["error"] == ["CorpusError", "no good", "three.tar"]
    assert told["deadly"].startswith(f"{backend.title()} gave up a task")
    if backend == "dask":
        assert told["abandoned"].startswith("Dask gave up a task: it has had no worker for 1 seconds")
        assert told["deaf"] == [True, True]  # the workers of a cluster that was started for the job
    index_shards(urls, out=str(tmp_path / "here"), force=True)
    assert _files(tmp_path / "index") == _files(tmp_path / "here")
    repack(urls, str(tmp_path / "alone"), order="key", shard_samples=15)
    assert _files(tmp_path / "repacked").keys() == _files(tmp_path / "alone").keys() != set()
    for path in (tmp_path / "alone").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "repacked" / path.name).read_bytes()
    assert (tmp_path / "calls").stat().st_size >= 2  # a worker was killed over sample 30
    report = score(Choice(urls, str(tmp_path / "state"), "job_works:by_number", "basic", restart=True))
    assert told["scored"] == [80, 80, report.mean, report.maximum]
    assert np.isclose(report.mean, np.arange(80).mean() / 2)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in {".tar", ".seta-index"}}


def test_engines_stand_alone() -> None:
    """The clusters' clients are imported where they are asked for, and not before."""
    assert not {"distributed", "ray", "joblibspark"} & set(vars(engines))
