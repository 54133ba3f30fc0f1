"""Training runs of several real processes, watched from outside: how they end, and what they leave behind.

Takes options of `training_run.py`; starts its processes, each in a session of its own, or torchrun, with a temporary
folder that is theirs alone and by which their descendants are known. Nothing of a run outlives its block.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent / "training_run.py"
ROOT = SCRIPT.parent.parent
SHARED_MEMORY = Path("/dev/shm")

NEVER_S = 30.0
"""By then every process of a run that cannot go on has ended, on a busy machine too; nothing in the runs has a time
limit below 600 s, so that no time limit can be what ended it."""

OF_TORCH = ("torchinductor_", "torchelastic_")
"""What torch leaves in the temporary folder: that of its compiler (DDP imports it), and torchrun's logs."""

OF_WORKERS = ("pymp-", "tmp")
"""What torch leaves there where a process does not end by itself: the folder of the socket by which a DataLoader's
worker hands over a batch, whose worker is ended by SIGTERM; a file that the DataLoader opens to see, after an error,
whether it still can (`_try_get_data`), where the news of another dead worker comes in between."""

IN_MEMORY = ("torch_", "psm_", "pym-", "sem.", "seta")
"""How files of shared memory are called by torch, by Python, and would be by this package."""

_tick = threading.Event()


class Run:
    """The processes of a run.

    Args:
        folder: of the run; the options and what the processes print go there.
        options: of `training_run.py`, but `folder` and `meeting`.
        world: how many processes.
        torchrun: start them by torchrun.
    """

    def __init__(self, folder: Path, options: dict[str, Any], world: int, *, torchrun: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        # Not below the test's folder: its path would be too long for the name of a socket.
        self.temporary = Path(tempfile.mkdtemp(prefix="watched-"))
        self.before = {path.name for path in SHARED_MEMORY.iterdir()}
        self.number = len(list(folder.glob("options-*.json")))
        meeting = "" if torchrun or world == 1 else str(folder / f"meeting-{self.number}")
        self.options = folder / f"options-{self.number}.json"
        self.options.write_text(json.dumps({"folder": str(folder), "meeting": meeting, **options}))
        command = [sys.executable, str(SCRIPT), str(self.options)]
        if torchrun:
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
            self.processes = [self._start([sys.executable, *launcher, *command[1:]], 0)]
        else:
            ranks = [{"RANK": str(rank), "WORLD_SIZE": str(world)} if world > 1 else {} for rank in range(world)]
            self.processes = [self._start(command, rank, **more) for rank, more in enumerate(ranks)]

    def _start(self, command: Sequence[str], rank: int, **more: str) -> subprocess.Popen[bytes]:
        unset = {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"}
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        path = f"{ROOT}:{SCRIPT.parent}"
        path_of_cache = str(self.folder / "cache")
        own = {
            "PYTHONPATH": path,
            "XDG_CACHE_HOME": path_of_cache,
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            **more,
        }
        with self._errors(rank).open("wb") as errors:
            return subprocess.Popen(
                command,
                env={**kept, **own},
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )

    def _errors(self, rank: int) -> Path:
        return self.folder / f"errors-{self.number}-{rank}"

    def told(self, rank: int = 0) -> str:
        """Return what a process printed."""
        return self._errors(rank).read_text()

    def all_told(self) -> str:
        """Return what all processes printed."""
        return "\n".join(self.told(rank) for rank in range(len(self.processes)))

    def signal(self, number: int, ranks: Sequence[int] | None = None) -> None:
        """Send a signal to processes with all that they started; as Ctrl-C and the end of a job do."""
        for rank in range(len(self.processes)) if ranks is None else ranks:
            with suppress(ProcessLookupError):
                os.killpg(self.processes[rank].pid, number)

    def go(self, rank: int) -> None:
        """Let a process go on that waits for a line."""
        pipe = self.processes[rank].stdin
        assert pipe is not None
        pipe.write(b"go\n")
        pipe.flush()

    def until(self, is_so: Any, limit_s: float = 90.0) -> None:
        """Wait until something is so, or a process has ended."""
        end = time.monotonic() + limit_s
        while not is_so() and all(process.poll() is None for process in self.processes):
            assert time.monotonic() < end, self.stands()
            _tick.wait(0.002)

    def wait(self, limit_s: float = 90.0, ranks: Sequence[int] | None = None) -> list[int]:
        """Return the exit codes of processes, which must come within the limit."""
        end = time.monotonic() + limit_s
        chosen = [self.processes[rank] for rank in (range(len(self.processes)) if ranks is None else ranks)]
        for process in chosen:
            try:
                process.wait(max(0.01, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"not ended within {limit_s} s: {self.stands()}") from None
        return [process.returncode for process in chosen]

    def stands(self) -> str:
        """Return where the processes stand, for a test that waited in vain."""
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        _tick.wait(1.0)
        return self.all_told()

    def steps(self, rank: int = 0) -> int:
        """Return how many steps a process has logged, over all starts of the run."""
        log = self.folder / f"log-{rank}"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def workers(self, rank: int) -> list[int]:
        """Return the DataLoader's workers of a process, which must have been forked."""
        parent = f"PPid:\t{self.processes[rank].pid}\n"
        return [pid for pid in self.alive() if parent in _status(pid)]

    def alive(self) -> list[int]:
        """Return the processes of this run that live, known by their temporary folder."""
        mark = f"TMPDIR={self.temporary}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def check_nothing_left(self, limit_s: float = NEVER_S, *, is_whole: bool = False) -> None:
        """See that no process, no file in the temporary folder and no shared memory is left.

        Args:
            limit_s: by when.
            is_whole: the run came to its end by itself.
        """
        end = time.monotonic() + limit_s
        while (alive := self.alive()) or (shared := self._shared_memory_left()):
            assert time.monotonic() < end, (alive, shared, self.stands())
            _tick.wait(0.05)
        kept = OF_TORCH if is_whole else OF_TORCH + OF_WORKERS
        left = [path.name for path in self.temporary.iterdir() if not path.name.startswith(kept)]
        assert not left, left

    def _shared_memory_left(self) -> set[str]:
        """Return new files of shared memory that no process of the machine holds: others may run beside this one."""
        names = {path.name for path in SHARED_MEMORY.iterdir()}
        # These runs start no joblib: its semaphores, closed once they are mapped, are of a test beside this one.
        own = {name for name in names if name.startswith(IN_MEMORY) and not name.startswith("sem.loky-")}
        new = own - self.before
        return {name for name in new if not _is_held(str(SHARED_MEMORY / name))} if new else set()

    def end(self) -> None:
        """End all that is left."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.temporary, ignore_errors=True)


@contextmanager
def running(folder: Path, options: dict[str, Any], world: int, *, torchrun: bool = False) -> Iterator[Run]:
    """Start a run; end what is left of it."""
    run = Run(folder, options, world, torchrun=torchrun)
    try:
        yield run
    finally:
        run.end()


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def _is_held(path: str) -> bool:
    """Say whether some process has a file open or mapped."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if path in (entry / "maps").read_text():
                return True
        with suppress(OSError):
            for link in (entry / "fd").iterdir():
                with suppress(OSError):
                    if str(link.readlink()) == path:
                        return True
    return False
