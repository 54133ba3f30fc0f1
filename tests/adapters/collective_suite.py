"""What every `Collective` does: one set of checks that every implementation runs, on all of its processes at once.

Takes a collective; a check returns where it holds on this process and raises AssertionError where it does not. A driver
runs `outcomes(collective)` on every process and gives the results to its test, one row per check.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from seta_stream.collective import Collective, agree, from_each, from_first
from seta_stream.errors import ArgumentError, CorpusError, PeerError
from seta_stream.transport import PIECE_BYTES


def rank_and_world(c: Collective) -> None:
    """Ranks are 0 … world − 1, each once, and everything that is gathered stands in their order."""
    told = c.gather(b"%d of %d" % (c.rank, c.world))
    assert told == [b"%d of %d" % (rank, c.world) for rank in range(c.world)]


def empty_bytes(c: Collective) -> None:
    """Nothing at all is a value too, in every exchange."""
    assert c.gather(b"") == [b""] * c.world
    assert c.route([b""] * c.world) == [b""] * c.world
    assert c.broadcast(b"") == b""
    assert c.sum(np.empty(0, dtype=np.int64)).tolist() == []


def unequal_lengths(c: Collective) -> None:
    """Parts of 0, 1, 1000, … bytes arrive as they were."""
    parts = [bytes([rank + 1]) * (0, 1, 1000, 77, 70_000)[rank % 5] for rank in range(c.world)]
    assert c.gather(parts[c.rank]) == parts
    assert c.gather(parts[-1 - c.rank]) == parts[::-1]


def every_byte(c: Collective) -> None:
    """Zeros, line ends and non-ASCII bytes are bytes like others."""
    assert c.gather(bytes(range(256))) == [bytes(range(256))] * c.world


def more_than_a_piece(c: Collective) -> None:
    """A value longer than one message arrives whole, from one process to all, from one to another, and from the first.

    Nobody else sends much, so that one way carries many messages and the other none.
    """
    large = np.arange(PIECE_BYTES // 8 + 100, dtype=np.int64).tobytes() + b"end"
    last = c.world - 1
    gathered = c.gather(large if c.rank == last else b"small")
    assert gathered[:last] == [b"small"] * last
    assert gathered[last] == large
    routed = c.route([large if c.rank == last and rank == 0 else b"" for rank in range(c.world)])
    assert routed == [large if c.rank == 0 and rank == last else b"" for rank in range(c.world)]
    assert c.broadcast(large if c.rank == 0 else b"") == large


def sums_of_int64(c: Collective) -> None:
    """Counts beyond 2**53, where a float would round, and negative ones, are added exactly."""
    counts = np.array([2**53 + 1, -(2**53) - 1, 2**55 + c.rank, c.rank, -7], dtype=np.int64)
    n, ranks = c.world, sum(range(c.world))
    assert c.sum(counts).tolist() == [n * (2**53 + 1), n * (-(2**53) - 1), n * 2**55 + ranks, ranks, -7 * n]


def sums_of_any_shape(c: Collective) -> None:
    """Shape and type are kept, for no axis, for several, and for arrays that do not lie in one piece."""
    single = c.sum(np.array(3, dtype=np.int64))
    assert (single.shape, single.dtype, int(single)) == ((), np.int64, 3 * c.world)
    whole = np.arange(24, dtype=np.int64).reshape(4, 6)
    assert np.array_equal(c.sum(whole[::2, ::-3]), c.world * whole[::2, ::-3])
    assert c.sum(np.empty((0, 3), dtype=np.int64)).shape == (0, 3)


def sums_leave_their_input(c: Collective) -> None:
    """The caller's array stays what it was, read-only ones too."""
    counts = np.full(1000, c.rank, dtype=np.int64)
    counts.flags.writeable = False
    c.sum(counts)
    assert (counts == c.rank).all()


def routes_are_asymmetric(c: Collective) -> None:
    """What goes from a to b is not what goes from b to a: own parts, empty parts and lengths are all kept apart."""

    def part(source: int, target: int) -> bytes:
        return b"%d to %d;" % (source, target) * ((source * 7 + target * 3) % 5)

    received = c.route([part(c.rank, target) for target in range(c.world)])
    assert received == [part(source, c.rank) for source in range(c.world)]


def broadcasts_from_the_first(c: Collective) -> None:
    """What other processes give, longer or shorter, is ignored."""
    assert c.broadcast(b"the rule" if c.rank == 0 else b"garbage " * (c.rank * 100)) == b"the rule"


