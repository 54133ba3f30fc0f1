"""tf.data over a stream: the tests of tensorflow_suite.py, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).with_name("tensorflow_suite.py")


def test_tensorflow_in_a_process_of_its_own() -> None:
    """TensorFlow brings its own SQLite, which lacks what other tests use, and lends it to the whole process."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
