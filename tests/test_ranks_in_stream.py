"""Many processes train together (played by threads): what they read, decide and leave is what one process does."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks_scenario import CASES, OTHERS, Run, corpus, joined, left_by, whole
from thread_collective import ThreadCollective, ThreadTeam

from seta_stream import Full, Rule, SetaStream
from seta_stream.errors import LossError, PeerError, PlanError
from seta_stream.losses.histogram import Histogram

CORPORA = [
    (41, 0, 1, 77, 30, 52, 90),
    (160, 90),  # fewer shards than processes
    (250,),
    (1,) * 40 + (60,),  # shards of one sample each
    (0, 0, 150, 0, 1, 149, 0),
]


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what makes files survive a power cut: most of the time here, and the affair of tests/losses."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@st.composite
def runs(draw: st.DrawFn, case: str, folder: Path) -> tuple[Run, int, int]:
    """Draw a run, and the ranks and workers that train it."""
    world, per_rank = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    batch = world * per_rank
    rows = draw(st.sampled_from([rows for rows in range(1, batch + 1) if batch % rows == 0]))
    counts = draw(st.sampled_from(CORPORA))
    lanes = (rows, draw(st.integers(1, 4)))
    run = Run(corpus(counts), case, batch, folder / "many", lanes, per_rank, draw(st.integers(0, 9)))
    return run, world, draw(st.integers(0, 5))


@pytest.mark.parametrize("case", CASES)
@given(data=st.data())
@settings(max_examples=3)
def test_any_number_of_ranks_is_as_one_process(case: str, data: st.DataObject) -> None:
    """Batches, weights, selections, rules, sidecars and history are those of one process, byte for byte."""
    with tempfile.TemporaryDirectory() as folder:
        run, world, workers = data.draw(runs(case, Path(folder)))
        alone = replace(run, state=Path(folder) / "alone")
        expected = [joined([told]) for (told,) in zip(*whole(alone, 1), strict=True)]
        found = [joined(list(told)) for told in zip(*whole(run, world, workers), strict=True)]
        assert found == expected
        assert left_by(run.state) == left_by(alone.state)
        for epoch in found:
            ids = [number for step, _ in epoch.steps for number in step]
            selected = np.flatnonzero(np.unpackbits(np.frombuffer(epoch.bits, np.uint8)))
            assert len(set(ids)) == len(ids) == epoch.selected // run.batch * run.batch
            assert set(ids) <= set(selected.tolist())


def calls_of(case: str, total: int) -> st.SearchStrategy[list[Any]]:
    """Return calls of record(): few ids, so that they come twice, −1 among them; and losses that cannot be."""
    ids = st.sampled_from([-1, 0, 1, 7, total // 2, total // 2 + 1, total - 2, total - 1])
    loss = st.one_of(st.integers(1, 40).map(lambda value: value / 8), st.just(float("nan")))
    return st.lists(st.lists(st.tuples(ids, loss), min_size=1, max_size=6), max_size=4)


@pytest.mark.filterwarnings("ignore:.* were NaN or infinite:seta_stream.SetaStreamWarning")
@pytest.mark.parametrize("case", ["seta", "flags", "labels", "smooth", "columns"])
@given(data=st.data())
@settings(max_examples=8)
def test_anything_may_be_recorded_anywhere(case: str, data: st.DataObject) -> None:
    """Any id on any rank, by several, again and again, NaN: as one process to which the ranks record in turn."""
    shards, total = corpus((25, 0, 14, 1)), 40
    world = data.draw(st.integers(1, 8))
    told = data.draw(st.lists(calls_of(case, total), min_size=world, max_size=world))

    def record(stream: SetaStream, calls: list[Any]) -> None:
        for call in calls:
            ids, losses = np.array([one for one, _ in call]), [loss for _, loss in call]
            stream.record(ids, losses, **{name: OTHERS[name](ids) for name in stream.session.memory.takes})

    with tempfile.TemporaryDirectory() as folder:
        run = Run(shards, case, world, Path(folder) / "many", (1, 2))
        alone = replace(run, state=Path(folder) / "alone")

        def one(collective: ThreadCollective) -> Any:
            with (alone if collective.world == 1 else run).open(collective) as stream:
                stream.set_epoch(0)
                stream.record(np.arange(total), np.arange(total) / 7 + 0.5) if collective.rank == 0 else None
                for rank in range(world) if collective.world == 1 else [collective.rank]:
                    record(stream, told[rank])
                stream.set_epoch(1)
                return stream.session.plan.selection.bits.tolist()

        (expected,) = ThreadTeam(1).run(one)
        if world > 1:
            assert ThreadTeam(world).run(one) == [expected] * world
            assert left_by(run.state) == left_by(alone.state)


@pytest.mark.filterwarnings("ignore:No losses were recorded:seta_stream.SetaStreamWarning")
def test_what_is_recorded_before_any_epoch_is_set_counts_alike() -> None:
    """Without a state it is what the first epoch is selected by, wherever it was recorded."""
    shards = corpus((25, 0, 14, 1))

    def one(collective: ThreadCollective) -> list[int]:
        stream = SetaStream(shards, collective=collective, policy=CASES["weights"]["policy"], lanes=(1, 1))
        ids = np.arange(collective.rank, 40, collective.world)
        stream.record(ids, ids % 13 + 1.0)
        stream.set_epoch(1)
        assert stream.session.plan.selection.selected < 40
        return stream.session.plan.selection.bits.tolist()

    (expected,) = ThreadTeam(1).run(one)
    assert ThreadTeam(3).run(one) == [expected] * 3


@pytest.mark.parametrize("case", ["flags", "labels"])
def test_what_a_column_cannot_hold_is_refused_at_once(case: str, tmp_path: Path) -> None:
    """record() raises where it is called, as in one process; the other ranks meet nothing of it."""
    run = Run(corpus((25, 0, 14, 1)), case, 2, tmp_path / "many", (1, 1))
    (name,) = {"flags": ["flags"], "labels": ["group"]}[case]

    def one(collective: ThreadCollective) -> int:
        with run.open(collective) as stream:
            stream.set_epoch(0)
            stream.record([1, 30], [1.0, 2.0], **{name: [1, 0]})
            if collective.rank == 0:
                for wrong in ([70000, 1], [0.5, 1]):
                    with pytest.raises(LossError, match=f"Cannot record {name}=: column {name} holds whole numbers"):
                        stream.record([1, 30], [3.0, 4.0], **{name: wrong})
            stream.set_epoch(1)
            owned = stream.session.memory.losses.values
            return int(np.isfinite(owned).sum())

    assert ThreadTeam(2).run(one) == [1, 1]


def few_then_all(histogram: Histogram, epoch: int) -> Rule:
    """Select less than a batch in epoch 1 alone."""
    return Rule([], [0.0], unseen_keep=0.05) if epoch == 1 else Rule([], [1.0])


def test_less_than_a_global_batch_is_the_same_error_everywhere(tmp_path: Path) -> None:
    """Every rank says the same, none waits, and another epoch can be set."""
    shards = corpus((41, 0, 1, 77, 30, 52, 90))

    def one(collective: ThreadCollective) -> Any:
        with SetaStream(
            shards, policy=few_then_all, state=str(tmp_path / "s"), batch_size=10, collective=collective
        ) as stream:
            stream.set_epoch(0)
            stream.record([collective.rank], [1.0])
            with pytest.raises(PlanError) as caught:
                stream.set_epoch(1)
            stream.set_epoch(2)
            return str(caught.value), len(stream)

    found = ThreadTeam(4).run(one)
    assert found == [found[0]] * 4
    assert "Epoch 1 has " in found[0][0]
    assert "fewer than one global batch of 40 (ranks × batch_size): make the batch smaller" in found[0][0]
    assert found[0][1] == 70
    too_large = ThreadTeam(2).outcomes(
        lambda c: SetaStream(shards, policy=Full(), batch_size=200, collective=c).set_epoch(0)
    )
    assert [type(one) for one in too_large] == [PlanError, PlanError]
    assert str(too_large[0]) == str(too_large[1])


def test_a_policy_that_ends_before_the_run_closes_it_all_the_same(tmp_path: Path) -> None:
    """A user's rule that fails past its last epoch: the last losses are committed, by all ranks, as in one process."""

    def schedule(histogram: Histogram, epoch: int) -> Rule:
        return Rule([], [[1.0, 0.8][epoch]])

    def one(collective: ThreadCollective) -> str:
        state = str(tmp_path / str(collective.world))
        with SetaStream(
            corpus((25, 0, 14, 1)), policy=schedule, state=state, batch_size=2, lanes=(1, 1), collective=collective
        ) as stream:
            for epoch in range(2):
                stream.set_epoch(epoch)
                stream.record([7 + 10 * collective.rank], [1.0 + epoch])
            with pytest.raises((IndexError, PeerError), match="list index out of range") as caught:
                stream.set_epoch(2)
        return type(caught.value).__name__

    for world in (1, 3):
        assert ThreadTeam(world).run(one) == ["IndexError", "PeerFailedError", "PeerFailedError"][:world]
        assert len(list((tmp_path / str(world) / "losses").glob("gen-*"))) == 2


def test_the_samples_consumed_are_the_same_on_every_rank(tmp_path: Path) -> None:
    """Also where the loop tells nothing and ranks read ahead unevenly: checkpoints are equal all the same."""
    run = Run(corpus((41, 0, 1, 77, 30, 52, 90)), "seta", 6, tmp_path / "s", (1, 1), more={"policy": Full()})
    barrier = threading.Barrier(2)

    def one(collective: ThreadCollective) -> Any:
        with run.open(collective) as stream:
            stream.set_epoch(0)
            stream.reader.board.counters(1)[:] += 30 * collective.rank  # what workers read
            barrier.wait()
            stream.set_epoch(1)
            return stream.state_dict()

    first, second = ThreadTeam(2).run(one)
    assert first == second
    assert first["consumed"] == 30
