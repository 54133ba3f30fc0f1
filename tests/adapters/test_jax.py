"""JaxStream: batches over a mesh, losses back, resume; in one process of four devices, and in several."""

from __future__ import annotations

import gc
import threading
from collections.abc import Generator
from typing import Any

import pytest
from jax_launch import run
from jax_stream_suite import CHECKS

from seta_stream.adapters.jax_ahead import Ahead


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the suite once, in a process of its own with four CPU devices; what it saw, by check."""
    return run("stream_suite", 1, tmp_path_factory.mktemp("suite"), devices=4)[0]


@pytest.mark.parametrize("check", CHECKS)
def test_one_process(suite: Any, check: str) -> None:
    """In one process it does what it says; see the check's own claim."""
    assert suite[check] == "held"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Train, once for the tests below, in two processes of two devices; what each process saw, by run."""
    return run("training", 2, tmp_path_factory.mktemp("trained"), devices=2)


@pytest.mark.parametrize("name", ["turned", "resumed"])
def test_processes_train_as_one(trained: list[Any], name: str) -> None:
    """Two processes' rows are, step by step over all epochs, those of one that reads everything.

    So each loss found its sample, whatever the order of the mesh, and over a checkpoint in mid-epoch; and a step's mean
    is that of all its samples.
    """
    joined = []
    for epoch in zip(*(seen[name] for seen in trained), strict=True):
        steps = []
        for (ids, mean), (other_ids, other_mean) in zip(*epoch, strict=True):
            steps.append(ids + other_ids)
            expected = sum(number * 37 % 101 / 10 + 0.1 for number in steps[-1]) / len(steps[-1])
            assert mean == other_mean == pytest.approx(expected, rel=1e-5)
        joined.append(steps)
    assert joined == trained[0]["alone"] == trained[1]["alone"]
    assert len(joined[1]) < len(joined[0])


def test_meshes_that_do_not_fit_several_processes(trained: list[Any]) -> None:
    """Rows that two processes share, a mesh of one process alone, and losses elsewhere: each says what to do."""
    for seen in trained:
        told = seen["refusals"]
        assert told["shared rows"].startswith("ArgumentError: Cut by")
        assert "each must have 4 of its own" in told["shared rows"]
        assert "and 2 train together: make it of jax.devices(); or of jax.local_devices() with" in told["own devices"]
        assert "LossError: update() got (4,) ids and losses of shape (8,)" in told["other losses"]
        assert "4 samples here of 8 in all" in told["other losses"]


def test_processes_may_train_apart(trained: list[Any]) -> None:
    """With world=1 each process reads everything, onto devices of its own."""
    first, second = (seen["own devices alone"] for seen in trained)
    assert len(first) == 4
    assert first == second


# ---- the thread that makes batches ahead


class Source:
    """Numbered batches, which tell how far ahead of their use they were made."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0
        self.most_ahead = 0
        self.closed_in: str | None = None
        self.reached = threading.Event()

    def values(self, wanted: int = 0) -> Generator[dict[str, Any], None, None]:
        try:
            for made in range(1, self.count + 1):
                if made == wanted:
                    self.reached.set()
                self.most_ahead = max(self.most_ahead, made - self.taken)
                yield {"number": made}
        finally:
            self.closed_in = threading.current_thread().name


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_values_are_made_ahead_within_bounds(depth: int) -> None:
    """They come in order, made before they are asked for, and never more than `depth` wait."""
    source = Source(50)
    ahead = Ahead(source.values(wanted=max(depth, 1)), depth)
    if depth:
        assert source.reached.wait(timeout=30), "nothing is made before it is asked for"
    numbers = []
    for value in ahead:
        numbers.append(value["number"])
        source.taken += 1
    assert numbers == [*range(1, 51)]
    assert source.most_ahead <= depth + 1
    assert list(ahead) == []


def test_the_thread_ends_with_its_reader() -> None:
    """Closed, or no longer referred to, it ends its generator in its own thread, and is waited for."""
    for is_closed in (True, False):
        source = Source(1000)
        ahead = Ahead(source.values(), 2)
        next(ahead)
        if is_closed:
            ahead.close()
            ahead.close()
            assert list(ahead) == []
        del ahead
        gc.collect()
        assert source.closed_in == "seta_stream ahead"
    assert not [one for one in threading.enumerate() if one.name == "seta_stream ahead"]


def test_an_error_is_raised_in_its_turn() -> None:
    """What was made before it comes first; after it nothing does."""

    def values() -> Generator[dict[str, Any], None, None]:
        yield {"number": 1}
        message = "no more"
        raise KeyError(message)

    ahead = Ahead(values(), 5)
    assert next(ahead) == {"number": 1}
    with pytest.raises(KeyError, match="no more"):
        next(ahead)
    assert list(ahead) == []
