"""One reader in a process of its own, watched from outside.

Takes a command and a specification; gives what the reader measured itself, and its processor time, memory and
connections as the kernel counts them. Effects: a process; /proc is read 10 times a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVERY_S = 0.1
ESTABLISHED = "01"


class ReaderError(RuntimeError):
    """A reader ended with an error; its last words are in the text."""


@dataclass
class Watched:
    """One reader's run.

    Attributes:
        told: what it printed: seconds, samples, its own counts.
        cpu_s: of the process and of those that it waited for.
        anonymous_bytes: of it and its children together, at most.
        connections: to the server, at most at one time.
    """

    told: dict[str, Any]
    cpu_s: float = 0.0
    anonymous_bytes: int = 0
    connections: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def run_reader(
    command: Sequence[str], spec: Mapping[str, Any], port: int, env: Mapping[str, str] | None = None
) -> Watched:
    """Run one reader to its end.

    Raises:
        ReaderError: it failed.
    """
    before = os.times()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    watched = Watched({})
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, port, watched, done))
    watcher.start()
    out, errors = process.communicate(json.dumps(spec))
    done.set()
    watcher.join()
    after = os.times()
    if process.returncode:
        raise ReaderError(f"{spec.get('reader')} ended with {process.returncode}:\n{errors[-3000:]}")
    watched.told = json.loads(out.strip().splitlines()[-1])
    watched.cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return watched


def _watch(pid: int, port: int, watched: Watched, done: threading.Event) -> None:
    while not done.wait(EVERY_S):
        watched.anonymous_bytes = max(watched.anonymous_bytes, sum(map(anonymous_bytes, _tree(pid))))
        watched.connections = max(watched.connections, _connections(port))


def anonymous_bytes(pid: int | str = "self") -> int:
    """Return the anonymous memory of a process; 0 where it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    return 0


def _tree(pid: int) -> list[int]:
    """Return a process and those below it."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            stat = (folder / "stat").read_text()
            parents[int(folder.name)] = int(stat[stat.rindex(")") :].split()[2])
    found = {pid}
    # Children have higher numbers than their parents, but for the wrap-around, which costs a glance.
    for child in sorted(parents):
        if parents[child] in found:
            found.add(child)
    return list(found)


def _connections(port: int) -> int:
    """Return how many connections to a port of this machine are open, as the connecting side sees them."""
    suffix = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(1 for row in map(str.split, lines) if row[2].endswith(suffix) and row[3] == ESTABLISHED)
