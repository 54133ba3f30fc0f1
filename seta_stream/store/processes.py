"""Values that belong to one process: clients and engines, with their threads and connections.

Effects: a hook that runs in forked children. Threads do not survive a fork, and sockets are shared by it, so a child
makes its own; its parent's stay referenced there, since closing them in the child would disturb the parent.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Final, Generic, TypeVar

Value = TypeVar("Value")

_tables: Final[weakref.WeakSet[PerProcess[Any]]] = weakref.WeakSet()
_parents: Final[list[dict[Hashable, Any]]] = []


class PerProcess(Generic[Value]):
    """A table of values, each made once per process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Hashable, Value] = {}
        _tables.add(self)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key; make it where this process has none."""
        found = self._values.get(key)
        if found is not None:
            return found
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            return self._values[key]

    def begin_anew(self) -> None:
        """Forget what a parent made, without ending it."""
        _parents.append(self._values)
        self._values = {}
        self._lock = threading.Lock()  # another thread may have held it during the fork


def _in_child() -> None:
    for table in list(_tables):
        table.begin_anew()


os.register_at_fork(after_in_child=_in_child)
