"""Ranks and workers: who reads what, and going on with other numbers of both."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seta_stream.errors import PlanError
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.plan.walk import Share, rounds

Steps = dict[int, list[int]]


def worlds_of(geometry: Geometry, most: int = 8) -> list[int]:
    """Return the numbers of ranks that can share a step."""
    return [w for w in range(1, most + 1) if geometry.global_batch % w == 0]


@st.composite
def plans(draw: st.DrawFn) -> EpochPlan:
    """Draw a plan with a few steps: any rows, lanes and batch, shards of any sizes, empty ones too."""
    rows, batch = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    geometry = Geometry(
        rows,
        width=draw(st.integers(1, 5)),
        batch=batch,
        block=batch * draw(st.integers(1, 4)),
        groups=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 9)),
        order=draw(st.sampled_from(["corpus", "shards", "blocks"])),
        drop_last=True,
    )
    counts = draw(st.lists(st.integers(0, 60), min_size=1, max_size=7))
    first_id = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    share = draw(st.sampled_from([1.0, 0.6]))
    mask = np.random.default_rng(draw(st.integers(0, 99))).random(int(first_id[-1])) < share
    assume(np.count_nonzero(mask) >= geometry.global_batch)
    return EpochPlan(Selection.of(mask, first_id), geometry, draw(st.integers(0, 3)))


def batches_of(plan: EpochPlan, share: Share) -> list[list[int]]:
    """Return what one reader yields, a batch per step."""
    per_step = plan.geometry.per_rank(share.world)
    return [batch.tolist() for _, ids in rounds(plan, share) for batch in np.split(ids, len(ids) // per_step)]


def as_loaded(plan: EpochPlan, world: int, workers: int, origin: int) -> list[list[int]]:
    """Return the global batches as ranks with loaders yield them: each loader asks its workers in turn."""
    ranks = []
    for rank in range(world):
        own = [
            iter(batches_of(plan, Share(rank, world, worker, max(workers, 1), origin, origin)))
            for worker in range(max(workers, 1))
        ]
        ranks.append([next(own[turn % len(own)]) for turn in range(plan.lanes.steps - origin)])
        assert all(next(worker, None) is None for worker in own), "a rank has more batches than steps"
    # axes: step × rank; a global batch is what all ranks have of one step, in the order of ranks
    return [[number for batch in step for number in batch] for step in zip(*ranks, strict=True)]


@settings(max_examples=200)
@given(plan=plans(), workers=st.integers(0, 5), data=st.data())
def test_ranks_together_read_the_steps_of_the_plan(plan: EpochPlan, workers: int, data: st.DataObject) -> None:
    """1–8 ranks with 0–5 workers, from any origin: the same global batches in the same order, equally many for each."""
    whole = batches_of(plan, Share())
    assert len(whole) == plan.lanes.steps
    seen = sorted(number for batch in whole for number in batch)
    assert len(set(seen)) == len(seen) == plan.lanes.planned
    world = data.draw(st.sampled_from(worlds_of(plan.geometry)))
    origin = data.draw(st.integers(0, plan.lanes.steps))
    assert as_loaded(plan, world, workers, origin) == whole[origin:]


@settings(max_examples=100)
@given(plan=plans(), data=st.data())
def test_a_run_goes_on_with_other_ranks_and_workers(plan: EpochPlan, data: st.DataObject) -> None:
    """Stopped at any step, again and again, each time with other numbers: no batch is lost, none comes twice."""
    whole = batches_of(plan, Share())
    got: list[list[int]] = []
    while len(got) < plan.lanes.steps:
        world = data.draw(st.sampled_from(worlds_of(plan.geometry)))
        trained = data.draw(st.integers(1, plan.lanes.steps - len(got)))
        got += as_loaded(plan, world, data.draw(st.integers(0, 5)), origin=len(got))[:trained]
    assert got == whole


@settings(max_examples=150)
@given(plan=plans(), data=st.data())
def test_a_part_holds_what_its_rank_reads(plan: EpochPlan, data: st.DataObject) -> None:
    """And what may stand in for it; parts cover the line, and none is longer than its bound says."""
    world = data.draw(st.sampled_from(worlds_of(plan.geometry)))
    g = plan.geometry
    line = plan.stretch(0, plan.lanes.selected)
    covered = np.zeros(plan.lanes.selected, bool)
    for rank in range(world):
        begin, stop = plan.part(rank, world)
        covered[begin:stop] = True
        part = set(line[begin:stop].tolist())
        assert {number for batch in batches_of(plan, Share(rank, world)) for number in batch} <= part
        element = rank * g.per_rank(world) + data.draw(st.integers(0, g.per_rank(world) - 1))
        assert set(plan.neighbours(data.draw(st.integers(0, plan.lanes.steps - 1)), element)) <= part
        assert stop - begin <= g.most_in_part(plan.total, world)
    assert covered.all()
    for shard, start in enumerate(plan.starts.tolist()):
        own = plan.selection.positions(shard) + plan.selection.first_id[shard]
        assert line[start : start + len(own)].tolist() == own.tolist()


def geometry(rows: int, batch: int, *, drop_last: bool = True) -> Geometry:
    return Geometry(rows, 2, batch, batch, 1, 0, "blocks", drop_last)


@pytest.mark.parametrize(
    ("rows", "batch", "world", "expected"),
    [
        (64, 256, 64, 1_000_000_000 // 64 // 256 * 256 + 64 * 256 - 1),  # each its row, and perhaps what is left out
        (1, 256, 1, 1_000_000_000),  # one process: all that is selected
        (1, 256, 64, 1_000_000_000),  # many ranks share the one row
        (8, 256, 4, 2 * (1_000_000_000 // 2048 * 256) + 2047),  # two rows each
        (3, 2, 2, 2 * (1_000_000_000 // 6 * 2) + 5),  # the middle row is shared
        (8, 3, 6, 2 * (1_000_000_000 // 24 * 3) + 23),  # 1⅓ rows each touch 2
    ],
)
def test_the_bound_of_parts_by_hand(rows: int, batch: int, world: int, expected: int) -> None:
    """About rows / world of the line, at least a row, at most a row more where neither divides the other."""
    assert geometry(rows, batch).most_in_part(1_000_000_000, world) == expected


def test_the_bound_without_dropping_is_everything() -> None:
    """A short last step has one process alone."""
    assert geometry(1, 4, drop_last=False).most_in_part(1001, 1) == 1001


def test_parts_by_hand() -> None:
    """26 samples, G = 6 of three rows: 4 steps of 8 per row, 2 left out; two ranks share the middle row."""
    first_id = np.array([0, 26])
    plan = EpochPlan(Selection.of(np.ones(26, bool), first_id), geometry(3, 2), 0)
    assert [plan.part(rank, 3) for rank in range(3)] == [(0, 8), (8, 16), (16, 26)]
    assert [plan.part(rank, 2) for rank in range(2)] == [(0, 16), (8, 26)]
    assert [plan.part(rank, 6) for rank in range(6)] == [(0, 8), (0, 8), (8, 16), (8, 16), (16, 26), (16, 26)]
    assert plan.part(0, 1) == (0, 26)


@pytest.mark.parametrize("world", [0, 5, 7, 24])
def test_ranks_that_cannot_share_a_step_are_refused(world: int) -> None:
    """The message lists the numbers of ranks that fit."""
    told = rf"12 samples \(the run's global batch\) cannot be shared equally by {world} ranks: .*: 1, 2, 3, 4, 6, 12\."
    with pytest.raises(PlanError, match=told):
        geometry(4, 3).per_rank(world)


def test_a_short_last_step_has_one_process() -> None:
    """Whatever divides the batch."""
    plan = EpochPlan(Selection.of(np.ones(10, bool), np.array([0, 10])), geometry(1, 4, drop_last=False), 0)
    assert plan.geometry.per_rank(1) == 4
    told = "drop_last=False gives the last step fewer samples, which 2 ranks cannot share equally"
    with pytest.raises(PlanError, match=told):
        list(rounds(plan, Share(1, 2)))


Order = Literal["corpus", "shards", "blocks"]


@pytest.mark.parametrize("order", ["corpus", "shards", "blocks"])
def test_a_rank_reads_few_shards(order: Order) -> None:
    """1,024 shards, 64 ranks: each touches the shards of its row's stretch alone, and those at its ends."""
    first_id = np.arange(1025) * 100
    mask = np.random.default_rng(3).random(102_400) < 0.5
    plan = EpochPlan(Selection.of(mask, first_id), Geometry(64, 4, 8, 64, 8, 0, order, True), 2)
    for rank in (0, 31, 63):
        ids = np.concatenate([ids for _, ids in rounds(plan, Share(rank, 64))])
        assert len(np.unique(ids // 100)) <= 1024 // 64 + 2
