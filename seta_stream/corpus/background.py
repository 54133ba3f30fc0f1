"""Work that goes on while its results are taken now and then.

Takes what gives results one by one; gives those that came within some time. Effects: a thread, which ends with the
work or soon after it is closed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Final, Generic, TypeVar

Result = TypeVar("Result")

_CLOSING_S: Final = 5.0
"""How long the end of closed work is waited for: it cannot be interrupted in the middle of a local shard."""


class Background(Generic[Result]):
    """Work in a thread of its own.

    Args:
        work: gives results; is told by an event that no more are wanted.
    """

    def __init__(self, work: Callable[[threading.Event], Generator[Result, None, None]]) -> None:
        self._halt = threading.Event()
        # A result, or what ended the work: an error, or None.
        self._queue: queue.SimpleQueue[tuple[Result] | BaseException | None] = queue.SimpleQueue()
        self._is_done = False
        self._thread = threading.Thread(target=self._run, args=(work,), name="seta-index-all", daemon=True)
        self._thread.start()

    def take(self, seconds: float) -> tuple[list[Result], bool]:
        """Return the results of the next so many seconds, fewer where they are the last, and whether they are.

        Raises:
            BaseException: what the work raised.
        """
        results: list[Result] = []
        until = time.monotonic() + seconds
        while not self._is_done:
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(item, tuple):
                results.append(item[0])
                continue
            self._is_done = True
            if item is not None:
                raise item
        return results, self._is_done

    def close(self) -> None:
        """Give up what is not done."""
        self._halt.set()
        self._thread.join(_CLOSING_S)

    def _run(self, work: Callable[[threading.Event], Generator[Result, None, None]]) -> None:
        try:
            results = work(self._halt)
            for result in results:
                self._queue.put((result,))
                if self._halt.is_set():
                    results.close()
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001  (raised again where results are taken)
            self._queue.put(error)
