"""How processes fail together, the one-process form, and the threads that play processes in other tests."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from thread_collective import ThreadCollective, ThreadTeam

from seta_stream.collective import Collective, OneProcess, agree, from_each, from_first
from seta_stream.errors import CorpusError, PeerError

sys.path.insert(0, str(Path(__file__).parent / "adapters"))

from collective_suite import CHECKS


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_threads_are_a_collective(world: int, check: str) -> None:
    """Threads do what every collective does: what a test sees with them holds for processes."""
    ThreadTeam(world).run(CHECKS[check])


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "wrong_arguments"])
def test_one_process_is_a_collective(check: str) -> None:
    """The form of a single process does the same; only it looks at nothing, for nothing is sent."""
    CHECKS[check](OneProcess())


class Silent:
    """A single process that must not be asked for an exchange."""

    rank = 0
    world = 1

    def __getattr__(self, name: str) -> None:
        raise AssertionError(f"{name} was called")


def test_one_process_exchanges_nothing() -> None:
    """Where there is one process, working and agreeing together is done without an exchange."""
    alone: Collective = Silent()  # type: ignore[assignment]
    assert from_first(alone, lambda: b"made") == b"made"
    assert from_each(alone, lambda: b"made") == [b"made"]
    agree(alone, "close()")


class OwnError(CorpusError):
    """An error of a user's corpus, which other processes need not know."""


def test_an_unknown_error_is_told_as_a_peers() -> None:
    """A class that the package does not have is PeerError elsewhere, with the text and who says it."""

    def fail(collective: Collective) -> None:
        def work() -> bytes:
            if collective.rank == 1:
                raise OwnError("The lexicon is gone.")
            return b""

        from_each(collective, work)

    outcomes = ThreadTeam(3).outcomes(fail)
    assert [isinstance(one, PeerError) for one in outcomes] == [True, False, True]
    assert type(outcomes[1]) is OwnError
    assert str(outcomes[2]) == ("Process 1 of 3 failed, and this one cannot go on without it. The lexicon is gone.")


def test_the_lowest_of_several_errors_is_told() -> None:
    """Where several fail, each raises its own error and the others that of the lowest: all ranks tell one story."""

    def fail(collective: Collective) -> None:
        def work() -> bytes:
            if collective.rank:
                raise CorpusError(f"Part {collective.rank} is damaged.")
            return b""

        from_each(collective, work)

    outcomes = [str(one) for one in ThreadTeam(3).outcomes(fail)]
    assert outcomes == [
        "Part 1 is damaged. (Told by process 1 of 3.)",
        "Part 1 is damaged.",
        "Part 2 is damaged.",
    ]


def test_facts_stay_with_the_process_that_failed() -> None:
    """The error that is raised where it happened is the very one, with its facts and its cause."""
    error = CorpusError("Shard 3 is gone.", shard="a.tar")

    def work() -> bytes:
        raise error

    outcomes = ThreadTeam(2).outcomes(lambda collective: from_first(collective, work))
    assert outcomes[0] is error
    assert outcomes[1] is not error


def test_a_thread_that_fails_ends_the_others_at_once() -> None:
    """`run` raises what failed first; the others end in PeerError, and the team can be used again."""
    team = ThreadTeam(4)

    def fail(collective: ThreadCollective) -> None:
        collective.gather(b"")
        if collective.rank == 2:
            raise ValueError("mine")
        collective.gather(b"")

    with pytest.raises(ValueError, match="mine"):
        team.run(fail)
    outcomes = team.outcomes(fail)
    assert [type(one) for one in outcomes] == [PeerError, PeerError, ValueError, PeerError]
    assert str(outcomes[0]) == "gather of rank 0 of 4 ended: rank 2 has ended."
    assert outcomes[0].__cause__ is outcomes[2]
    assert team.run(lambda collective: collective.rank) == [0, 1, 2, 3]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rank ")]


def test_a_thread_that_stays_away_is_not_waited_for() -> None:
    """A rank that does something else for ever, or returns early, ends the others' exchange."""
    away = threading.Event()

    def stay(collective: ThreadCollective) -> None:
        if collective.rank:
            away.wait()
        else:
            try:
                collective.broadcast(b"")
            finally:
                away.set()

    with pytest.raises(PeerError, match=r"broadcast of rank 0 of 2 ended: no answer within 0\.01 s"):
        ThreadTeam(2, timeout_s=0.01).run(stay)
    with pytest.raises(PeerError, match="gather of rank 1 of 2 ended: rank 0 has ended"):
        ThreadTeam(2).run(lambda collective: collective.gather(b"") if collective.rank else None)


def test_sums_of_different_shape_are_refused() -> None:
    """Threads that sum different arrays learn it."""
    with pytest.raises(PeerError, match=r"arrays of different shapes: \[\(1,\), \(2,\)\]"):
        ThreadTeam(2).run(lambda collective: collective.sum(np.zeros(1 + collective.rank, dtype=np.int64)))


def test_exchanges_are_counted() -> None:
    """`calls` and `sent_bytes` let a test see that nothing is exchanged where nothing should be."""
    team = ThreadTeam(2)

    def some(collective: ThreadCollective) -> None:
        collective.gather(b"12")
        collective.route([b"345", b"6789"])
        collective.broadcast(b"1")
        collective.sum(np.zeros(2, dtype=np.int64))

    team.run(some)
    assert [one.calls for one in team.collectives] == [["gather", "route", "broadcast", "sum"]] * 2
    assert [one.sent_bytes for one in team.collectives] == [2 + 4 + 1 + 16, 2 + 3 + 0 + 16]