def many_in_a_row(c: Collective) -> None:
    """A hundred exchanges of all kinds keep their order, however far one process runs ahead of another."""
    for turn in range(25):
        assert c.broadcast(b"%d" % turn) == b"%d" % turn
        assert c.gather(b"%d" % (turn * c.rank)) == [b"%d" % (turn * rank) for rank in range(c.world)]
        assert int(c.sum(np.array([turn], dtype=np.int64))[0]) == turn * c.world
        assert c.route([b"%d %d" % (turn, rank) for rank in range(c.world)]) == [b"%d %d" % (turn, c.rank)] * c.world


def wrong_arguments(c: Collective) -> None:
    """Counts of another type, and a wrong number of parts, are refused before anything is sent."""
    with pytest.raises(ArgumentError, match="sum takes int64 counts"):
        c.sum(np.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="one part per process"):
        c.route([b""] * (c.world + 1))
    rank_and_world(c)


def different_calls(c: Collective) -> None:
    """Processes that do different things learn it at once, on every one, and may go on."""
    call: Callable[[bytes], Any] = c.broadcast if c.rank == c.world - 1 else c.gather
    if c.world > 1:
        with pytest.raises(PeerError, match="different things"):
            call(b"")
    rank_and_world(c)


def first_tells_all(c: Collective) -> None:
    """`from_first` calls the work on process 0 alone, and gives all what it returned."""
    calls = []

    def work() -> bytes:
        calls.append(c.rank)
        return b"made by %d" % c.rank

    assert from_first(c, work) == b"made by 0"
    assert calls == ([0] if c.rank == 0 else [])


def first_fails_for_all(c: Collective) -> None:
    """An error of process 0 is raised on every process, with one class and one text."""

    def work() -> bytes:
        raise CorpusError("Shard 3 of a.tar cannot be read.", shard="a.tar")

    with pytest.raises(CorpusError, match=r"^Shard 3 of a\.tar cannot be read\.") as caught:
        from_first(c, work)
    assert caught.value.message.endswith("read." if c.rank == 0 else f"(Told by process 0 of {c.world}.)")
    rank_and_world(c)


def first_fails_unforeseen(c: Collective) -> None:
    """An error that is not the package's is raised as it was on process 0, and as PeerError with its text elsewhere."""

    def work() -> bytes:
        raise ZeroDivisionError("mean of no losses")

    with pytest.raises(ZeroDivisionError if c.rank == 0 else PeerError, match="mean of no losses") as caught:
        from_first(c, work)
    if c.rank:
        assert f"Process 0 of {c.world} failed" in str(caught.value)
    rank_and_world(c)


def each_tells_all(c: Collective) -> None:
    """`from_each` gives every process what each one's work returned, in rank order."""
    assert from_each(c, lambda: b"%d" % (c.rank * 11)) == [b"%d" % (rank * 11) for rank in range(c.world)]


def one_fails_for_all(c: Collective) -> None:
    """An error of the last process is raised on every process, with one class and one text."""
    last = c.world - 1

    def work() -> bytes:
        if c.rank == last:
            raise CorpusError("Its shards are gone.")
        return b"fine"

    with pytest.raises(CorpusError, match="Its shards are gone"):
        from_each(c, work)
    rank_and_world(c)


def all_agree(c: Collective) -> None:
    """`agree` lets processes pass that are about to do the same, and no others."""
    agree(c, "set_epoch(3)")
    if c.world > 1:
        with pytest.raises(PeerError, match=f"process 0 calls set_epoch\\(3\\) and process {c.world - 1} calls close"):
            agree(c, "close()" if c.rank == c.world - 1 else "set_epoch(3)")
    rank_and_world(c)


CHECKS: dict[str, Callable[[Collective], None]] = {
    check.__name__: check
    for check in (
        rank_and_world,
        empty_bytes,
        unequal_lengths,
        every_byte,
        more_than_a_piece,
        sums_of_int64,
        sums_of_any_shape,
        sums_leave_their_input,
        routes_are_asymmetric,
        broadcasts_from_the_first,
        many_in_a_row,
        wrong_arguments,
        different_calls,
        first_tells_all,
        first_fails_for_all,
        first_fails_unforeseen,
        each_tells_all,
        one_fails_for_all,
        all_agree,
    )
}


def outcomes(c: Collective) -> dict[str, str]:
    """Run every check on this process; return "held" or the traceback, by name.

    A check that fails on one process leaves the others waiting in the next, until their time is up: the first
    traceback is the one to read.
    """
    told = {}
    for name, check in CHECKS.items():
        try:
            check(c)
            told[name] = "held"
        except BaseException:  # noqa: BLE001  (pytest's own failure is no Exception)
            told[name] = traceback.format_exc()
    return told
