"""The four exchanges of a `Collective` over what message-passing libraries have in common: arrays of fixed size.

Takes a `Transport`, which an adapter writes over its framework; gives the exchanges of byte strings of any length, in
pieces, so that no count overflows and memory beyond what is received stays at a piece. Every exchange opens with a row
that says what it is and how large: processes that do different things learn it there, before any payload is mixed up.
Effects: those of the transport.
"""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError, PeerError, UnsupportedError

T = TypeVar("T")

PIECE_BYTES: Final = 16 * 2**20
"""The most that one message carries; several libraries count in 32 bits, and a staging copy is this large."""

KINDS: Final = ("sum", "route", "gather", "broadcast")


class Peers(Protocol):
    """What carries messages between the processes, in whatever way."""

    @property
    def rank(self) -> int:
        """This process, 0 … world − 1."""
        ...

    @property
    def world(self) -> int:
        """How many processes there are."""
        ...

    def abandon(self) -> None:
        """Let go of the connections after a failed exchange, so that the others' exchanges fail too, at once."""
        ...


class Transport(Peers, Protocol):
    """Messages of known size between the processes of a group. All of them make the same calls in the same order.

    Every method returns when its exchange is over here, or raises an exception of the library's own (or TimeoutError)
    when another process is gone or does not come in time. Arrays are contiguous.
    """

    def all_gather(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return every process's row, int64 [world, n]."""
        ...

    def swap(self, target: int, outgoing: NDArray[np.uint8], source: int, incoming: NDArray[np.uint8]) -> None:
        """Send `outgoing` (which may be read-only) to `target` while filling `incoming` from `source`.

        An empty array means that nothing goes that way.
        """
        ...

    def spread(self, piece: NDArray[np.uint8]) -> None:
        """Fill `piece` with process 0's, where it is only read and may be read-only."""
        ...

    def add(self, piece: NDArray[np.int64]) -> None:
        """Replace `piece` by the elementwise sum over all processes."""
        ...


class Ways(NamedTuple):
    """The four exchanges, each a function of what carries the messages and of what is exchanged."""

    sum_counts: Callable[[Any, NDArray[np.int64]], NDArray[np.int64]]
    route_parts: Callable[[Any, Sequence[bytes]], list[bytes]]
    gather_parts: Callable[[Any, bytes], list[bytes]]
    broadcast_value: Callable[[Any, bytes], bytes]


class Exchanges:
    """The exchanges of a `Collective`; a failure in one of them ends them all, as `PeerError`.

    Args:
        transport: between the processes.
        ways: how each exchange uses it; PAIRWISE for a `Transport`.
        name: of the collective, for errors.
        timeout_s: what the transport was given, for errors.
        failures: what the transport raises when another process is gone or late.
        call: runs an exchange; an adapter whose library cannot be interrupted by Ctrl-C puts a thread between.
    """

    def __init__(
        self,
        transport: Peers,
        ways: Ways,
        *,
        name: str,
        timeout_s: float,
        failures: tuple[type[Exception], ...],
        call: Callable[[Callable[[], Any]], Any] = lambda work: work(),
    ) -> None:
        self._transport = transport
        self._ways = ways
        self._name = name
        self._timeout_s = timeout_s
        self._failures = failures
        self._call = call
        self._process = os.getpid()
        self._ended: str | None = None

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """As `Collective.sum`; `counts` is not changed."""
        if counts.dtype != np.int64:
            raise ArgumentError(f"sum takes int64 counts, and was given {counts.dtype}.", expected="int64")
        return self._guarded(
            f"a sum of {counts.size:,} numbers", lambda: self._ways.sum_counts(self._transport, counts)
        )

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """As `Collective.route`."""
        world = self._transport.world
        if len(parts) != world:
            raise ArgumentError(f"route takes one part per process, {world}, and was given {len(parts)}.")
        size = sum(map(len, parts))
        return self._guarded(
            f"a route of {size:,} bytes from here", lambda: self._ways.route_parts(self._transport, parts)
        )

    def gather(self, part: bytes) -> list[bytes]:
        """As `Collective.gather`."""
        return self._guarded(
            f"a gather of {len(part):,} bytes from here", lambda: self._ways.gather_parts(self._transport, part)
        )

    def broadcast(self, value: bytes) -> bytes:
        """As `Collective.broadcast`."""
        return self._guarded("a broadcast from process 0", lambda: self._ways.broadcast_value(self._transport, value))

    def end(self, why: str) -> bool:
        """Refuse every later exchange, with the reason; False where that changes nothing: ended, or a fork's copy."""
        if self._ended is not None or os.getpid() != self._process:
            return False
        self._ended = why
        return True

    def _guarded(self, what: str, work: Callable[[], T]) -> T:
        me = f"process {self._transport.rank} of {self._transport.world}"
        if os.getpid() != self._process:
            raise UnsupportedError(
                f"{what.capitalize()} was asked of a {self._name} in process {os.getpid()}, a fork of process "
                f"{self._process}, which made it. Its connections belong to that one: exchange there, not in a "
                f"DataLoader worker."
            )
        if self._ended is not None:
            raise PeerError(f"{what.capitalize()} of {me} is not possible any more: {self._ended}")
        try:
            done: T = self._call(work)
        except self._failures as error:
            self.end(f"an earlier exchange failed ({what}). Start all processes again, from the last checkpoint.")
            # The frames of the error hold messages under way, and those the connections that are to close now.
            traceback.clear_frames(error.__traceback__)
            self._transport.abandon()
            raise unanswered(f"{what} of {me}", self._timeout_s, error) from error
        except PeerError:
            raise  # Every process has learnt of it: the connections are in order.
        except BaseException:
            # Ctrl-C, say: half an exchange may be under way, and nothing can be told apart from it any more.
            self.end(f"an earlier exchange was interrupted ({what}). Start all processes again.")
            self._transport.abandon()
            raise
        return done


def unanswered(what: str, timeout_s: float, cause: Exception) -> PeerError:
    """Return the error for an exchange that another process did not finish."""
    return PeerError(
        f"{what[0].upper()}{what[1:]} failed: another process left, or did not come within {timeout_s:g} s. Look for "
        f"the first error among the logs of the other processes, then start all of them again, from the last "
        f"checkpoint. ({first_line(cause)})"
    )


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def checked_timeout(timeout_s: float) -> float:
    """Return a time limit that the libraries can hold.

    Raises:
        ArgumentError: it is not a number of seconds between 0 and ten years.
    """
    if not math.isfinite(timeout_s) or not 0 < timeout_s <= 3.2e8:
        raise ArgumentError(
            f"timeout_s is {timeout_s}: give how many seconds an exchange may wait for another process, as 600.",
            found=timeout_s,
        )
    return float(timeout_s)


def sum_counts(transport: Transport, counts: NDArray[np.int64], *, piece_bytes: int = PIECE_BYTES) -> NDArray[np.int64]:
    """Return the elementwise sum over all processes.

    Raises:
        PeerError: another process does something else, or gives another number of counts.
    """
    sizes = _announced(transport, "sum", counts.size)
    check_sizes(sizes)
    total = np.array(counts, dtype=np.int64, order="C")
    flat, length = total.reshape(-1), max(1, piece_bytes // 8)
    for start in range(0, flat.size, length):
        transport.add(flat[start : start + length])
    return total


def gather_parts(transport: Transport, part: bytes, *, piece_bytes: int = PIECE_BYTES) -> list[bytes]:
    """Return every process's part, in rank order.

    Raises:
        PeerError: another process does something else.
    """
    sizes = _announced(transport, "gather", len(part))
    return _swap_all(transport, [part] * transport.world, sizes, piece_bytes)


def route_parts(transport: Transport, parts: Sequence[bytes], *, piece_bytes: int = PIECE_BYTES) -> list[bytes]:
    """Send parts[r] to process r; return what each process sent here, in rank order.

    Raises:
        PeerError: another process does something else.
    """
    _announced(transport, "route", 0)
    return _swap_all(transport, parts, None, piece_bytes)


def broadcast_value(transport: Transport, value: bytes, *, piece_bytes: int = PIECE_BYTES) -> bytes:
    """Return process 0's value.

    Raises:
        PeerError: another process does something else.
    """
    is_first = transport.rank == 0
    size = _announced(transport, "broadcast", len(value) if is_first else 0)[0]
    piece = np.frombuffer(value, dtype=np.uint8) if is_first else np.empty(size, dtype=np.uint8)
    for start in range(0, size, piece_bytes):
        transport.spread(piece[start : start + piece_bytes])
    return value if is_first else piece.tobytes()


def check_kinds(kinds: NDArray[np.int64]) -> None:
    """See that all processes are at the same exchange.

    Args:
        kinds: int64 [world], the place in KINDS of each one's.

    Raises:
        PeerError: another process does something else.
    """
    other = next((rank for rank, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is not None:
        first, found = KINDS[kinds[0]], KINDS[kinds[other]]
        raise PeerError(
            f"The processes of this run do different things: process 0 is at a {first} and process {other} at a "
            f"{found}. Every process must make the same calls (set_epoch, state_dict, close) in the same order.",
            expected=first,
            found=found,
        )


def check_sizes(sizes: Sequence[int]) -> None:
    """See that all processes sum as many numbers: [world].

    Raises:
        PeerError: another process gives another number of counts.
    """
    other = next((rank for rank, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        raise PeerError(
            f"The processes sum arrays of different size: process 0 gives {sizes[0]:,} numbers and process {other} "
            f"gives {sizes[other]:,}. Every process must run the same code with the same options.",
            expected=sizes[0],
            found=sizes[other],
        )


def _announced(transport: Transport, kind: str, size: int) -> list[int]:
    """Tell the others what this process is about to exchange, and how large; return each one's size."""
    # rows [world, 2]: kind, size
    rows = transport.all_gather(np.array([KINDS.index(kind), size], dtype=np.int64))
    check_kinds(rows[:, 0])
    return [int(size) for size in rows[:, 1]]


def _swap_all(
    transport: Transport, parts: Sequence[bytes], sizes: Sequence[int] | None, piece_bytes: int
) -> list[bytes]:
    """Send parts[r] to process r, in a ring: in step s to the s-th after this one, while the s-th before sends here.

    One partner each way at a time keeps the memory at what is received, and no two processes wait for each other:
    what a step waits for is the same step of others.
    """
    rank, world = transport.rank, transport.world
    received = [b""] * world
    received[rank] = bytes(parts[rank])
    for step in range(1, world):
        target, source = (rank + step) % world, (rank - step) % world
        outgoing = np.frombuffer(parts[target], dtype=np.uint8)
        if sizes is None:
            told = np.empty(1, dtype=np.int64)
            length = np.array([outgoing.size], dtype=np.int64)
            transport.swap(target, length.view(np.uint8), source, told.view(np.uint8))
            size = int(told[0])
        else:
            size = sizes[source]
        incoming = np.empty(size, dtype=np.uint8)
        for start in range(0, max(outgoing.size, size), piece_bytes):
            stop = start + piece_bytes
            transport.swap(target, outgoing[start:stop], source, incoming[start:stop])
        received[source] = incoming.tobytes()
    return received


PAIRWISE: Final = Ways(sum_counts, route_parts, gather_parts, broadcast_value)
"""Over a `Transport`, whose messages go between two processes at a time."""
