"""Kills commits at every step and at random moments, and says what a new process then finds.

Run by test_crash.py: crash_driver.py FOLDER. Prints one JSON object per killed child. It forks while it has one
thread, so the tests' own threads are not in the way.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
from state_fakes import CORPUS, RULE, filled

from seta_stream.losses.generations import Generations

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock", "os.listdir"}
RANDOM_KILLS = 40


def commit_next(state: Path) -> None:
    """Commit one epoch more than there is."""
    generations = Generations(str(state))
    newest = generations.ancestor(10**6, None)
    epoch = newest.epoch + 1
    generations.commit(epoch, filled(CORPUS, epoch), CORPUS, RULE, newest.name, {})
    generations.close()


def kill_at(step: int) -> None:
    """End this process as kill -9 does, before its `step`-th call that touches the disk."""
    left = step

    def hook(event: str, _: object) -> None:
        nonlocal left
        if event in EVENTS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def killed(state: Path, prepare, loops: bool) -> bool:
    """Run commits in a child; say whether it was killed."""
    pid = os.fork()
    if pid == 0:
        prepare()
        commit_next(state)
        while loops:
            commit_next(state)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def finding(state: Path) -> dict[str, object]:
    """Say what a new process finds, and whether it can go on."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        generations = Generations(str(state))
        newest = generations.ancestor(10**6, None)
        table = CORPUS.table()
        report = generations.load(newest, table, CORPUS)
        wanted = filled(CORPUS, newest.epoch)
        whole = np.array_equal(table.values, wanted.values, equal_nan=True)
        whole = whole and np.array_equal(table.all_ages, wanted.all_ages) and not report.unseen_shards
        commit_next(state)
        epochs = [line["epoch"] for line in generations.history()]
    return {
        "epoch": newest.epoch,
        "whole": bool(whole),
        "warned": [str(one.message) for one in told],
        "history": epochs == list(range(newest.epoch + 2)),
        "left": [path.name for path in (state / "losses").iterdir() if path.name.startswith(".")],
        "kept": len(list((state / "losses").iterdir())),
    }


def tell(step: int, state: Path) -> None:
    sys.stdout.write(json.dumps({"step": step, **finding(state)}) + "\n")
    sys.stdout.flush()


def at_every_step(base: Path, work: Path) -> None:
    step, goes_on = 0, True
    while goes_on:
        step += 1
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        goes_on = killed(work, lambda at=step: kill_at(at), loops=False)
        if goes_on:
            tell(step, work)


def at_random_moments(base: Path, work: Path) -> None:
    shutil.rmtree(work)
    shutil.copytree(base, work)
    chosen = random.Random(0)
    for _ in range(RANDOM_KILLS):
        delay = chosen.uniform(0.0005, 0.02)
        killed(work, lambda: signal.setitimer(signal.ITIMER_REAL, delay), loops=True)  # noqa: B023
        tell(-1, work)


def main() -> None:
    base, work = Path(sys.argv[1]) / "base", Path(sys.argv[1]) / "work"
    generations = Generations(str(base))
    name = None
    for epoch in range(3):
        name = generations.commit(epoch, filled(CORPUS, epoch), CORPUS, RULE, name, {})
    generations.close()
    at_every_step(base, work)
    at_random_moments(base, work)


if __name__ == "__main__":
    main()
