"""Lanes, shuffle, epoch plan and walk."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seta_stream.errors import PlanError
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.plan.lanes import Lanes
from seta_stream.plan.shuffle import block_length, line_block_length, shard_order
from seta_stream.plan.walk import Share, rounds


def plan_of(
    counts: list[int],
    *,
    keep: float = 1.0,
    rows: int = 1,
    width: int = 2,
    batch: int = 3,
    turns: int = 2,
    order: Literal["corpus", "shards", "blocks"] = "blocks",
    drop_last: bool = True,
    epoch: int = 0,
    seed: int = 0,
) -> EpochPlan:
    first_id = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    mask = np.random.default_rng(5).random(first_id[-1]) < keep
    geometry = Geometry(rows, width, batch, turns * batch, 1, seed, order, drop_last)
    return EpochPlan(Selection.of(mask, first_id), geometry, epoch)


def read(plan: EpochPlan, share: Share) -> list[tuple[int, list[int]]]:
    """Return (step, ids) as one reader yields them."""
    out = []
    for steps, ids in rounds(plan, share):
        sizes = [plan.lanes.size_of(s) * plan.geometry.rows // share.world for s in steps]
        parts = np.split(ids, np.cumsum(sizes)[:-1])
        out += [(step, part.tolist()) for step, part in zip(steps, parts, strict=True)]
    return out


def selected_ids(plan: EpochPlan) -> NDArray[np.int64]:
    return np.flatnonzero(np.unpackbits(plan.selection.bits)[: plan.total])


def test_lanes_by_hand() -> None:
    """11 samples in batches of 2 over 2 lanes: 5 steps, lane 0 has steps 0, 2, 4, lane 1 steps 1, 3, one is left."""
    lanes = Lanes(rows=1, width=2, batch=2, selected=11)
    assert (lanes.steps, lanes.planned, lanes.left_out) == (5, 10, 1)
    assert lanes.lengths.tolist() == [6, 4]
    assert lanes.starts.tolist() == [0, 6]


def test_short_last_step_by_hand() -> None:
    """With drop_last=False the last step takes the rest, in its own lane."""
    lanes = Lanes(rows=1, width=2, batch=4, selected=11, drop_last=False)
    assert (lanes.steps, lanes.planned, lanes.left_out) == (3, 11, 0)
    assert lanes.lengths.tolist() == [7, 4]
    assert [lanes.size_of(t) for t in range(3)] == [4, 4, 3]


def test_impossible_lanes_are_refused() -> None:
    """Sizes below one, and a short step for several ranks, are errors."""
    with pytest.raises(PlanError, match="at least one row, one lane and one sample"):
        Lanes(rows=0, width=1, batch=1, selected=1)
    with pytest.raises(PlanError, match="drop_last=False gives the last step fewer samples"):
        Lanes(rows=2, width=1, batch=1, selected=1, drop_last=False)


def test_too_little_selected_is_refused() -> None:
    """Nothing selected, or less than a global batch, names the numbers and what to change."""
    with pytest.raises(PlanError, match="nothing to train on: the policy selected none of 10 samples"):
        plan_of([10], keep=-1.0)
    with pytest.raises(
        PlanError, match=r"has 2 selected samples, fewer than one global batch of 3 \(ranks × batch_size\)"
    ):
        plan_of([2])


def test_order_by_hand() -> None:
    """Unshuffled, one lane: steps are the corpus in order."""
    plan = plan_of([2, 0, 4, 1], width=1, order="corpus", batch=3)
    assert read(plan, Share()) == [(0, [0, 1, 2]), (1, [3, 4, 5])]


def test_lane_holds_a_stretch() -> None:
    """With two lanes the even steps are the first half of the line, the odd ones the second."""
    plan = plan_of([12], width=2, order="corpus", batch=2)
    assert [ids for _, ids in read(plan, Share())] == [[0, 1], [6, 7], [2, 3], [8, 9], [4, 5], [10, 11]]


counts_lists = st.lists(st.integers(0, 40), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    counts=counts_lists,
    keep=st.sampled_from([1.0, 0.5]),
    rows=st.sampled_from([1, 2, 3, 4, 8]),
    width=st.integers(1, 5),
    batch=st.integers(1, 6),
    turns=st.integers(1, 4),
    order=st.sampled_from(["corpus", "shards", "blocks"]),
    drop_last=st.booleans(),
    epoch=st.integers(0, 3),
    data=st.data(),
)
def test_every_reader_gets_its_part_of_the_same_steps(
    counts: list[int],
    keep: float,
    rows: int,
    width: int,
    batch: int,
    turns: int,
    order: Literal["corpus", "shards", "blocks"],
    drop_last: bool,
    epoch: int,
    data: st.DataObject,
) -> None:
    """Any ranks that divide G, any workers, from any step: the same global steps, each planned sample exactly once."""
    drop_last = drop_last or rows > 1
    try:
        plan = plan_of(
            counts, keep=keep, rows=rows, width=width, batch=batch, turns=turns, order=order, drop_last=drop_last,
            epoch=epoch,
        )  # fmt: skip
    except PlanError:
        return
    whole = dict(read(plan, Share()))
    assert list(whole) == list(range(plan.lanes.steps))
    seen = np.array([number for ids in whole.values() for number in ids])
    assert len(np.unique(seen)) == len(seen) == plan.lanes.planned
    assert np.isin(seen, selected_ids(plan)).all()
    assert plan.lanes.left_out < plan.lanes.global_batch
    assert drop_last or len(seen) == plan.lanes.selected

    world = data.draw(st.sampled_from([w for w in range(1, rows * batch + 1) if rows * batch % w == 0]))
    world = world if drop_last else 1
    workers, origin = data.draw(st.integers(1, 5)), data.draw(st.integers(0, plan.lanes.steps))
    begin = data.draw(st.integers(origin, plan.lanes.steps))
    got: dict[int, list[int]] = {}
    for rank in range(world):
        for worker in range(workers):
            for step, ids in read(plan, Share(rank, world, worker, workers, origin, begin)):
                assert (step - origin) % workers == worker
                got.setdefault(step, []).extend(ids)
    assert got == {step: whole[step] for step in range(begin, plan.lanes.steps)}


def test_order_changes_with_epoch_and_seed_alone() -> None:
    """The same seed and epoch give the same order; another of either gives another."""
    one = read(plan_of([50, 50], epoch=1), Share())
    assert one == read(plan_of([50, 50], epoch=1), Share())
    assert one != read(plan_of([50, 50], epoch=2), Share())
    assert one != read(plan_of([50, 50], epoch=1, seed=1), Share())


def test_order_is_pinned() -> None:
    """These very numbers come on every machine and numpy version; a change here breaks every resumed run."""
    assert shard_order(7, 3, np.array([3, 0, 9, 1, 1, 4]), 1).tolist() == PINNED_SHARDS
    assert shard_order(7, 3, np.full(12, 5), 3).tolist() == PINNED_GROUPS
    assert [ids for _, ids in read(plan_of([7, 6], batch=3, epoch=2, seed=9), Share())] == PINNED_STEPS


def test_groups_keep_their_shards() -> None:
    """A node group has the same shards in every epoch, in another order but for those at its borders."""
    epochs = [shard_order(3, epoch, np.full(36, 10), 3).reshape(3, 12) for epoch in range(4)]
    for later in epochs[1:]:
        assert [set(g) for g in later.tolist()] == [set(g) for g in epochs[0].tolist()]
        assert (later[1:, 0] == epochs[0][1:, 0]).all()
        assert (later[:-1, -1] == epochs[0][:-1, -1]).all()
    assert len({tuple(e[:, 1:-1].reshape(-1).tolist()) for e in epochs}) == 4
    # The line's own ends border on nothing.
    assert len({(int(e[0, 0]), int(e[-1, -1])) for e in epochs}) > 1


@settings(max_examples=100)
@given(
    samples=st.lists(st.integers(0, 50), min_size=1, max_size=60),
    groups=st.integers(1, 9),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 5),
)
def test_groups_hold_equal_parts(samples: list[int], groups: int, epoch: int, seed: int) -> None:
    """Every shard stands once in the line, and groups end within half a shard of the machines' cuts in a full epoch."""
    counts = np.array(samples, np.int64)
    order = shard_order(seed, epoch, counts, groups)
    assert sorted(order.tolist()) == list(range(len(samples)))
    again = shard_order(seed, epoch + 1, counts, groups)
    ends, later = np.cumsum(counts[order]), np.cumsum(counts[again])
    for cut in range(1, groups):
        place = counts.sum() * cut / groups
        common = np.intersect1d([0, *ends], [0, *later])  # the groups' ends lie where they lay
        assert np.abs(common - place).min() <= counts.max() / 2


