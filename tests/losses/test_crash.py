"""kill -9 during a commit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What was found after each kill: before every disk call of a commit, then at random moments."""
    driver = Path(__file__).with_name("crash_driver.py")
    folder = tmp_path_factory.mktemp("crash")
    run = subprocess.run([sys.executable, driver, folder], capture_output=True, text=True, check=False, timeout=100)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_a_killed_commit_leaves_a_whole_generation(findings):
    """The one before it or the new one, without a warning, wherever the kill fell."""
    stepped = [one for one in findings if one["step"] > 0]
    assert len(stepped) > 20
    assert {one["epoch"] for one in stepped} == {2, 3}
    assert all(one["whole"] and not one["warned"] for one in findings)


def test_a_killed_commit_is_cleaned_up_by_the_next(findings):
    """No temporary folder stays, and three generations are kept."""
    assert all(one["left"] == [] and one["kept"] == 3 for one in findings)


def test_the_history_has_no_gap_after_a_kill(findings):
    """A line per epoch, each once."""
    assert all(one["history"] for one in findings)
