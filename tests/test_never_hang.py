"""Whatever happens to one process of a run, or to a worker of it: every process ends within seconds, with the cause.

Nothing in these runs has a time limit below 600 s: what ends a process is that another one ended, or told.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from servers import S3Endpoint
from small_corpora import text_members, write_tar
from watched_runs import NEVER_S, Run, running

from seta_stream import SetaStream
from seta_stream.losses.lock import is_locked
from seta_stream.losses.pending_folder import PendingFolder
from seta_stream.store import join, store_for

# Every start imports torch, and DDP its compiler: 4 s on an idle machine, five times that on a busy one.
pytestmark = pytest.mark.timeout(300)

SAMPLES = 240
CUT = r"RuntimeError: .*(Connection closed by peer|Connection reset by peer|Broken pipe)"
LEFT = r"PeerError: .* of process \d of 2 failed: another process left"
LOST = f"{CUT}|{LEFT}"
"""What a process tells of one that is gone: torch's words where it stands in DDP, ours where it sets the epoch."""

MakeOptions = Callable[..., dict[str, Any]]


@pytest.fixture
def options(tmp_path: Path) -> MakeOptions:
    """Return options of a run in the test's folder."""
    count = SAMPLES // 4
    paths = [str(write_tar(tmp_path / f"{one}.tar", text_members(one * count, count))) for one in range(4)]

    def make(**more: Any) -> dict[str, Any]:
        return {"shards": paths, "state": str(tmp_path / "run" / "state"), **more}

    return make


class Case(NamedTuple):
    """What goes wrong, and what each process tells of it."""

    name: str
    fault: dict[str, Any]
    told: tuple[str, str]


def fault(name: str, rank: int = 1, at: int = 0, **more: Any) -> dict[str, Any]:
    return {"fault": name, "fault_rank": rank, "fault_at": at, **more}


FULL = r"StateError: Cannot write generation gen-000000-\w+ to .*File too large.* Free space there"
DIFFERENT = r"PeerError: .* process 0 calls set_epoch\(1\) and process 1 calls close\(\)\. Every process must make"

CASES = [
    Case("dies in a step", fault("dies in a step", at=3), (LOST, "")),
    Case("dies in a step, with workers", fault("dies in a step", 0, at=3, workers=2), ("", LOST)),
    Case("dies as it agrees", fault("dies in the exchange", at=2), (LEFT, "")),
    Case("dies as it sends losses", fault("dies in the exchange", 0, at=6), ("", LEFT)),
    Case("dies as it commits", fault("dies in the commit", 0), ("", LEFT)),
    Case("fails in a step", fault("fails in a step", at=2), (LOST, "RuntimeError: the loop of process 1 failed")),
    Case("worker dies", fault("worker dies", at=50, workers=2), (LOST, r"DataLoader worker \(pid\(?s?\)? \d+\)")),
    Case(
        "worker raises",
        fault("worker raises", 0, at=50, workers=2),
        (r"DecodeError: Cannot decode field 'txt' .* of sample '\d+' in .*\.tar: ValueError: there is no such", LOST),
    ),
    Case("closes too early", fault("closes"), (DIFFERENT, DIFFERENT)),
    Case("full disk", fault("disk is full", at=32), (rf"{FULL}.*\(Told by process 1 of 2\.\)", FULL)),
    Case("full disk at the manifest", fault("disk is full", 0, at=2500), (FULL, rf"{FULL}.*\(Told by process 0 of 2")),
]


def end_soon(run: Run) -> list[int]:
    """Wait until some process ends; return all exit codes, which must follow soon."""
    run.until(lambda: False)
    return run.wait(NEVER_S)


def check_state(state: Path, *, is_killed: bool) -> None:
    """See that nobody holds the state, and that nothing unfinished lies there but what a killed writer left."""
    assert not is_locked(state)
    assert {path.name for path in state.iterdir()} <= {"corpus", "history.jsonl", "index", "losses", "pending"}
    assert is_killed or not list(state.glob("losses/.writing-*"))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_all_processes_end(options: MakeOptions, tmp_path: Path, case: Case) -> None:
    """They start by themselves, so that nobody kills one because another ended; each tells the cause, and is gone."""
    with running(tmp_path / "run", options(**case.fault), 2) as run:
        codes = end_soon(run)
        dies = " dies" in f" {case.fault['fault']}" and "worker" not in case.fault["fault"]
        assert codes[case.fault["fault_rank"]] == (-signal.SIGKILL if dies else 1), run.all_told()
        assert codes[1 - case.fault["fault_rank"]] == 1, run.all_told()
        for rank, told in enumerate(case.told):
            assert re.search(told, run.told(rank)), run.told(rank)
        run.check_nothing_left()
    check_state(tmp_path / "run" / "state", is_killed=dies)


def test_who_fails_and_lives_on_is_not_waited_for(options: MakeOptions, tmp_path: Path) -> None:
    """Leaving the dataset's block by an error exchanges nothing, and tells the others at once: not at the exit."""
    with running(tmp_path / "run", options(**fault("fails and stays")), 2) as run:
        assert run.wait(90, [0]) == [1]
        assert re.search(LEFT, run.told(0)), run.told(0)
        assert run.processes[1].poll() is None
        run.go(1)
        assert run.wait(NEVER_S, [1]) == [0], run.told(1)
        run.check_nothing_left()
    check_state(tmp_path / "run" / "state", is_killed=False)
    # Both kept what they had recorded, for nobody to claim.
    kept = [path.name[-5:] for path in (tmp_path / "run" / "state" / "pending").iterdir() if "000020" in path.name]
    assert sorted(set(kept)) == ["00000", "00001"]


