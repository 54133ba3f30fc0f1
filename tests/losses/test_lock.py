"""The lock on a state folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from seta_stream.errors import SetaStreamWarning, StateLockedError
from seta_stream.losses import lock
from seta_stream.losses.lock import StateLock, is_locked

HOLDER = """
import sys
from pathlib import Path
from seta_stream.losses.lock import StateLock
held = StateLock(Path(sys.argv[1]))
held.acquire()
print("held", flush=True)
sys.stdin.read()
"""

FORKER = """
import os, sys
from pathlib import Path
from seta_stream.losses.lock import StateLock
held = StateLock(Path(sys.argv[1]))
held.acquire()
ready, told = os.pipe()
if os.fork():
    os.read(ready, 1)
    print("forked", flush=True)
    os._exit(0)  # dies without a word; the child lives on
os.write(told, b"x")
os.close(1)
sys.stdin.read()
"""


def started(script, folder):
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_the_holder_is_named_and_its_death_frees_the_folder(tmp_path):
    """By kill -9 too: the kernel gives the lock back."""
    with started(HOLDER, tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        assert is_locked(tmp_path)
        with pytest.raises(StateLockedError, match=f"(process {process.pid}|another process) writes it. Stop that run"):
            StateLock(tmp_path).acquire()
        process.kill()
        process.wait()
    assert not is_locked(tmp_path)
    mine = StateLock(tmp_path)
    mine.acquire()
    mine.release()


def test_a_forked_worker_does_not_hold_the_lock_of_its_dead_parent(tmp_path):
    """DataLoader workers may outlive a killed run for a while."""
    with started(FORKER, tmp_path) as process:
        assert process.stdout.readline() == "forked\n"
        process.wait()
        assert not is_locked(tmp_path)


def test_a_lock_that_is_forgotten_is_given_back(tmp_path):
    """With the object that held it."""
    held = StateLock(tmp_path)
    held.acquire()
    del held
    assert not is_locked(tmp_path)


def test_the_descriptor_is_closed_on_exec(tmp_path):
    """Spawned workers never have it."""
    held = StateLock(tmp_path / "new")
    held.acquire()
    assert not os.get_inheritable(held._fd)
    held.release()
    assert not is_locked(tmp_path / "nowhere")


def test_an_unknown_holder_is_another_process(tmp_path, monkeypatch):
    """Where the kernel does not tell."""
    monkeypatch.setattr(lock, "_LOCKS_TABLE", tmp_path / "no-such-table")
    held = StateLock(tmp_path)
    held.acquire()
    with pytest.raises(StateLockedError, match=r"another process writes it. Stop that run first, or give .* state="):
        StateLock(tmp_path).acquire()


@pytest.mark.parametrize("warns", [True, False])
def test_a_file_system_that_cannot_lock_is_told(tmp_path, monkeypatch, warns, recwarn):
    """The run goes on."""

    def refuse(fd, how):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    held = StateLock(tmp_path, warn=warns)
    if warns:
        with pytest.warns(SetaStreamWarning, match="cannot lock .Operation not supported"):
            held.acquire()
    else:
        held.acquire()
    assert not recwarn.list
    assert is_locked(tmp_path)
