"""Kills a repack at every step and at random moments, and says what is then there and what the next start does.

Run by test_repack_kills.py: repack_kill_driver.py FOLDER, in which old/*.tar and state/ lie. Prints one JSON object per
killed child. It forks while it has one thread; whatever starts threads runs in children.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

from seta_stream.repack import repack

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock", "os.listdir"}
RANDOM_KILLS = 25


def work(folder: Path, to: Path) -> None:
    state, out = str(folder / "state"), str(to.parent / f"{to.name}-state")
    repack(str(folder / "old" / "*.tar"), str(to), state=state, state_out=out, shard_samples=40, jobs=1)


def kill_at(step: int) -> None:
    """End this process as kill -9 does, before its `step`-th call that touches the disk."""
    left = step

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in EVENTS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(prepare, folder: Path, to: Path) -> int:
    """Run a repack in a child; return its status as os.waitpid gives it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            prepare()
            work(folder, to)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def shards_of(to: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(to.glob("*.tar"))} if to.exists() else {}


def tell(kind: str, folder: Path, to: Path, wanted: dict[str, bytes]) -> None:
    """Say whether what has a final name is whole, and what the same command then makes of it."""
    there = shards_of(to)
    times = {name: (to / name).stat().st_mtime_ns for name in there}
    recorded = [name for name in there if (to / "repack" / f"{name}.order").exists()]
    status = child(lambda: None, folder, to)
    after = shards_of(to)
    left = [path.name for path in [*to.rglob(".*.tmp"), *to.rglob(".writing-*")]]
    kept = [name for name in recorded if (to / name).stat().st_mtime_ns == times[name]]
    generations = list((to.parent / f"{to.name}-state" / "losses").glob("gen-*"))
    told = {
        "kind": kind,
        "whole": all(wanted.get(name) == data for name, data in there.items()),
        "finished": len(recorded),
        "kept": len(kept),
        "status": status,
        "same": after == wanted,
        "left": left,
        "generations": len(generations),
        "indexes": len(list(to.glob("*.seta-index"))),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def clear(to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    shutil.rmtree(to.parent / f"{to.name}-state", ignore_errors=True)


def main() -> None:
    folder = Path(sys.argv[1])
    whole, to = folder / "whole", folder / "killed"
    assert child(lambda: None, folder, whole) == 0
    wanted = shards_of(whole)
    step = 0
    while True:
        step += int(sys.argv[2])
        clear(to)
        if not os.WIFSIGNALED(child(lambda at=step: kill_at(at), folder, to)):
            break
        tell("step", folder, to, wanted)
    chosen = random.Random(0)
    for _ in range(RANDOM_KILLS):
        clear(to)
        delay = chosen.uniform(0.001, 0.12)
        killed = child(lambda: signal.setitimer(signal.ITIMER_REAL, delay), folder, to)  # noqa: B023
        if os.WIFSIGNALED(killed):
            tell("random", folder, to, wanted)


if __name__ == "__main__":
    main()
