"""Plain values with a few places changed: for formats whose bytes a blind change would only break.

Takes a value of dicts, lists, numbers and texts, and bytes; every three bytes are one change.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 255, 65_536, 1 << 31, 1 << 40, (1 << 62) + 1, (1 << 63) - 1,
    (1 << 64) - 1, -(1 << 63), 0.5, -1.5, 1e308, float("nan"), float("inf"), "", "a", "../../etc/passwd", "\x1b[31m",
    "\u202e", b"", b"abc", b"\xff" * 16, [], [0], [[1], [2]], [None], {},
    {"a": 1}, {"groups": []}, {"groups": {"a": 1}},
)  # fmt: skip
"""What is put in the place of something; all that msgpack can say, and JSON most of it."""


def edited(value: Any, edits: bytes) -> Any:
    """Return a copy with changes: one place, what is done there, and with what, by a byte each."""
    changed = [copy.deepcopy(value)]
    for at in range(0, len(edits) - 2, 3):
        places = list(_places(changed))
        container, key = places[edits[at] % len(places)]
        act, which = edits[at + 1] % 4, edits[at + 2]
        if act == 0 and container is not changed:
            del container[key]
        elif act == 1 and isinstance(container[key], int | float):
            container[key] += which - 128
        elif act == 2 and isinstance(container, list) and container is not changed:
            container.extend(copy.deepcopy(container[:1]) * which)
        else:
            container[key] = copy.deepcopy(VALUES[which % len(VALUES)])
    return changed[0]


def _places(container: Any) -> Iterator[tuple[Any, Any]]:
    """Give each (container, key) in a value, the outermost first."""
    keys = list(container) if isinstance(container, dict) else range(len(container))
    for key in keys:
        yield container, key
    for key in keys:
        if isinstance(container[key], dict | list):
            yield from _places(container[key])
