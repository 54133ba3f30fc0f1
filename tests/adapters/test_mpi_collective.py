"""The collective over MPI, between real processes that mpiexec starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from collective_suite import CHECKS

DRIVER = Path(__file__).parent / "mpi_collective_driver.py"
MPIEXEC = Path(sys.executable).parent / "mpiexec"
SOON_S = 30.0
"""What "at once" may take on a busy machine, the start of the processes included; the drivers' limit is 60 s."""


def mpiexec(scenario: str, world: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a scenario as a user would, `mpiexec -n 2 python -m mpi4py script.py`; it ends within the time given."""
    command = [str(MPIEXEC), "-n", str(world), sys.executable, "-m", "mpi4py", str(DRIVER), scenario, str(folder)]
    root = DRIVER.parent.parent.parent
    variables = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL
    )


def run(scenario: str, world: int, folder: Path) -> list[Any]:
    done = mpiexec(scenario, world, folder)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module", params=[1, 2, 3])
def suites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Run the suite once for each number of processes; what each process saw."""
    return run("suite", request.param, tmp_path_factory.mktemp("suite"))


@pytest.mark.parametrize("check", CHECKS)
def test_it_is_a_collective(suites: list[Any], check: str) -> None:
    """It does what every collective does."""
    assert [seen["told"][check] for seen in suites] == ["held"] * len(suites)


def test_a_fork_may_hold_it(suites: list[Any]) -> None:
    """A forked worker is refused an exchange, may close it, and the process that made it goes on."""
    for seen in suites:
        kind, text = seen["forked"]
        assert kind == "UnsupportedError"
        assert "A gather of 0 bytes from here was asked of a MPICollective in process" in text
        assert "exchange there, not in a DataLoader worker" in text
        assert seen["after the fork"] == [str(rank) for rank in range(len(suites))]


def test_it_says_what_is_missing(suites: list[Any]) -> None:
    """A closed collective, a communicator without this process and an MPI that is over are errors that say so."""
    for rank, seen in enumerate(suites):
        assert seen["closed"][0] == "PeerError"
        assert f"process {rank} of {len(suites)} is not possible any more: it was closed." in seen["closed"][1]
        assert seen["nowhere"][0] == seen["finalized"][0] == "ArgumentError"
        assert "is MPI.COMM_NULL: this process is not in it" in seen["nowhere"][1]
        assert "needs MPI, which is not initialised in this process" in seen["finalized"][1]


def test_communicators_keep_apart(tmp_path: Path) -> None:
    """Rank and world are the communicator's, in its order, and no message of the user's is taken for another."""
    for rank, seen in enumerate(run("groups", 4, tmp_path)):
        first = rank // 2 * 2
        assert seen["told"] == dict.fromkeys(CHECKS, "held")
        assert seen["order"] == [1 - rank % 2, [first + 1, first]]
        assert seen["received"] == first + 1 - rank % 2


def test_a_process_that_stays_away_is_not_waited_for(tmp_path: Path) -> None:
    """Who comes to no exchange, or makes no collective, ends in an error once the given time is up, and the job."""
    done = mpiexec("absent", 2, tmp_path)
    assert done.returncode == 7, done.stderr
    seen = json.loads((tmp_path / "0.json").read_text())
    assert [kind for kind, _ in [*seen["told"], seen["made"]]] == ["PeerError"] * 3
    first, later = (text for _, text in seen["told"])
    assert first.startswith("A sum of 3 numbers of process 0 of 2 failed: another process left, or did not come within")
    assert "is not possible any more: an earlier exchange failed (a sum of 3 numbers)" in later
    assert "Process 0 of 2 could not meet the others of its communicator within 1 s" in seen["made"][1]
    assert all(1 <= seconds < SOON_S for seconds in seen["seconds"])


def test_a_killed_process_ends_the_job(tmp_path: Path) -> None:
    """mpiexec ends every process within seconds of one that is killed, and says so."""
    done = mpiexec("killed", 3, tmp_path)
    begun = json.loads((tmp_path / "0.json").read_text())["begun"]
    assert time.time() - begun < SOON_S
    assert done.returncode != 0
    assert "signal 9" in done.stdout + done.stderr


def test_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    """A process that waits for another one, which still lives, ends at once by SIGINT, and the job with it."""
    done = mpiexec("interrupted", 2, tmp_path)
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
    seen = json.loads((tmp_path / "0.json").read_text())
    assert seen["seconds"] < SOON_S
    assert "an earlier exchange was interrupted (a gather of 0 bytes from here)" in seen["later"][1]