# ---- Ctrl-C


@pytest.mark.parametrize("whom", ["all", "one"])
def test_ctrl_c(options: MakeOptions, tmp_path: Path, whom: str) -> None:
    """Every process ends, who got the signal by it, with all workers."""
    with running(tmp_path / "run", options(workers=2, epochs=500, policy="seta(num_epochs=500,target=0.5)"), 2) as run:
        run.until(lambda: run.steps() > 30)
        if whom == "all":
            run.signal(signal.SIGINT)
        else:
            os.kill(run.processes[1].pid, signal.SIGINT)
        codes = run.wait(NEVER_S)
        assert 0 not in codes
        assert "KeyboardInterrupt" in run.told(1), run.told(1)
        assert re.search(f"KeyboardInterrupt|{LOST}", run.told(0)), run.told(0)
        run.check_nothing_left()
    check_state(tmp_path / "run" / "state", is_killed=False)


# ---- under torchrun, which ends the others


def test_a_death_under_torchrun(options: MakeOptions, tmp_path: Path) -> None:
    """torchrun tells which process died, and nobody is left."""
    with running(tmp_path / "run", options(**fault("dies in a step", at=3, workers=2)), 2, torchrun=True) as run:
        assert run.wait(120) == [1]
        assert re.search(r"rank\s*: 1 \(local_rank: 1\)", run.told()), run.told()
        assert "Signal 9 (SIGKILL) received by PID" in run.told()
        run.check_nothing_left()
    check_state(tmp_path / "run" / "state", is_killed=True)


def test_ctrl_c_under_torchrun(options: MakeOptions, tmp_path: Path) -> None:
    """Ctrl-C at torchrun ends it and all that it started."""
    more = {"workers": 2, "epochs": 500, "policy": "seta(num_epochs=500,target=0.5)"}
    with running(tmp_path / "run", options(**more), 2, torchrun=True) as run:
        run.until(lambda: run.steps() > 30)
        run.signal(signal.SIGINT)
        assert run.wait(2 * NEVER_S) != [0]
        assert "SIGINT" in run.told(), run.told()
        run.check_nothing_left()
    check_state(tmp_path / "run" / "state", is_killed=True)


# ---- workers that cannot look for their parent


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_hanging_worker_ends_with_its_process(options: MakeOptions, tmp_path: Path, start: str) -> None:
    """Killed is process 0, which holds the state, while a decoder in its worker hangs: the worker holds neither the
    state nor the connections, and goes too."""
    folder = tmp_path / "run"
    folder.mkdir()
    os.mkfifo(folder / "pipe")  # nobody ever opens the other end
    with running(folder, options(**fault("worker stays", 0, at=30, workers=2, start=start)), 2) as run:
        run.until((folder / "worker").exists)
        worker = int((folder / "worker").read_text())
        assert worker in run.alive(), run.all_told()
        assert is_locked(folder / "state")
        os.kill(run.processes[0].pid, signal.SIGKILL)
        run.processes[0].wait()
        assert not is_locked(folder / "state")
        assert run.wait(NEVER_S, [1]) == [1]
        assert re.search(LOST, run.told(1)), run.told(1)
        run.check_nothing_left()


# ---- two runs, one state


def test_the_second_run_of_a_state_is_refused(options: MakeOptions, tmp_path: Path) -> None:
    """On each of its processes, by the number of the process that writes; the first run goes on to its end."""
    with running(tmp_path / "run", options(**fault("waits")), 2) as first:
        first.until((tmp_path / "run" / "waits-0").exists)
        with running(tmp_path / "second", options(), 2) as second:
            assert end_soon(second) == [1, 1]
            for rank in range(2):
                writer = f"process {first.processes[0].pid} writes it. Stop that run first"
                assert re.search(f"StateLockedError: .*{writer}", second.told(rank)), second.told(rank)
            second.check_nothing_left()
        for rank in range(2):
            first.go(rank)
        assert first.wait(90) == [0, 0], first.all_told()
        first.check_nothing_left(is_whole=True)
    check_state(tmp_path / "run" / "state", is_killed=False)


def test_the_older_run_of_a_bucket_is_refused(
    options: MakeOptions, tmp_path: Path, s3_server: S3Endpoint, s3_bucket: str
) -> None:
    """At its next commit, on each of its processes, and what it recorded is kept beside the generations."""
    state = join(s3_bucket, "state")
    given = options(state=state, state_options=s3_server.options, **fault("waits"))
    with running(tmp_path / "run", given, 2) as run:
        run.until(lambda: all((tmp_path / "run" / f"waits-{rank}").exists() for rank in range(2)))
        assert None in [process.poll() for process in run.processes], run.all_told()
        SetaStream(given["shards"], policy="full", state=state, state_options=s3_server.options).close()
        for rank in range(2):
            run.go(rank)
        assert run.wait(90) == [1, 1]
        told = rf"StateLockedError: .*another run became its writer after this one \(process {os.getpid()} on"
        for rank in range(2):
            assert re.search(told, run.told(rank)), run.told(rank)
            assert re.search(r"The losses of epoch 0 are kept in s3://\S+/epoch-000000-refused-", run.told(rank))
        run.check_nothing_left()
    store = store_for(state, s3_server.options)
    pending = PendingFolder(store, join(state, "pending"))
    kept = [pending.read(name) for name in store.names(pending.url) if "-refused-" in name]
    assert len(kept) == 2
    assert sorted(np.concatenate([one.ids for one in kept]).tolist()) == list(range(SAMPLES))
