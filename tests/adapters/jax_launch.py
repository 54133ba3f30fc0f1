"""Starts the JAX processes of a test: each a Python of its own, since JAX and a later fork do not go together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).parent / "jax_driver.py"
SOON_S = 30.0
"""What "at once" may take on a busy machine; the drivers' own time limit is 60 s."""


@contextmanager
def processes(scenario: str, world: int, folder: Path, *, devices: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """Start `world` processes of a scenario with some CPU devices each; none outlives the block."""
    tests = DRIVER.parent.parent
    more = {
        "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    port = free_port()
    started = []
    try:
        for rank in range(world):
            command = [sys.executable, str(DRIVER), scenario, str(folder), str(rank), str(world), str(port)]
            with (folder / f"{rank}.err").open("w") as errors:
                pipe = subprocess.PIPE
                one = subprocess.Popen(
                    command, env={**os.environ, **more}, stdin=pipe, stdout=pipe, stderr=errors, text=True
                )
            started.append(one)
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def seen_by(folder: Path, rank: int) -> Any:
    """Return what a process told, or show why it told nothing."""
    path = folder / f"{rank}.json"
    assert path.exists(), (folder / f"{rank}.err").read_text()
    return json.loads(path.read_text())


def run(scenario: str, world: int, folder: Path, *, devices: int = 1) -> list[Any]:
    """Run a scenario whose processes all end by themselves; return what each saw."""
    with processes(scenario, world, folder, devices=devices) as started:
        codes = [process.wait(timeout=100) for process in started]
        seen = [seen_by(folder, rank) for rank in range(world)]
    assert codes == [0] * world, (folder / "0.err").read_text()
    return seen


def line_of(process: subprocess.Popen[str], wanted: str) -> None:
    """Wait for a line of a process; gloo writes others in between."""
    assert process.stdout is not None
    assert any(line == f"{wanted}\n" for line in process.stdout), f"the process ended before it wrote {wanted!r}"
