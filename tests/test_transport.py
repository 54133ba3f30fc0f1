"""The exchanges over messages of bounded size, and what a failure of one of them leaves."""

from __future__ import annotations

import os
import queue
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from thread_collective import ThreadCollective, ThreadTeam

from seta_stream.errors import ArgumentError, PeerError, UnsupportedError
from seta_stream.transport import (
    PAIRWISE,
    Exchanges,
    broadcast_value,
    checked_timeout,
    gather_parts,
    route_parts,
    sum_counts,
)

Pipes = dict[tuple[int, int], "queue.Queue[NDArray[np.uint8]]"]


class Messages:
    """A transport between threads: whole-team messages by their collective, pairs by a queue each way.

    A message that is longer than `limit` bytes, or not of the length that its reader expects, is an error.
    """

    def __init__(self, collective: ThreadCollective, pipes: Pipes, limit: int) -> None:
        self.rank, self.world = collective.rank, collective.world
        self._collective, self._pipes, self._limit = collective, pipes, limit

    def all_gather(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([np.frombuffer(part, dtype=np.int64) for part in self._collective.gather(row.tobytes())])

    def swap(self, target: int, outgoing: NDArray[np.uint8], source: int, incoming: NDArray[np.uint8]) -> None:
        assert outgoing.size or incoming.size, "a message that carries nothing"
        assert max(outgoing.size, incoming.size) <= max(8, self._limit)
        if outgoing.size:
            self._pipes[self.rank, target].put(outgoing.copy())
        if incoming.size:
            arrived = self._pipes[source, self.rank].get(timeout=20)
            assert arrived.size == incoming.size
            incoming[:] = arrived

    def spread(self, piece: NDArray[np.uint8]) -> None:
        assert 0 < piece.size <= self._limit
        first = np.frombuffer(self._collective.broadcast(piece.tobytes()), dtype=np.uint8)
        if self.rank:
            piece[:] = first

    def add(self, piece: NDArray[np.int64]) -> None:
        assert 0 < piece.nbytes <= max(8, self._limit)
        piece[:] = self._collective.sum(piece.copy())

    def abandon(self) -> None:
        raise AssertionError("nothing failed")


def team(world: int, limit: int) -> tuple[ThreadTeam, list[Messages]]:
    made = ThreadTeam(world)
    pipes: Pipes = {(a, b): queue.Queue() for a in range(world) for b in range(world)}
    return made, [Messages(collective, pipes, limit) for collective in made.collectives]


@st.composite
def tables(draw: st.DrawFn) -> list[list[bytes]]:
    """Draw what each process sends to each, for 1 to 5 of them."""
    world = draw(st.integers(1, 5))
    parts = st.lists(st.binary(max_size=40), min_size=world, max_size=world)
    return draw(st.lists(parts, min_size=world, max_size=world))


@given(table=tables(), piece_bytes=st.integers(1, 50))
def test_pieces_come_together(table: list[list[bytes]], piece_bytes: int) -> None:
    """Whatever is sent arrives whole and from whom it came, in messages of at most a piece and never an empty one."""
    world = len(table)
    threads, transports = team(world, piece_bytes)

    def exchange(collective: ThreadCollective) -> tuple[list[bytes], list[bytes], bytes]:
        one, parts = transports[collective.rank], table[collective.rank]
        return (
            route_parts(one, parts, piece_bytes=piece_bytes),
            gather_parts(one, parts[0], piece_bytes=piece_bytes),
            broadcast_value(one, parts[-1], piece_bytes=piece_bytes),
        )

    for rank, (routed, gathered, value) in enumerate(threads.run(exchange)):
        assert routed == [table[source][rank] for source in range(world)]
        assert gathered == [table[source][0] for source in range(world)]
        assert value == table[0][-1]


@given(
    rows=st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-(2**60), 2**60), min_size=n, max_size=n).map(
                lambda row: np.array(row, dtype=np.int64)
            ),
            min_size=1,
            max_size=4,
        )
    ),
    piece_bytes=st.integers(1, 40),
)
def test_sums_are_exact(rows: list[NDArray[np.int64]], piece_bytes: int) -> None:
    """Integers are added as integers, piece by piece, and what was given stays as it was."""
    threads, transports = team(len(rows), piece_bytes)
    before = [row.copy() for row in rows]
    sums = threads.run(lambda one: sum_counts(transports[one.rank], rows[one.rank], piece_bytes=piece_bytes))
    expected = [sum(int(row[i]) for row in rows) for i in range(rows[0].size)]
    assert [found.tolist() for found in sums] == [expected] * len(rows)
    assert all(np.array_equal(row, old) for row, old in zip(rows, before, strict=True))


