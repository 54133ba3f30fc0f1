"""Whatever starts the processes, they train the same run: torchrun, Ray's actors, Ray Train, Dask, MPI."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hosted_training import BATCH, EPOCHS, WORLD
from small_corpora import text_members, write_tar

SCRIPT = Path(__file__).parent / "hosted_training.py"
SAMPLES = 4 * 31
GLOBAL_BATCH = WORLD * BATCH

COMMANDS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}"],
    "outlived": [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}"],
    "mpi": [str(Path(sys.executable).parent / "mpiexec"), "-n", str(WORLD), sys.executable, "-m", "mpi4py"],
}
"""What starts the script, where that is not Python alone."""

LIMIT_S = 160.0
"""Ray and Dask start five processes and more, that import torch each: 10 s alone, over 90 s on a busy machine."""

pytestmark = pytest.mark.timeout(2 * LIMIT_S)  # torchrun's run may come on top of the host's

SOON_S = 20.0
"""By then a process that was told to end has ended, on a busy machine too."""

needs_ray_train = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("ray", "pandas", "pyarrow")),
    reason="Ray Train needs pandas and pyarrow: pip install 'ray[train]'",
)


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Make a temporary folder for a host alone; its path must be short enough for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="host-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        yield temporary


def members(temporary: str) -> list[int]:
    """Return the processes that live and have this temporary folder."""
    found, mark = [], f"TMPDIR={temporary}".encode()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def survivors(temporary: str) -> list[int]:
    """Return the processes of a host that do not end soon; they are killed, so that none outlives the test."""
    left, end = [], time.monotonic() + SOON_S
    for process in members(temporary):
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(process)
            try:
                if not select.select([handle], [], [], max(0.0, end - time.monotonic()))[0]:
                    left.append(process)
                    os.kill(process, signal.SIGKILL)
            finally:
                os.close(handle)
    return left


def run(host: str, folder: Path) -> list[dict[str, Any]]:
    """Run the training under a host, and see that it leaves nothing; return what each rank saw, in rank order."""
    with temporary_folder() as temporary:
        paths = [str(SCRIPT.parent.parent), str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")]
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "TMPDIR": temporary,
            "HOME": temporary,  # Ray and Dask keep settings there
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "OMP_NUM_THREADS": "1",
        }
        command = [*COMMANDS.get(host, [sys.executable]), str(SCRIPT), host, str(folder)]
        with (folder / f"{host}.log").open("wb") as log:
            started = subprocess.Popen(
                command, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                code = started.wait(timeout=LIMIT_S)
            finally:
                started.kill()
                started.wait()
                left = survivors(temporary)
    told = (folder / f"{host}.log").read_text(errors="replace")
    assert code == 0, told
    assert not left, told
    seen: list[dict[str, Any]] = json.loads((folder / f"{host}.json").read_text())
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the corpus that all hosts read."""
    folder = tmp_path_factory.mktemp("hosts")
    for shard in range(4):
        write_tar(folder / f"train-{shard:05d}.tar", text_members(shard * 31, 31))
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Any]:
    """Return what each rank sees under torchrun: steps [epoch][step][sample] and weights [epoch][sample]."""
    return [one["seen"] for one in run("torchrun", folder)]


def rules(folder: Path, host: str) -> list[Any]:
    """Return what the state of a host's run tells of each epoch: its losses and the rule made of them."""
    lines = (folder / f"state-{host}" / "history.jsonl").read_text().splitlines()
    return [{name: json.loads(line)[name] for name in ("epoch", "rule", "histogram")} for line in lines]


def test_ranks_share_every_step(expected: list[Any]) -> None:
    """Each rank has as many full batches, no sample comes twice, and later epochs read what the losses select."""
    whole = SAMPLES // GLOBAL_BATCH * GLOBAL_BATCH
    for epoch in range(EPOCHS):
        ranks = [one["steps"][epoch] for one in expected]
        read = [sample for steps in ranks for step in steps for sample in step]
        weights = {weight for one in expected for weight in one["weights"][epoch]}
        assert len({len(steps) for steps in ranks}) == 1
        assert all(len(step) == BATCH for steps in ranks for step in steps)
        assert len(read) == len(set(read))
        assert len(read) == whole if epoch == 0 else GLOBAL_BATCH < len(read) < 0.7 * whole
        assert weights == ({1.0} if epoch == 0 else {1.0, 10.0})


@pytest.mark.parametrize("host", ["actors", "dask", "mpi", pytest.param("raytrain", marks=needs_ray_train)])
def test_a_host_trains_the_same_run(host: str, folder: Path, expected: list[Any]) -> None:
    """Its processes read torchrun's steps, with its weights, and remember its losses; no process is left."""
    told = run(host, folder)
    assert [one["rank"] for one in told] == list(range(WORLD))
    assert len({one["process"] for one in told} | {os.getpid()}) == WORLD + 1
    assert [one["seen"] for one in told] == expected
    assert rules(folder, host) == rules(folder, "torchrun")


def test_who_leaves_and_lives_on_is_not_waited_for(folder: Path) -> None:
    """A process that leaves the dataset by an exception ends the others' exchanges at once, though it does not end."""
    first, second = run("outlived", folder)
    assert first["end"].startswith("PeerError: A gather of 12 bytes from here of process 0 of 2 failed")
    assert second["end"] == "ValueError: no such layer"
