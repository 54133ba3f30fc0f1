"""The protocol between processes, and its one-process form.

Adapters bring the forms for torch.distributed, JAX and MPI. Nothing is exchanged per step: a stream talks once an
epoch, to route losses to their owners, to sum histograms, to broadcast the rule and to gather masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Collective(Protocol):
    """What a stream asks of the processes that train together. Every process makes the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This process, 0 … world − 1."""
        ...

    @property
    def world(self) -> int:
        """How many processes there are."""
        ...

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the elementwise sum over all processes, on every process."""
        ...

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """Send parts[r] to process r; return what each process sent here, in rank order."""
        ...

    def gather(self, part: bytes) -> list[bytes]:
        """Return every process's part, in rank order, on every process."""
        ...

    def broadcast(self, value: bytes) -> bytes:
        """Return process 0's value on every process."""
        ...


class OneProcess:
    """The collective of a single process: every exchange returns what was given."""

    rank = 0
    world = 1

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return `counts`."""
        return counts

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """Return `parts`, of which there must be one."""
        return list(parts)

    def gather(self, part: bytes) -> list[bytes]:
        """Return `part` alone."""
        return [part]

    def broadcast(self, value: bytes) -> bytes:
        """Return `value`."""
        return value