def test_left_out_samples_change() -> None:
    """What fills no step is not the same in every epoch."""
    plans = [plan_of([10, 10, 10], batch=7, epoch=e) for e in range(6)]
    left = {tuple(sorted(set(range(30)) - {i for _, ids in read(p, Share()) for i in ids})) for p in plans}
    assert len(left) > 1


def test_block_lengths_by_hand() -> None:
    """32 MiB or 4,096 samples over all lanes, 256 samples at least, whole steps."""
    assert block_length(2048, 8, 256) == 2048
    assert block_length(100_000, 8, 256) == 512
    assert block_length(100_000, 64, 100) == 300
    assert block_length(100_000, 8, 4096) == 4096
    assert line_block_length(1024, 1, 3) == 8193


def test_neighbours_by_hand() -> None:
    """Stand-ins come from the lane: before the place, nearest first, then after it."""
    plan = plan_of([12], width=2, order="corpus", batch=2)
    assert list(plan.neighbours(2, 1)) == [2, 1, 0, 4, 5]
    assert list(plan.neighbours(1, 0)) == [7, 8, 9, 10, 11]


def test_selection_of_large_masks() -> None:
    """Counts and positions agree with the mask, byte borders or not."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5000, 40)
    first_id = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    mask = rng.random(first_id[-1]) < 0.4
    selection = Selection.of(mask, first_id)
    for shard in range(40):
        part = mask[first_id[shard] : first_id[shard + 1]]
        assert selection.counts[shard] == part.sum()
        assert selection.positions(shard).tolist() == np.flatnonzero(part).tolist()


PINNED_SHARDS = [2, 1, 0, 4, 5, 3]
PINNED_GROUPS = [6, 4, 5, 1, 2, 0, 9, 3, 8, 11, 7, 10]
PINNED_STEPS = [[9, 12, 7], [2, 4, 5], [11, 10, 8], [1, 3, 0]]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
@pytest.mark.parametrize("order", ["corpus", "shards", "blocks"])
def test_a_copy_for_a_rank_reads_what_the_plan_has_for_it(
    world: int, order: Literal["corpus", "shards", "blocks"]
) -> None:
    """The copy for one rank gives its steps, and neighbours in its lanes, with the masks of few other shards."""
    plan = plan_of([7, 0, 31, 1, 90, 12, 5, 40, 66, 3] * 3, keep=0.6, rows=world, order=order)
    held = []
    for rank in range(world):
        copy = plan.copy_for(rank, world)
        assert read(copy, Share(rank, world)) == read(plan, Share(rank, world))
        element = rank * plan.geometry.batch
        assert list(copy.neighbours(1, element)) == list(plan.neighbours(1, element))
        assert copy.selection.bits.base is None
        held.append(len(copy.selection.bits))
    assert len(plan.selection.bits) <= sum(held) <= len(plan.selection.bits) + 2 * 30 + world * 12


def test_a_copy_does_not_change_with_the_plan() -> None:
    """What is written to the arrays that a plan was made of later is not seen by its copies."""
    plan = plan_of([50] * 8, keep=0.6, rows=2)
    copies = [plan.copy_for(rank, world) for rank, world in ((0, 1), (0, 2), (1, 2))]
    before = [read(copy, Share()) if copy.selection.places is None else None for copy in copies]
    steps = [read(copies[1], Share(0, 2)), read(copies[2], Share(1, 2))]
    plan.selection.bits[:] = 255
    plan.selection.counts[:] = 50
    assert read(copies[0], Share()) == before[0]
    assert [read(copies[1], Share(0, 2)), read(copies[2], Share(1, 2))] == steps


def test_a_copy_refuses_shards_of_other_ranks() -> None:
    """A rank's copy does not tell the masks of shards that it does not read."""
    copy = plan_of([50] * 8, rows=2).copy_for(0, 2)
    other = int(copy.order[-1])
    with pytest.raises(PlanError, match=f"samples of shard {other} are selected: .* what its own rank reads"):
        copy.selection.positions(other)
