"""JAX: bytes between the CPUs of the hosts, and the four exchanges of a `Collective` over them.

Takes one CPU device of each process; gives byte strings of any length, carried in rounds of equal rows. Effects: a
program is compiled for each of a few sizes, and run on those devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from numpy.typing import NDArray

from seta_stream.transport import KINDS, Ways, check_kinds, check_sizes, first_line

Bytes = NDArray[np.uint8]

ROUND_BYTES: Final = 32 * 2**20
"""The most that a process sends, and receives, in one round: that much memory, twice, is what an exchange takes."""

SMALLEST_PIECE: Final = 64

_AXIS: Final = "process"
_jax: Final[Any] = jax  # some of its functions have no annotations


class Wire:
    """Rows of bytes between the processes. All of them make the same calls in the same order.

    Args:
        devices: one CPU device of each process, in rank order.
        rank: of this process.

    Raises:
        ConnectionError: from every method, when another process is gone.
    """

    def __init__(self, devices: Sequence[jax.Device], rank: int) -> None:
        self.rank = rank
        self.world = len(devices)
        self.rounds = 0
        """Rounds that are over, by which a waiting thread tells slow from stuck."""
        self._device = devices[rank]
        mesh = Mesh(np.array(devices), (_AXIS,))
        rows: Any = _jax.P(_AXIS)
        self._sharding = NamedSharding(mesh, rows)
        self._swap = jax.jit(jax.shard_map(_all_to_all, mesh=mesh, in_specs=rows, out_specs=rows))

    def abandon(self) -> None:
        """Do nothing: the connections are JAX's and end with it."""

    def settle(self) -> None:
        """Wait for what JAX computes on this host's CPU."""
        try:
            _jax.block_until_ready(_jax.live_arrays("cpu"))
        except Exception as error:
            raise ConnectionError(f"a computation before it failed: {first_line(error)}") from error

    def tell(self, kind: str, size: int, each: Sequence[int] | None = None) -> NDArray[np.int64]:
        """Tell the others what this process is about to exchange; return what they told: int64 [world, (size, own)].

        Args:
            kind: of the exchange.
            size: that everybody learns.
            each: [world], what only process r learns.

        Raises:
            PeerError: another process does something else.
        """
        own = [0] * self.world if each is None else each
        rows = np.array([(KINDS.index(kind), size, one) for one in own], np.int64)
        told = np.stack([one.view(np.int64) for one in self.carry(list(rows.view(np.uint8)), [24] * self.world, 24)])
        check_kinds(told[:, 0])
        return told[:, 1:]

    def carry(self, parts: Sequence[Bytes], sizes: Sequence[int], longest: int) -> list[Bytes]:
        """Send parts[r] to process r, in rounds of equal pieces; return what each process sent here.

        Args:
            parts: [world].
            sizes: [world], of what each process sends here.
            longest: of all parts of all processes.
        """
        piece = piece_of(longest, self.world)
        # axes: target × byte of its piece; what is over of it carries whatever the round before left there
        rows = np.zeros((self.world, piece), np.uint8)
        received = [np.empty(size, np.uint8) for size in sizes]
        for start in range(0, longest, piece):
            for row, part in zip(rows, parts, strict=True):
                cut = part[start : start + piece]
                row[: len(cut)] = cut
            for row, whole in zip(self._round(rows), received, strict=True):
                room = whole[start : start + piece]
                room[:] = row[: len(room)]
            self.rounds += 1
        return received

    def _round(self, rows: Bytes) -> Bytes:
        """Send rows[r] to process r; return the rows by their senders: uint8 [world, n]."""
        try:
            here = jax.device_put(rows, self._device)
            shape = (self.world * self.world, rows.shape[1])
            sent = jax.make_array_from_single_device_arrays(shape, self._sharding, [here])
            received: Bytes = jax.device_get(self._swap(sent).addressable_data(0))
        except Exception as error:  # JAX raises ValueError, RuntimeError and its own for a lost connection
            raise ConnectionError(first_line(error)) from error
        return received


def piece_of(longest: int, world: int) -> int:
    """Return the bytes of one row of a round: of few sizes, since each is compiled once."""
    piece = SMALLEST_PIECE
    while piece < longest and 4 * piece * world <= ROUND_BYTES:
        piece *= 4
    return piece


def _all_to_all(rows: jax.Array) -> jax.Array:
    # axes of each process's block: target × byte, then sender × byte
    received: jax.Array = _jax.lax.all_to_all(rows, _AXIS, split_axis=0, concat_axis=0, tiled=True)
    return received


def gather_parts(wire: Wire, part: bytes) -> list[bytes]:
    """Return every process's part, in rank order."""
    if wire.world == 1:
        return [bytes(part)]
    sizes = wire.tell("gather", len(part))[:, 0].tolist()
    return _bytes_of(wire.carry([_view(part)] * wire.world, sizes, max(sizes)))


def route_parts(wire: Wire, parts: Sequence[bytes]) -> list[bytes]:
    """Send parts[r] to process r; return what each process sent here, in rank order."""
    if wire.world == 1:
        return [bytes(part) for part in parts]
    lengths = list(map(len, parts))
    told = wire.tell("route", max(lengths), lengths)
    return _bytes_of(wire.carry(list(map(_view, parts)), told[:, 1].tolist(), int(told[:, 0].max())))


def sum_counts(wire: Wire, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum: each process adds up one part of it, and they exchange the parts.

    Raises:
        PeerError: another process gives another number of counts.
    """
    if wire.world == 1:
        return counts.copy()
    sizes = wire.tell("sum", counts.size)[:, 0].tolist()
    check_sizes(sizes)
    each = -(-counts.size // wire.world)
    # axes: process that adds × its part of the numbers, of which the last ones may be over
    given = np.zeros((wire.world, each), np.int64)
    given.reshape(-1)[: counts.size] = counts.reshape(-1)
    room = [8 * each] * wire.world
    added = sum(one.view(np.int64) for one in wire.carry(list(given.view(np.uint8)), room, 8 * each))
    whole = wire.carry([np.asarray(added).view(np.uint8)] * wire.world, room, 8 * each)
    total: NDArray[np.int64] = np.concatenate(whole).view(np.int64)[: counts.size].reshape(counts.shape)
    return total


def broadcast_value(wire: Wire, value: bytes) -> bytes:
    """Return process 0's value: it gives each process one part, and they exchange the parts."""
    if wire.world == 1:
        return value
    size = int(wire.tell("broadcast", len(value))[0, 0])
    each = -(-size // wire.world)
    bounds = [min(rank * each, size) for rank in range(wire.world + 1)]
    lengths = np.diff(bounds).tolist()
    parts = [_view(b"")] * wire.world
    if wire.rank == 0:
        parts = [_view(value)[begin:stop] for begin, stop in pairwise(bounds)]
    own = wire.carry(parts, [lengths[wire.rank], *[0] * (wire.world - 1)], each)[0]
    whole = wire.carry([own] * wire.world, lengths, each)
    return np.concatenate(whole).tobytes()


def _view(part: bytes) -> Bytes:
    return np.frombuffer(part, np.uint8)


def _bytes_of(received: list[Bytes]) -> list[bytes]:
    """Return the arrays' bytes; each array goes once it is copied, so that two copies of all are never held."""
    received.reverse()
    return [received.pop().tobytes() for _ in range(len(received))]


AT_ONCE: Final = Ways(sum_counts, route_parts, gather_parts, broadcast_value)
"""Over a `Wire`, whose rounds go between all processes at once."""
