"""Work that goes on while its results are taken now and then."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from seta_stream.corpus.background import Background


def test_results_are_taken_as_they_come() -> None:
    """What is there within the time, in order; the last ones do not wait for it."""
    may_go_on = threading.Event()

    def work(halt: threading.Event) -> Iterator[int]:
        yield from (0, 1)
        assert may_go_on.wait(30)
        yield 2

    background = Background(work)
    results, is_done = background.take(0.5)
    assert (results, is_done) == ([0, 1], False)
    assert background.take(0.0) == ([], False)
    may_go_on.set()
    assert background.take(60.0) == ([2], True)
    assert background.take(60.0) == ([], True)


def test_an_error_comes_behind_what_was_done() -> None:
    """It is raised where results are taken, whatever it is."""

    class GoneError(BaseException):
        pass

    def work(halt: threading.Event) -> Iterator[int]:
        yield 0
        raise GoneError

    background = Background(work)
    with pytest.raises(GoneError):
        background.take(60.0)
    assert background.take(60.0) == ([], True)


def test_closed_work_ends() -> None:
    """It is told, and closed once it gives another result: its own clean-up runs, and no thread is left."""
    told: list[str] = []

    def work(halt: threading.Event) -> Iterator[int]:
        try:
            yield 0
            assert halt.wait(30)
            told.append("halt")
            yield 1
            told.append("more")
        finally:
            told.append("closed")

    background = Background(work)
    background.close()
    assert told == ["halt", "closed"]
    assert not background._thread.is_alive()
