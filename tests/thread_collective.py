"""Processes played by threads: a `Collective` for fast tests with one to a few ranks in one interpreter.

Takes a function of a collective and runs it once per rank, each in its own thread; gives their results. Starts
threads and ends them before it returns. A thread that fails or returns early ends the others' exchanges at once.

    team = ThreadTeam(4)
    results = team.run(lambda collective: collective.gather(b"%d" % collective.rank))
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError, PeerError

T = TypeVar("T")


class ThreadTeam:
    """As many collectives as there are ranks, and a way to run a function on each of them at once.

    The collectives may be kept (in a stream, say) from one `run` to the next. After a `run` that failed, the team
    starts anew: nothing of a broken exchange is left.

    Args:
        world: how many ranks.
        timeout_s: how long an exchange waits for a thread that neither comes nor ends.
    """

    def __init__(self, world: int, *, timeout_s: float = 60.0) -> None:
        self.world = world
        self.collectives = [ThreadCollective(self, rank) for rank in range(world)]
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._begin()

    def run(self, function: Callable[[ThreadCollective], T]) -> list[T]:
        """Return function(collective) of each rank, in rank order; raise the error of the thread that failed first."""
        outcomes = self.outcomes(function)
        if self._first_error is not None:
            raise self._first_error
        return outcomes

    def outcomes(self, function: Callable[[ThreadCollective], T]) -> list[Any]:
        """Return, in rank order, what function(collective) returned or the exception that it raised."""
        self._begin()
        outcomes: list[Any] = [None] * self.world

        def work(rank: int) -> None:
            error = None
            try:
                outcomes[rank] = function(self.collectives[rank])
            except BaseException as caught:  # noqa: BLE001  (handed to the caller, whatever it is)
                outcomes[rank] = error = caught
            self._leave(rank, error)

        threads = [
            threading.Thread(target=work, args=(rank,), name=f"rank {rank}", daemon=True) for rank in range(self.world)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    def exchange(self, rank: int, what: str, value: Any) -> list[Any]:
        """Return every rank's value of this rank's next exchange, in rank order."""
        with self._changed:
            table = self._tables.setdefault(self._rounds[rank], {})
            self._rounds[rank] += 1
            table[rank] = (what, value)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(table) == self.world or self._absent(table), self._timeout_s)
            if len(table) < self.world:
                raise self._missing(rank, what, table) from self._first_error
            told = [table[other] for other in range(self.world)]
            self._tables.pop(self._rounds[rank] - 2, None)
        if any(other != what for other, _ in told):
            raise PeerError(f"The ranks exchange different things at once: {[other for other, _ in told]}.")
        return [value for _, value in told]

    def _begin(self) -> None:
        self._rounds = [0] * self.world
        # Exchange number → rank → (what, value); an exchange is dropped when some rank comes out of the next one.
        self._tables: dict[int, dict[int, tuple[str, Any]]] = {}
        self._left: set[int] = set()
        self._first_error: BaseException | None = None

    def _leave(self, rank: int, error: BaseException | None) -> None:
        with self._changed:
            self._left.add(rank)
            self._first_error = self._first_error or error
            self._changed.notify_all()

    def _absent(self, table: dict[int, Any]) -> list[int]:
        """Return the ranks that have ended and will never come to this exchange."""
        return sorted(self._left - set(table))

    def _missing(self, rank: int, what: str, table: dict[int, Any]) -> PeerError:
        absent = self._absent(table)
        why = f"rank {absent[0]} has ended" if absent else f"no answer within {self._timeout_s:g} s"
        return PeerError(f"{what} of rank {rank} of {self.world} ended: {why}.")


class ThreadCollective:
    """One rank's end of a `ThreadTeam`; made by it.

    Attributes:
        calls: the names of the exchanges so far, in order.
        sent_bytes: what this rank gave to others in them.
    """

    def __init__(self, team: ThreadTeam, rank: int) -> None:
        self._team = team
        self.rank = rank
        self.world = team.world
        self.calls: list[str] = []
        self.sent_bytes = 0

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the elementwise sum over all ranks."""
        if counts.dtype != np.int64:
            raise ArgumentError(f"sum takes int64 counts, and was given {counts.dtype}.")
        told = self._exchange("sum", counts.copy(), counts.nbytes)
        if len({one.shape for one in told}) > 1:
            raise PeerError(f"The ranks sum arrays of different shapes: {[one.shape for one in told]}.")
        return np.sum(told, axis=0, dtype=np.int64).reshape(counts.shape)

    def route(self, parts: Sequence[bytes]) -> list[bytes]:
        """Send parts[r] to rank r; return what each rank sent here."""
        if len(parts) != self.world:
            raise ArgumentError(f"route takes one part per process, {self.world}, and was given {len(parts)}.")
        assert all(isinstance(part, bytes) for part in parts)
        outgoing = sum(len(part) for part in parts) - len(parts[self.rank])
        told = self._exchange("route", tuple(parts), outgoing)
        return [one[self.rank] for one in told]

    def gather(self, part: bytes) -> list[bytes]:
        """Return every rank's part, in rank order."""
        assert isinstance(part, bytes)
        return self._exchange("gather", part, len(part))

    def broadcast(self, value: bytes) -> bytes:
        """Return rank 0's value."""
        assert isinstance(value, bytes)
        first: bytes = self._exchange("broadcast", value, 0 if self.rank else len(value))[0]
        return first

    def _exchange(self, what: str, value: Any, sent: int) -> list[Any]:
        self.calls.append(what)
        self.sent_bytes += sent
        return self._team.exchange(self.rank, what, value)
