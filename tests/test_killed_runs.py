"""kill -9 at any moment: nothing is lost, nothing is silently wrong."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
from small_corpora import MakeCorpus

SCRIPT = str(Path(__file__).parent / "crashing_run.py")
EPOCHS = 6


def start(pattern: str, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, SCRIPT, pattern, str(folder / "state"), str(folder), str(EPOCHS)]
    with (folder / "stderr").open("ab") as errors:
        return subprocess.Popen(command, stderr=errors)


def log_of(folder: Path) -> dict[tuple[int, int], str]:
    """Return the ids of every step; a step that was delivered twice must have had the same ones."""
    steps: dict[tuple[int, int], str] = {}
    for line in (folder / "log").read_text().splitlines():
        epoch, step, ids = line.split(" ", 2)
        if not ids.endswith("]"):
            continue  # torn by the kill
        assert steps.setdefault((int(epoch), int(step)), ids) == ids
    return steps


def lines_of(folder: Path) -> int:
    log = folder / "log"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_a_killed_run_ends_like_one_that_was_not(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Killed at random moments and resumed from its checkpoints, a run delivers the same steps and ends with the same
    losses and history."""
    make_corpus(4, 300)
    pattern = str(tmp_path / "train-{00000..00003}.tar")
    assert start(pattern, tmp_path / "whole").wait(60) == 0
    chance, kills, broken = random.Random(3), 0, tmp_path / "broken"
    while kills < 4:
        child = start(pattern, broken)
        wanted = lines_of(broken) + chance.randint(5, 70)
        while lines_of(broken) < wanted:
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert child.wait(0.002) == 0, (broken / "stderr").read_text()
                break
        child.kill()
        kills += 1
        child.wait()
    assert start(pattern, broken).wait(60) == 0, (broken / "stderr").read_text()
    assert log_of(broken) == log_of(tmp_path / "whole")
    assert np.array_equal(np.load(broken / "losses.npy"), np.load(tmp_path / "whole" / "losses.npy"), equal_nan=True)
    histories = [
        [json.loads(line) for line in (folder / "state" / "history.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "whole", broken)
    ]
    last = [[(line["epoch"], line["rule"], line["histogram"]) for line in lines][-1] for lines in histories]
    assert last[0] == last[1]
