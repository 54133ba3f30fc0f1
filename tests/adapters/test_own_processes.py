"""Frameworks that do not live well in one process with the others: their tests, each in a process of its own.

TensorFlow brings its own SQLite and threads; beside it transformers' training hangs or takes pytest's worker with it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
LIMIT_S = 280


@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.parametrize("suite", ["huggingface_suite.py", "lightning_suite.py", "tensorflow_suite.py"])
def test_a_framework_in_a_process_of_its_own(suite: str) -> None:
    """All of its tests pass, and there are some."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / suite)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
