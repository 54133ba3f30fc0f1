"""Samples → one batch: arrays where the values allow, lists elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np


def batched(samples: Iterable[dict[str, Any]], size: int) -> Iterator[dict[str, Any]]:
    """Yield the samples stacked by `size`; the last batch may be shorter."""
    waiting: list[dict[str, Any]] = []
    for sample in samples:
        waiting.append(sample)
        if len(waiting) == size:
            yield stack(waiting)
            waiting = []
    if waiting:
        yield stack(waiting)


def stack(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one dict of columns.

    `__index__` is int64 [n] and `__weight__` float32 [n]. Arrays of one shape and dtype are stacked, numbers become an
    array, everything else (bytes, texts, images, arrays of several shapes) a list. A field that some samples lack
    holds None in their places.
    """
    names = dict.fromkeys(name for sample in samples for name in sample)
    batch = {name: _column([sample.get(name) for sample in samples]) for name in names}
    batch["__index__"] = np.array(batch["__index__"], np.int64)
    batch["__weight__"] = np.array(batch["__weight__"], np.float32)
    return batch


def _column(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, np.ndarray):
        same = all(isinstance(v, np.ndarray) and v.shape == first.shape and v.dtype == first.dtype for v in values)
        return np.stack(values) if same else values
    if isinstance(first, bool | int | float | np.number) and all(type(v) is type(first) for v in values):
        return np.array(values)
    return values