def test_different_exchanges_are_told_apart() -> None:
    """Who is at another exchange is named on every process, before any payload is sent."""
    threads, transports = team(3, 8)

    def differ(collective: ThreadCollective) -> Any:
        one = transports[collective.rank]
        return broadcast_value(one, b"") if collective.rank == 1 else gather_parts(one, b"")

    for outcome in threads.outcomes(differ):
        assert isinstance(outcome, PeerError)
        assert "process 0 is at a gather and process 1 at a broadcast" in outcome.message
        assert (outcome.expected, outcome.found) == ("gather", "broadcast")


def test_sums_of_different_size_are_told_apart() -> None:
    """Whose array has another size is named on every process."""
    threads, transports = team(3, 8)
    sizes = [4, 4, 5]
    for outcome in threads.outcomes(lambda one: sum_counts(transports[one.rank], np.zeros(sizes[one.rank], np.int64))):
        assert isinstance(outcome, PeerError)
        assert "process 0 gives 4 numbers and process 2 gives 5" in outcome.message


class Message:
    """Something that a failed exchange still holds, as a library's request does."""


class Breaking:
    """A transport whose first message fails."""

    rank, world = 1, 3

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.abandoned = 0
        self.message: weakref.ref[Message] | None = None
        self.was_held: bool | None = None

    def all_gather(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        message = Message()
        self.message = weakref.ref(message)
        raise self.error

    def abandon(self) -> None:
        assert self.message is not None
        self.abandoned += 1
        self.was_held = self.message() is not None

    def __getattr__(self, name: str) -> None:
        raise AssertionError(f"{name} was called")


def exchanges(transport: Any) -> Exchanges:
    return Exchanges(transport, PAIRWISE, name="TestCollective", timeout_s=600, failures=(OSError, TimeoutError))


def test_a_failure_becomes_an_error_of_a_peer() -> None:
    """It says what was exchanged, by whom, and what to do; the cause is chained, with the first line of its text."""
    transport = Breaking(OSError("Connection closed by peer\nat line 7"))
    with pytest.raises(PeerError) as caught:
        exchanges(transport).gather(b"12345")
    assert caught.value.message == (
        "A gather of 5 bytes from here of process 1 of 3 failed: another process left, or did not come within 600 s. "
        "Look for the first error among the logs of the other processes, then start all of them again, from the last "
        "checkpoint. (Connection closed by peer)"
    )
    assert caught.value.__cause__ is transport.error


@pytest.mark.parametrize(
    ("error", "raised", "why"),
    [
        (OSError(), PeerError, r"an earlier exchange failed \(a sum of 3 numbers\)"),
        (KeyboardInterrupt(), KeyboardInterrupt, r"an earlier exchange was interrupted \(a sum of 3 numbers\)"),
    ],
)
def test_a_broken_exchange_ends_them_all(error: BaseException, raised: type[BaseException], why: str) -> None:
    """Connections are let go once, without a message in some frame holding them, and later exchanges fail at once."""
    transport = Breaking(error)
    broken = exchanges(transport)
    counts = np.zeros(3, dtype=np.int64)
    with pytest.raises(raised):
        broken.sum(counts)
    with pytest.raises(
        PeerError, match="^A broadcast from process 0 of process 1 of 3 is not possible any more: " + why
    ):
        broken.broadcast(b"")
    assert not broken.end("it was closed.")
    assert transport.abandoned == 1
    assert transport.was_held is (raised is KeyboardInterrupt)


def test_a_fork_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process than the one that made them, nothing is exchanged, and nothing is ended."""
    transport = Breaking(AssertionError("sent"))
    copied = exchanges(transport)
    monkeypatch.setattr(os, "getpid", lambda: 12345)
    with pytest.raises(UnsupportedError, match="asked of a TestCollective in process 12345, a fork of process"):
        copied.broadcast(b"")
    assert not copied.end("it was closed.")


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan"), 1e12])
def test_time_limits_are_numbers_of_seconds(timeout_s: float) -> None:
    """A limit that no library can hold is refused."""
    with pytest.raises(ArgumentError, match="give how many seconds an exchange may wait"):
        checked_timeout(timeout_s)


def test_a_time_limit_may_be_short() -> None:
    """A fraction of a second is a limit."""
    assert checked_timeout(0.5) == 0.5
