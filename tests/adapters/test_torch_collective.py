"""The collective over torch.distributed, between real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from collective_suite import CHECKS

from seta_stream.adapters.torch_collective import TorchCollective
from seta_stream.errors import ArgumentError

DRIVER = Path(__file__).parent / "torch_collective_driver.py"
SOON_S = 30.0
"""What "at once" may take on a busy machine; the drivers' own time limit is 60 s."""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"MASTER_ADDR", "MASTER_PORT"}}
    root = DRIVER.parent.parent.parent
    return {**kept, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **more}


@contextmanager
def processes(scenario: str, world: int, folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Start `world` processes of a scenario; those that stay are let go at the end, and none outlives the block."""
    command = [sys.executable, str(DRIVER), scenario, str(folder)]
    started = []
    try:
        for rank in range(world):
            variables, pipe = environment(RANK=str(rank), WORLD_SIZE=str(world)), subprocess.PIPE
            with (folder / f"{rank}.err").open("w") as errors:
                one = subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe, stderr=errors, text=True)
            started.append(one)
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def seen_by(folder: Path, rank: int) -> Any:
    path = folder / f"{rank}.json"
    assert path.exists(), (folder / f"{rank}.err").read_text()
    return json.loads(path.read_text())


def run(scenario: str, world: int, folder: Path) -> list[Any]:
    """Run a scenario whose processes all end by themselves; return what each saw."""
    with processes(scenario, world, folder) as started:
        codes = [process.wait(timeout=100) for process in started]
        seen = [seen_by(folder, rank) for rank in range(world)]
    assert codes == [0] * world, (folder / "0.err").read_text()
    return seen


def torchrun(scenario: str, world: int, folder: Path) -> list[Any]:
    """Run a scenario under torch.distributed.run, at a port that it finds itself."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    done = subprocess.run(
        [*command, str(DRIVER), scenario, str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module", params=[1, 2, 3])
def suites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Run the suite once for each number of processes; what each process saw, by way and check."""
    return torchrun("suite", request.param, tmp_path_factory.mktemp("suite"))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("way", ["own", "registered", "through the group"])
def test_it_is_a_collective(suites: list[Any], way: str, check: str) -> None:
    """It does what every collective does, in each of the three ways that a build of torch may need."""
    assert [seen[way][check] for seen in suites] == ["held"] * len(suites)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NCCL needs a GPU")
def test_nccl_is_a_collective(tmp_path: Path) -> None:
    """Through an NCCL group, as tensors on GPUs, it does what every collective does."""
    for seen in torchrun("nccl", min(3, torch.cuda.device_count()), tmp_path):
        assert seen["nccl"] == dict.fromkeys(CHECKS, "held")


def test_groups_of_a_run_keep_apart(tmp_path: Path) -> None:
    """Rank and world are those of the group, two groups of two work at once, and a process may be in several."""
    seen = run("pairs", 4, tmp_path)
    for rank, one in enumerate(seen):
        held = dict.fromkeys(CHECKS, "held")
        assert one["told"] == {"rows": held, "columns": held, "registered rows": held}
        row, column = rank // 2 * 2, rank % 2
        assert one["members"] == [[row, row + 1]] * 2 + [[column, column + 2]] * 2
    assert [one["order"] for one in seen] == [None, [1, [3, 1]], None, [0, [3, 1]]]
    kind, text = seen[2]["outside"]
    assert kind == "ArgumentError"
    assert "Process 2 of 4 is not in the group given to TorchCollective" in text


@pytest.mark.parametrize("scenario", ["killed", "killed_in_registered"])
def test_a_killed_process_is_noticed_by_all(tmp_path: Path, scenario: str) -> None:
    """All survivors raise within seconds, also those that wait for another survivor, while all of them still live."""
    with processes(scenario, 4, tmp_path) as started:
        for process in started[:3]:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
        assert started[3].wait(timeout=SOON_S) == -signal.SIGKILL
        assert [process.poll() for process in started[:3]] == [None] * 3
        for rank in range(3):
            seen = seen_by(tmp_path, rank)
            assert seen["seconds"] < SOON_S
            kind, text = seen["seen"]
            assert kind == "PeerError"
            assert text.startswith(f"A gather of 2 bytes from here of process {rank} of 4 failed: another process left")
            assert "start all of them again, from the last checkpoint" in text
            kind, text = seen["later"]
            assert kind == "PeerError"
            assert f"process {rank} of 4 is not possible any more: an earlier exchange failed" in text


def test_a_process_that_stays_away_is_not_waited_for(tmp_path: Path) -> None:
    """Who comes to no exchange, or makes no collective, ends in an error once the given time is up: what to do."""
    with processes("absent", 2, tmp_path) as started:
        assert started[0].wait(timeout=60) == 0
        seen = seen_by(tmp_path, 0)
    assert [kind for kind, _ in [*seen["told"], seen["made"]]] == ["PeerError"] * 3
    first, later = (text for _, text in seen["told"])
    assert first.startswith("A sum of 3 numbers of process 0 of 2 failed: another process left, or did not come within")
    assert "is not possible any more: an earlier exchange failed (a sum of 3 numbers)" in later
    assert "Process 0 of 2 could not meet the others of its group within 1 s" in seen["made"][1]
    assert "Every process of the group must construct TorchCollective" in seen["made"][1]
    assert all(1 <= seconds < SOON_S for seconds in seen["seconds"])


@pytest.mark.parametrize("scenario", ["interrupted", "interrupted_in_registered"])
def test_ctrl_c_ends_the_wait(tmp_path: Path, scenario: str) -> None:
    """A process that waits for another one, which still lives, ends at once by SIGINT."""
    with processes(scenario, 2, tmp_path) as started:
        assert started[0].stdout is not None
        assert started[0].stdout.readline() == "waiting\n"
        started[0].send_signal(signal.SIGINT)
        assert started[0].wait(timeout=30) == 0, (tmp_path / "0.err").read_text()
        assert started[1].poll() is None
        seen = seen_by(tmp_path, 0)
    assert seen["seconds"] < SOON_S
    assert "an earlier exchange was interrupted" in seen["later"][1]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Run, once for the tests below, what harms no process; what each process saw, by scenario."""
    return run("quiet", 3, tmp_path_factory.mktemp("quiet"))


def test_workers_may_hold_it(quiet: list[Any]) -> None:
    """Forked DataLoader workers are refused an exchange, may close and drop it, and the main process goes on."""
    for seen in quiet:
        assert seen["forked"] == {"told": ["before"] * 3 + ["after"] * 3, "read": [0, 0, 1, 1, 2, 2]}


def test_it_is_closed_right_after_an_exchange(quiet: list[Any]) -> None:
    """A process that leaves when it is done takes nothing from those that are not; closing twice is once."""
    for rank, seen in enumerate(quiet):
        assert seen["made_and_closed"]["turns"] == [str(turn) for turn in range(8)]
        kind, text = seen["made_and_closed"]["later"]
        assert kind == "PeerError"
        assert f"process {rank} of 3 is not possible any more: it was closed." in text


def test_sums_of_different_size_are_refused(quiet: list[Any]) -> None:
    """Every process learns whose array has another size, and goes on."""
    for seen in quiet:
        kind, text = seen["different_sizes"]["seen"]
        assert kind == "PeerError"
        assert "process 0 gives 5 numbers and process 1 gives 6" in text
        assert seen["different_sizes"]["after"] == "fine"


def test_it_outlives_the_groups_of_the_script(quiet: list[Any]) -> None:
    """destroy_process_group before the stream is closed harms nothing, and a group that is gone is an error."""
    for seen in quiet:
        assert seen["all_destroyed"]["told"] == ["0", "1", "2"]
        assert seen["all_destroyed"]["lost"][0] == "PeerError"


UNCLOSED = """
import atexit, sys
atexit.register(lambda: print(len(adapter._KEPT)))  # after what the adapter registers, for it is registered before
import torch.distributed as dist
from seta_stream.adapters import torch_collective as adapter
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
collective = adapter.TorchCollective()
print(collective.broadcast(b"told").decode(), len(adapter._KEPT), flush=True)
"""


def test_what_is_left_open_is_closed_at_the_end() -> None:
    """A script that forgets `close` ends without threads of the collective beside it."""
    command = [sys.executable, "-c", UNCLOSED]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "told 1\n0\n"), done.stderr


def test_it_needs_torch_distributed() -> None:
    """Without an initialised torch.distributed the error names the call."""
    with pytest.raises(ArgumentError, match=r"call torch\.distributed\.init_process_group\(\) first"):
        TorchCollective()
