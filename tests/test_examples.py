"""The examples, as a reader runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LIMIT_S = 180
"""Ray and Dask start processes of their own, which takes long on a busy machine."""
LINE = re.compile(r"epoch (\d+): ([\d,]+) samples, ([\d,]+) bytes")


SEVERAL = {"accelerate_loop": "torchrun", "ddp": "torchrun", "huggingface_trainer": "torchrun", "mpi_numpy": "mpiexec"}
"""Examples that run in two processes as well, and what starts them."""


def test_there_is_one_per_way_of_use() -> None:
    """A program for each way to read, to drive the learning rate and to start processes, short enough for a glance."""
    names = ["accelerate_loop", "cosine", "dask_training", "ddp", "huggingface_trainer", "jax_mesh"]
    names += ["lightning_training", "mpi_numpy", "numpy_sklearn", "onecycle", "ray_train", "tensorflow_data"]
    names += ["torch_training", "webdataset_pipeline"]
    assert [path.stem for path in EXAMPLES] == names
    assert all(len(path.read_text().splitlines()) < 80 for path in EXAMPLES)


def check(command: list[str], folder: Path) -> None:
    """Run an example; see that it ends well, saves what it should, and leaves nothing behind."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    epochs = [[int(number.replace(",", "")) for number in line.groups()] for line in LINE.finditer(done.stdout)]
    assert [epoch for epoch, _, _ in epochs] == list(range(len(epochs)))
    assert len(epochs) >= 4
    for column in (1, 2):
        first, *later = [line[column] for line in epochs]
        assert max(later) < first
        assert first + sum(later) <= 0.6 * first * len(epochs)
    assert list(folder.iterdir()) == [], "an example leaves nothing behind"


@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_saves(path: Path, tmp_path: Path) -> None:
    """Without arguments it ends well; every later epoch reads less than the first, and the run at most 60 %."""
    check([sys.executable, str(path)], tmp_path)


@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.parametrize("name", SEVERAL)
def test_an_example_runs_in_two_processes(name: str, tmp_path: Path) -> None:
    """Process 0 prints what both read together: the same lines."""
    launch = {
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
        "mpiexec": [str(Path(sys.executable).parent / "mpiexec"), "-n", "2", sys.executable, "-m", "mpi4py"],
    }
    check([*launch[SEVERAL[name]], str(ROOT / "examples" / f"{name}.py")], tmp_path)
