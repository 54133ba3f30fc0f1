"""Processes of this machine that play machines: each with a cache folder and a working folder of its own.

Takes the source of a function of a collective; gives what it returns in each process. Starts processes, joins them by
their pipes, and ends them before it returns. `/proc/self/cwd` names a path whose files differ between them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
_MAIN = "from process_team import main; main()"


class PipeCollective:
    """One process's end: every exchange goes to the parent, which answers with what all of them gave."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank = rank
        self.world = world

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        told = [np.frombuffer(part, np.int64) for part in self.gather(counts.tobytes())]
        return np.sum(told, axis=0).reshape(counts.shape)

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        return [bytes.fromhex(row[self.rank]) for row in self._exchange([part.hex() for part in parts])]

    def gather(self, part: bytes) -> list[bytes]:
        return [bytes.fromhex(told) for told in self._exchange(part.hex())]

    def broadcast(self, value: bytes) -> bytes:
        return self.gather(value)[0]

    def _exchange(self, value: Any) -> list[Any]:
        send(sys.stdout, {"exchange": value})
        line = sys.stdin.readline()
        if not line:
            raise EOFError("another process ended")
        return json.loads(line)


def send(stream: IO[str], value: Any) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()


def main() -> None:
    """Run one process: the source defines `work(collective, **its arguments)`."""
    task = json.loads(sys.stdin.readline())
    scope: dict[str, Any] = {}
    exec(task["source"], scope)
    send(sys.stdout, {"done": scope["work"](PipeCollective(task["rank"], task["world"]), **task["arguments"])})


def run_processes(source: str, arguments: Sequence[dict[str, Any]], homes: Sequence[Path]) -> list[Any]:
    """Return what `work` returned in each process.

    Args:
        source: defines `work(collective, **arguments)`, which returns what JSON holds.
        arguments: of each process.
        homes: folder of each: `cache` in it is its cache folder, and it is where the process runs.
    """
    children = []
    for home in homes:
        environment = {**os.environ, "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        children.append(subprocess.Popen([sys.executable, "-c", _MAIN], cwd=home, env=environment, **pipes))
    try:
        for rank, child in enumerate(children):
            task = {"source": source, "rank": rank, "world": len(children), "arguments": arguments[rank]}
            send(child.stdin, task)
        return _serve(children)
    finally:
        for child in children:
            child.kill()
            child.wait()
            child.stdout.close()
            with suppress(OSError):  # what was not sent to a process that ended
                child.stdin.close()


def _serve(children: Sequence[Any]) -> list[Any]:
    while True:
        told = []
        for rank, child in enumerate(children):
            line = child.stdout.readline()
            assert line, f"process {rank} ended without a result; its error stands on stderr"
            told.append(json.loads(line))
        if all("done" in one for one in told):
            return [one["done"] for one in told]
        assert all("exchange" in one for one in told), "some process ended while others exchange"
        for child in children:
            send(child.stdin, [one["exchange"] for one in told])
