"""Real processes of torch.distributed.run, with DataLoader workers: they share the plan of one, and go on with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import ranks_run
from ranks_scenario import corpus, left_by

ROOT: Final = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(240)  # a launch plays several runs
KEPT_FACTS: Final = ("selected", "left_out", "steps", "consumed")
Seen = list[dict[str, Any]]
"""What each rank saw, by segment."""


@pytest.fixture(scope="module")
def shards() -> list[str]:
    """More shards than processes, one of them empty and one of one sample."""
    return corpus((41, 0, 1, 77, 30, 52))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of all runs here; the indexes that they build lie in it too."""
    place = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(place / "cache"))
        yield place


@pytest.fixture(scope="module")
def alone(shards: list[str], folder: Path) -> dict[str, Any]:
    """Train in one process, this one: what it saw."""
    return ranks_run.segment(shards, {"state": str(folder / "alone"), "workers": 0}, 1)["epochs"]


def launch(world: int, shards: list[str], folder: Path, segments: list[dict[str, Any]]) -> Seen:
    """Run segments in real processes, at a port that torch finds; return what each rank saw."""
    place = folder / f"{world}"
    place.mkdir()
    for one in segments:
        one.setdefault("state", str(folder / f"{one['name']}-{world}"))
        one["save"] = str(folder / f"{one['name']}.saved")
    task = place / "task"
    task.write_text(json.dumps({"shards": shards, "segments": segments}))
    paths = f"{ROOT}:{ROOT / 'tests'}"
    places = {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(place)}
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **places}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    done = subprocess.run(
        [*command, ranks_run.__file__, str(task)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((place / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def four(shards: list[str], folder: Path) -> Seen:
    """Four processes: whole runs without and with workers, and one that is stopped in mid-epoch."""
    first = {"name": "first", "workers": 2, "stop": [1, 3], "state": str(folder / "chain")}
    return launch(4, shards, folder, [{"name": "plain", "workers": 0}, {"name": "workers", "workers": 2}, first])


@pytest.fixture(scope="module")
def two(four: Seen, shards: list[str], folder: Path) -> Seen:
    """Two processes: the same, one that goes on where four stopped, and torchdata's loader, stopped and resumed."""
    second = {"name": "second", "workers": 1, "saved": str(folder / "first.saved"), "stop": [2, 2]}
    stateful = {"workers": 2, "stateful": True, "state": str(folder / "stateful")}
    segments = [
        {"name": "plain", "workers": 0},
        {"name": "workers", "workers": 2},
        second | {"state": str(folder / "chain")},
        stateful | {"name": "stopped", "stop": [1, 4]},
        stateful | {"name": "went on", "saved": str(folder / "stopped.saved")},
    ]
    return launch(2, shards, folder, segments)


def together(seen: Seen, name: str) -> dict[str, Any]:
    """Return a segment's epochs, the ranks' parts of every step put together; all else must be equal."""
    whole = {}
    for epoch, first in seen[0][name]["epochs"].items():
        ranks = [one[name]["epochs"][epoch] for one in seen]
        assert len({len(one["steps"]) for one in ranks}) == 1
        assert all(one["bits"] == first["bits"] for one in ranks)
        assert {len(ids) for one in ranks for ids, _ in one["steps"]} <= {ranks_run.BATCH // len(seen)}
        steps = [
            [[one for ids, _ in step for one in ids], [one for _, weights in step for one in weights]]
            for step in zip(*(one["steps"] for one in ranks), strict=True)
        ]
        whole[epoch] = {**first, "steps": steps}
    return whole


def after(*parts: dict[str, Any]) -> dict[str, Any]:
    """Return the epochs of segments that went on one after another."""
    whole: dict[str, Any] = {}
    for part in parts:
        for epoch, told in part.items():
            before = whole.get(epoch, {"steps": []})
            whole[epoch] = {**told, "steps": before["steps"] + told["steps"]}
    return whole


def test_one_process_reads_its_plan(alone: dict[str, Any]) -> None:
    """The run that the others are compared with: pruned, weighted, each sample once, in whole batches."""
    assert len(alone) == ranks_run.EPOCHS
    for epoch, told in alone.items():
        ids = [number for step, _ in told["steps"] for number in step]
        selected = sum(byte.bit_count() for byte in told["bits"])
        assert len(set(ids)) == len(ids) == told["planned"] == selected // ranks_run.BATCH * ranks_run.BATCH
        assert (epoch == "0") == ({weight for _, weights in told["steps"] for weight in weights} == {1.0})


@pytest.mark.parametrize("name", ["plain", "workers"])
def test_four_processes_share_the_plan(four: Seen, alone: dict[str, Any], folder: Path, name: str) -> None:
    """With 0 and 2 workers: batches, weights, selections, sidecars and history are those of one process."""
    assert together(four, name) == alone
    assert left_by(folder / f"{name}-4", KEPT_FACTS) == left_by(folder / "alone", KEPT_FACTS)


@pytest.mark.parametrize("name", ["plain", "workers"])
def test_two_processes_share_the_plan(two: Seen, alone: dict[str, Any], folder: Path, name: str) -> None:
    """With 0 and 2 workers: as above."""
    assert together(two, name) == alone
    assert left_by(folder / f"{name}-2", KEPT_FACTS) == left_by(folder / "alone", KEPT_FACTS)


def test_four_then_two_then_one_process_go_on(
    four: Seen, two: Seen, shards: list[str], alone: dict[str, Any], folder: Path
) -> None:
    """Stopped twice while workers were ahead, on 4, 2 and 1 processes with 2, 1 and 0 workers: nothing changed."""
    for seen, name in ((four, "first"), (two, "second")):
        assert all(one[name]["saved"] == seen[0][name]["saved"] for one in seen)
        assert len(json.dumps(seen[0][name]["saved"])) < 20_000
        assert all(one[name]["read"] > one[name]["received"] for one in seen), "no worker was ahead"
    task = {"state": str(folder / "chain"), "workers": 0, "saved": str(folder / "second.saved")}
    last = ranks_run.segment(shards, task, 1)["epochs"]
    assert after(together(four, "first"), together(two, "second"), last) == alone
    assert left_by(folder / "chain", KEPT_FACTS) == left_by(folder / "alone", KEPT_FACTS)


def test_torchdatas_loader_goes_on(two: Seen, alone: dict[str, Any], folder: Path) -> None:
    """StatefulDataLoader, in two processes with the same number of workers: each rank loads the one checkpoint."""
    assert after(together(two, "stopped"), together(two, "went on")) == alone
    assert left_by(folder / "stateful", KEPT_FACTS) == left_by(folder / "alone", KEPT_FACTS)
