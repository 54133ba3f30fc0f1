"""One writer per state folder of this machine: flock on the folder's own descriptor.

Takes a folder; holds it until released, or until the process ends however it ends. No lock file is left behind.
Effects: one open descriptor, closed on exec and in forked children.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import warnings
import weakref
from errno import EAGAIN, EWOULDBLOCK
from pathlib import Path
from typing import Final

from seta_stream.errors import SetaStreamWarning, StateLockedError

_LOCKS_TABLE: Final = Path("/proc/locks")
_held: weakref.WeakSet[StateLock] = weakref.WeakSet()


class StateLock:
    """The right to write in a folder.

    Args:
        folder: is made where it is not there.
        warn: whether to tell that the file system cannot lock.
    """

    def __init__(self, folder: Path, *, warn: bool = True) -> None:
        self._fd = -1
        self._folder = folder
        self._warns = warn

    def acquire(self) -> None:
        """Take the lock; taking it again is harmless.

        Raises:
            StateLockedError: another stream holds it.
        """
        if self._fd >= 0:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            inode = os.fstat(fd).st_ino
            os.close(fd)
            if error.errno not in {EAGAIN, EWOULDBLOCK}:
                if self._warns:
                    self._warn(error)
                return
            raise self._taken(inode) from error
        self._fd = fd
        _held.add(self)

    def release(self) -> None:
        """Give the lock back; releasing twice is harmless."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        self.release()

    def _taken(self, inode: int) -> StateLockedError:
        pid = _holder(inode)
        if pid == os.getpid():
            who, advice = "another stream of this process", "Call close() on that stream first"
        else:
            who = "another process" if pid is None else f"process {pid}"
            advice = "Stop that run first"
        return StateLockedError(
            f"Cannot write the state {self._folder}: {who} writes it. {advice}, or give this one another state=.",
            found=pid,
        )

    def _warn(self, error: OSError) -> None:
        warnings.warn(
            f"The state {self._folder} lies on a file system that cannot lock ({error.strerror}), so a second run "
            "would not be noticed: see that only one run writes it.",
            SetaStreamWarning,
            stacklevel=4,
        )


def is_locked(folder: Path) -> bool:
    """Say whether someone holds a folder; where the file system cannot tell, say yes."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def holder(folder: Path) -> int | None:
    """Return the process that holds a folder, without touching its lock; None where nobody does or who is unknown."""
    with contextlib.suppress(OSError):
        return _holder(folder.stat().st_ino)
    return None


def _holder(inode: int) -> int | None:
    """Return the process that holds a flock on an inode, where the kernel tells."""
    with contextlib.suppress(OSError, ValueError):
        for line in _LOCKS_TABLE.read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode) and int(words[4]) > 0:
                return int(words[4])
    return None


def _forget_in_child() -> None:
    # Closing a child's copy leaves the parent's lock as it is; a copy kept open would outlive the parent.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
