"""kill -9 at any moment: nothing is lost, nothing is silently wrong."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
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


def test_a_killed_run_ends_like_one_that_was_not(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Killed at random moments and resumed from its checkpoints, a run delivers the same steps and ends with the same
    losses and history."""
    make_corpus(4, 300)
    pattern = str(tmp_path / "train-{00000..00003}.tar")
    whole = start(pattern, tmp_path / "whole")
    begin = time.monotonic()
    assert whole.wait(60) == 0
    length = time.monotonic() - begin
    chance, kills, broken = random.Random(3), 0, tmp_path / "broken"
    while True:
        child = start(pattern, broken)
        try:
            code = child.wait(chance.uniform(0.3, 0.9) * length if kills < 8 else 60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            kills += 1
            continue
        assert code == 0, (broken / "stderr").read_text()
        break
    assert kills >= 2
    assert log_of(broken) == log_of(tmp_path / "whole")
    assert np.array_equal(np.load(broken / "losses.npy"), np.load(tmp_path / "whole" / "losses.npy"), equal_nan=True)
    histories = [
        [json.loads(line) for line in (folder / "state" / "history.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "whole", broken)
    ]
    last = [[(line["epoch"], line["rule"], line["histogram"]) for line in lines][-1] for lines in histories]
    assert last[0] == last[1]
