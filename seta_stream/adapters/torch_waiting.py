"""Waiting for gloo so that Ctrl-C ends it, also where other processes wait for this one.

Takes the work of an exchange; effects: a thread while it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeVar

T = TypeVar("T")

_GRACE_S: Final = 10.0


def stop_waiting(ask: Callable[[int], Any], rank: int, world: int) -> None:
    """End what is under way in a gloo group, here and in the processes that wait for this one.

    gloo closes all connections of a group when one receive runs out of time, so one is asked for that nobody sends
    and given a millisecond.

    Source:
        gloo, transport/tcp/unbound_buffer.cc: "let all pairs in the transport context know about this timeout".
    """
    for step in range(1, world):
        try:
            ask((rank + step) % world).wait(timedelta(milliseconds=1))
        except RuntimeError:  # it is out of time, as it should be, or that process has left: on to the next
            continue


def in_thread(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """Return what `work` returns, waiting in a way that a signal can end; it is stopped then.

    gloo waits in C++, where Python sees no Ctrl-C until the other process comes or the time is up. The thread is a
    daemon, and no pool's, which Python would join at its exit.
    """
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((work(), None))
        except BaseException as error:  # noqa: BLE001  (raised where the work was asked for)
            outcome.extend((None, error))
        done.set()

    done = threading.Event()
    thread = threading.Thread(target=run, name="seta_stream exchange", daemon=True)
    try:
        thread.start()
        done.wait()
    except BaseException:
        stop()
        # Python must not end while it is in C++: it would come back to an interpreter that is gone, and abort.
        done.wait(_GRACE_S)
        raise
    result, error = outcome
    if error is not None:
        raise error
    value: T = result
    return value
