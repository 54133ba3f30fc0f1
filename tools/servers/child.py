"""Processes that end with their parent.

Takes: a command. Gives: a running process that has said or shown that it is ready.
Effects: starts processes; each is stopped at the end of its `with` block and, where Linux's setpriv is there, by the
kernel as soon as the thread that started it ends: a killed test run leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Timer
from typing import Any

INSTALL = "bash tools/install_servers.sh"
START_S = 60.0
STOP_S = 5.0
TOOLS = Path(__file__).parent.parent


class ServerError(RuntimeError):
    """A server is not installed, did not start, or ended too early."""


def server_folder() -> Path:
    """Return the folder that tools/install_servers.sh installs into."""
    return Path.home() / ".cache" / "seta-stream-servers"


class Url(str):
    """A server's address: a str wherever a URL goes, which also tells about its server."""

    __slots__ = ()

    @property
    def url(self) -> str:
        """The address alone."""
        return str(self)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Travel to other processes as the plain address."""
        return str, (str(self),)


class Child:
    """One running process, and what it writes to stderr."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, errors: Any) -> None:
        self.name = name
        self.process = process
        self._errors = errors
        self._talk = Lock()

    def stderr(self) -> str:
        """Return the end of what the process wrote to stderr."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4000))
        return str(self._errors.read().decode(errors="replace")).strip()

    def failure(self, what: str) -> ServerError:
        """Return the error that says what went wrong, and what the process said itself."""
        return ServerError(f"{self.name} {what}; exit code {self.process.poll()}, stderr: {self.stderr() or '(empty)'}")

    def line(self) -> str:
        """Wait for one line of stdout.

        Raises:
            ServerError: it did not come in time, or the process ended.
        """
        assert self.process.stdout is not None
        # Killing the process is what ends a readline that waits for ever.
        watch = Timer(START_S, self.process.kill)
        watch.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watch.cancel()
        if not line.endswith(b"\n"):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            raise self.failure("did not answer")
        return line.decode()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send one JSON line to the process and return the JSON line that it answers."""
        assert self.process.stdin is not None
        with self._talk:
            try:
                self.process.stdin.write(json.dumps(question).encode() + b"\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                raise self.failure("is gone") from None
            answer: dict[str, Any] = json.loads(self.line())
        return answer

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Return once `is_ready` says so.

        Raises:
            ServerError: the process ended before, or was not ready in time.
        """
        end = time.monotonic() + START_S
        while not is_ready():
            if self.process.poll() is not None:
                raise self.failure("ended at its start")
            if time.monotonic() > end:
                raise self.failure(f"was not ready after {START_S:.0f} s")
            time.sleep(0.005)


@contextmanager
def running(command: Sequence[str], *, name: str, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run a command until the block ends.

    Args:
        command: program and arguments; it must not put itself in the background.
        name: what errors call it.
        env: the environment; None: this process's.
    """
    setpriv = shutil.which("setpriv")
    tied = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv and sys.platform == "linux" else []
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*tied, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=env,
            start_new_session=True,  # an interrupt at the keyboard is for the tests, which then stop it
        )
        try:
            yield Child(process, name, errors)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()


@contextmanager
def running_module(module: str, arguments: Mapping[str, Any], *, name: str) -> Iterator[tuple[Child, dict[str, Any]]]:
    """Run `python -m module <JSON>` of this folder; gives it, and the JSON line that it says when it is ready."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])}
    # The warnings that a test run turns into errors are its own, not the servers'.
    env.pop("PYTHONWARNINGS", None)
    with running([sys.executable, "-m", module, json.dumps(arguments)], name=name, env=env) as child:
        yield child, json.loads(child.line())


def free_port() -> int:
    """Return a port of the loopback that nobody listens on right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether something accepts connections at a port of the loopback."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
