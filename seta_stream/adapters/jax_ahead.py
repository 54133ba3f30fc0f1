"""JAX: the next batches, made in a thread while the present one is trained on.

Takes an iterator; gives its values. Effects: a thread that runs the iterator, at most `depth` values ahead.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Generator
from typing import Any, Final, Self


class Ahead:
    """The values of a generator, which a thread makes ahead.

    The thread ends with the generator, with `close`, or when this is no longer referred to; the generator is closed in
    it, so that what it holds is let go of there.

    Args:
        values: run in the thread.
        depth: values that wait at most; one more may be under way where it is 0.
    """

    def __init__(self, values: Generator[dict[str, Any], None, None], depth: int) -> None:
        self._line = _Line(depth)
        self._thread = threading.Thread(target=_fill, args=(values, self._line), name="seta_stream ahead", daemon=True)
        _RUNNING[self._thread] = self._line
        self._thread.start()
        # Not waiting: the collector runs in any thread, also in one that holds the lock that joining another takes.
        weakref.finalize(self, self._line.end).atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        """Return the next value, or raise what the generator raised."""
        value, error = self._line.take()
        if error is not None:
            self.close()
            raise error
        if value is None:
            self.close()
            raise StopIteration
        return value

    def close(self) -> None:
        """End the thread, which is waited for; closing twice is harmless."""
        self._line.end()
        self._thread.join()


_Item = tuple[dict[str, Any] | None, BaseException | None]


class _Line:
    """Values on their way from one thread to another."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._values: deque[_Item] = deque()
        self._is_asked = False
        self._is_over = False
        self._changed = threading.Condition()

    def is_wanted(self) -> bool:
        """Wait until there is room for one more value; False where none is wanted any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or len(self._values) < max(self._depth, self._is_asked))
            return not self._is_over

    def put(self, item: _Item) -> None:
        """Add a value."""
        with self._changed:
            if not self._is_over:
                self._values.append(item)
                self._changed.notify_all()

    def take(self) -> _Item:
        """Wait for the next value; (None, None) after the last."""
        with self._changed:
            self._is_asked = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_over or bool(self._values))
            self._is_asked = False
            item = self._values.popleft() if self._values else (None, None)
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """Let go of what waits; nothing is wanted any more."""
        with self._changed:
            self._is_over = True
            self._values.clear()
            self._changed.notify_all()


def _fill(values: Generator[dict[str, Any], None, None], line: _Line) -> None:
    """Put a generator's values into the line, as long as they are wanted."""
    try:
        while line.is_wanted():
            value = next(values, None)
            line.put((value, None))
            if value is None:
                return
            del value  # the line's alone: a batch is let go of when training is done with it
    except BaseException as error:  # noqa: BLE001  (raised where the values are asked for)
        line.put((None, error))
    finally:
        values.close()
        _RUNNING.pop(threading.current_thread(), None)


_RUNNING: Final[dict[threading.Thread, _Line]] = {}


@atexit.register
def _end_all() -> None:
    """End what runs when Python ends: a thread in the middle of JAX must not meet its teardown."""
    for thread, line in list(_RUNNING.items()):
        line.end()
        thread.join()
