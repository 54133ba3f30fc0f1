"""kill -9 at any moment, of everything, of one process or of one worker: the resumed training ends with the same bits.

A run of one process, or of two that train by DDP, is killed several times and resumed from its checkpoint each time. It
must end as one that nobody touched: weights, optimizer, losses, every step's samples and losses, and the history.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_corpora import text_members, write_tar
from watched_runs import NEVER_S, Run, running

from seta_stream.losses.lock import is_locked

# Every start imports torch, and DDP its compiler: 4 s on an idle machine, five times that on a busy one.
pytestmark = pytest.mark.timeout(400)

Folders = Callable[[int], Path]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("corpus")
    return [str(write_tar(folder / f"{one}.tar", text_members(one * 120, 120))) for one in range(4)]


@pytest.fixture(scope="module")
def whole(shards: list[str], tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Return the folder of a run of so many processes, without workers, that nobody touched."""

    @cache
    def of(world: int) -> Path:
        folder = tmp_path_factory.mktemp(f"whole-{world}")
        finish(folder, options_of(folder, shards, world), world)
        return folder

    return of


def options_of(folder: Path, shards: list[str], world: int, **more: Any) -> dict[str, Any]:
    return {"shards": shards, "state": str(folder / "state"), "batch_size": 12 // world, **more}


def finish(folder: Path, options: dict[str, Any], world: int) -> None:
    """Let a run come to its end, where it leaves nothing."""
    with running(folder, options, world) as run:
        assert run.wait(120) == [0] * world, run.all_told()
        run.check_nothing_left(is_whole=True)
        assert run.all_told().strip() == ""
    check_state(folder / "state")
    assert not list((folder / "state" / "losses").glob(".writing-*"))


def check_state(state: Path) -> None:
    """See that nobody holds the state, and that nothing lies there but what docs/formats/state.md tells."""
    assert not is_locked(state)
    assert {path.name for path in state.iterdir()} <= {"corpus", "history.jsonl", "index", "losses", "pending"}


# ---- what is killed, and when; the chance is seeded


def let_train(run: Run, chance: random.Random) -> None:
    """Wait until some more steps are logged; nobody may have ended."""
    wanted = run.steps() + chance.randint(3, 30)
    run.until(lambda: run.steps() >= wanted)
    assert [process.poll() for process in run.processes] == [None] * len(run.processes), run.all_told()


def kill_all(run: Run, chance: random.Random) -> None:
    let_train(run, chance)
    run.signal(signal.SIGKILL)
    assert set(run.wait()) == {-signal.SIGKILL}


def kill_one(run: Run, chance: random.Random) -> None:
    """Kill one process of the run, not its workers; everyone else must end by itself."""
    let_train(run, chance)
    victim = chance.randrange(len(run.processes))
    os.kill(run.processes[victim].pid, signal.SIGKILL)
    codes = run.wait(NEVER_S)
    assert codes[victim] == -signal.SIGKILL
    assert 0 not in codes


def kill_worker(run: Run, chance: random.Random) -> None:
    """Kill one worker of a process; all must end by themselves, and that process tells of the worker."""
    let_train(run, chance)
    rank = chance.randrange(len(run.processes))
    worker = chance.choice(run.workers(rank))
    os.kill(worker, signal.SIGKILL)
    assert 0 not in run.wait(NEVER_S)
    assert f"DataLoader worker (pid {worker}) is killed by signal: Killed" in run.told(rank)


def await_death(run: Run, chance: random.Random) -> None:
    """Wait for a process that kills itself by its fault, and then for the other."""
    run.until(lambda: False)
    codes = run.wait(NEVER_S)
    assert -signal.SIGKILL in codes, run.all_told()
    assert 0 not in codes


# ---- how it ends


def steps_of(folder: Path, rank: int) -> dict[tuple[int, int], str]:
    """Return every step's samples and losses; a step that was trained twice must have had the same."""
    steps: dict[tuple[int, int], str] = {}
    for line in (folder / f"log-{rank}").read_text().splitlines():
        words = line.split(" ")
        if len(words) == 4 and len(words[3]) == 8:  # else the kill tore it
            epoch, step = int(words[0]), int(words[1])
            told = f"{words[2]} {words[3]}"
            assert steps.setdefault((epoch, step), told) == told, (epoch, step)
    return steps


def history_of(folder: Path) -> list[Any]:
    """Return what the history tells of the epochs that the last generation descends from, costs apart."""
    lines = [json.loads(line) for line in (folder / "state" / "history.jsonl").read_text().splitlines()]
    by_name = {line["generation"]: line for line in lines}
    told, name = [], lines[-1]["generation"]
    while name is not None:
        line = by_name[name]
        counts = {fact: line["facts"][fact] for fact in ("selected", "left_out", "steps", "consumed", "recorded")}
        told.append([line["epoch"], line["rule"], line["histogram"], line["seen"], line["mean"], counts])
        name = line["parent"]
    return told


def check_same(folder: Path, reference: Path, world: int) -> None:
    """See that two runs ended with the same bits."""
    ours, theirs = (torch.load(one / "weights.pt", weights_only=True) for one in (folder, reference))
    assert flat(ours) == flat(theirs)
    for rank in range(world):
        mine, other = (np.load(one / f"losses-{rank}.npy") for one in (folder, reference))
        assert not np.isnan(other).all()
        assert mine.tobytes() == other.tobytes()
        assert steps_of(folder, rank) == steps_of(reference, rank)
    assert history_of(folder) == history_of(reference)
    assert [line[0] for line in history_of(folder)] == [4, 3, 2, 1, 0]


def flat(value: Any) -> Any:
    """Return tensors as bytes, which alone tell bit for bit."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {name: flat(one) for name, one in value.items()}
    return [flat(one) for one in value] if isinstance(value, list | tuple) else value


def train_and_kill(folder: Path, options: dict[str, Any], world: int, kills: list[Any], seed: int) -> None:
    """Start a run once per kill, then let it come to its end."""
    chance = random.Random(seed)
    for kill, fault in kills:
        with running(folder, options | fault, world) as run:
            kill(run, chance)
            run.check_nothing_left()
        check_state(folder / "state")
    finish(folder, options, world)


def test_two_processes(shards: list[str], whole: Folders, tmp_path: Path) -> None:
    """Killed all together, one between sidecars and manifest, one at a random message: the same bits."""
    message = random.Random(5).randint(40, 90)
    kills = [
        (kill_all, {}),
        # The checkpoint before it stands at the end of that epoch: the survivor must leave its losses as they are.
        (await_death, {"fault": "dies in the commit", "fault_rank": 0, "fault_at": 1}),
        (await_death, {"fault": "dies at a message", "fault_rank": 1, "fault_at": message}),
    ]
    train_and_kill(tmp_path, options_of(tmp_path, shards, 2), 2, kills, seed=1)
    check_same(tmp_path, whole(2), 2)


def test_two_processes_with_workers(shards: list[str], whole: Folders, tmp_path: Path) -> None:
    """One process killed under its workers, one worker killed: the same bits as without workers."""
    train_and_kill(tmp_path, options_of(tmp_path, shards, 2, workers=2), 2, [(kill_one, {}), (kill_worker, {})], seed=2)
    check_same(tmp_path, whole(2), 2)


def test_one_process(shards: list[str], whole: Folders, tmp_path: Path) -> None:
    """Killed with its workers, one of them killed, killed alone: the same bits as without workers."""
    kills = [(kill_all, {}), (kill_worker, {}), (kill_one, {})]
    train_and_kill(tmp_path, options_of(tmp_path, shards, 1, workers=2), 1, kills, seed=3)
    check_same(tmp_path, whole(1), 1)


def test_a_full_disk_is_no_end(shards: list[str], whole: Folders, tmp_path: Path) -> None:
    """One process cannot write its sidecars, and all learn it; with room again the epoch is set: nothing is lost."""
    fault = {"fault": "disk is full", "fault_rank": 1, "fault_at": 32, "more": {"again": True}}
    finish(tmp_path, options_of(tmp_path, shards, 2, **fault), 2)
    check_same(tmp_path, whole(2), 2)
