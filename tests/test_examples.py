"""The examples, as a reader runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LINE = re.compile(r"epoch (\d+): ([\d,]+) samples, ([\d,]+) bytes")


def test_there_is_one_per_way_of_use() -> None:
    """Three ways to read, and two to drive the learning rate, each short enough to read at a glance."""
    names = ["cosine.py", "numpy_sklearn.py", "onecycle.py", "torch_training.py", "webdataset_pipeline.py"]
    assert [path.name for path in EXAMPLES] == names
    assert all(len(path.read_text().splitlines()) < 80 for path in EXAMPLES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_saves(path: Path, tmp_path: Path) -> None:
    """Without arguments it ends well; every later epoch reads less than the first, and the run at most 60 %."""
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    epochs = [[int(number.replace(",", "")) for number in line.groups()] for line in LINE.finditer(done.stdout)]
    assert [epoch for epoch, _, _ in epochs] == list(range(len(epochs)))
    assert len(epochs) >= 4
    for column in (1, 2):
        first, *later = [line[column] for line in epochs]
        assert max(later) < first
        assert first + sum(later) <= 0.6 * first * len(epochs)
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"
