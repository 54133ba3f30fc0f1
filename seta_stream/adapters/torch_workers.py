"""PyTorch: DataLoader workers end with the process that started them, however that one ends.

Takes nothing; effects: a thread in a worker, that waits for the worker's parent and ends the worker after it.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess
from typing import Final

_WATCHED_IN: Final[set[int]] = set()
"""This process, once it watches; a fork's copy names its parent, and does not count."""


def end_with_parent() -> None:
    """Let this worker end as soon as its parent is gone; in a process that is no worker this does nothing.

    torch's workers look for their parent every 5 s, between two batches. Until then a forked one holds copies of the
    parent's connections, and the other processes of a run wait for one that is gone; one whose decoder hangs holds
    them for ever. A spawned worker whose parent dies while it is still importing never looks for the right one.

    Source:
        torch/utils/data/_utils/worker.py, ManagerWatchdog: it takes for its manager whoever is the parent when its
        loop begins.
    """
    parent = multiprocessing.parent_process()
    if parent is None or os.getpid() in _WATCHED_IN:
        return
    _WATCHED_IN.add(os.getpid())
    threading.Thread(target=_end_after, args=(parent,), name="seta_stream parent", daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()  # by a pipe that the system closes with the parent: nothing is polled
    os._exit(1)
