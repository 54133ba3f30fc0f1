"""Loss weights on their way from owners to readers, and looked up there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seta_stream.errors import ArgumentError, PeerError
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.plan.walk import Share, rounds
from seta_stream.plan.weights import LineWeights, Weights, weights_received, weights_to_send


class Case(NamedTuple):
    """A plan, each sample's weight (0 where not selected), who owns which shards, and how many read."""

    plan: EpochPlan
    weights: NDArray[np.float32]
    owners: NDArray[np.int64]
    world: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw 1–8 ranks, rows that they share or not, shards that nothing is selected of, owners that own nothing."""
    world = draw(st.integers(1, 8))
    # G = rows × batch is a multiple of world, whatever the run began with.
    rows, batch = draw(
        st.sampled_from([(world, 2), (1, world), (2 * world, 1), (3, 2 * world), (world, 3), (2, world)])
    )
    geometry = Geometry(rows, draw(st.integers(1, 3)), batch, 2 * batch, draw(st.integers(1, 3)), 1, "blocks", True)
    counts = draw(st.lists(st.integers(0, 40), min_size=1, max_size=9))
    first_id = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    mask = rng.random(int(first_id[-1])) < draw(st.sampled_from([1.0, 0.5]))
    for shard in draw(st.sets(st.integers(0, len(counts) - 1), max_size=2)):
        mask[first_id[shard] : first_id[shard + 1]] = False
    assume(np.count_nonzero(mask) >= geometry.global_batch)
    weights = np.where(mask, rng.permutation(len(mask)) + 1, 0).astype(np.float32)
    cuts = draw(st.lists(st.integers(0, len(counts)), min_size=world - 1, max_size=world - 1))
    owners = np.array([0, *sorted(cuts), len(counts)], np.int64)
    return Case(EpochPlan(Selection.of(mask, first_id), geometry, draw(st.integers(0, 3))), weights, owners, world)


def sent(case: Case) -> list[list[bytes]]:
    """Return what each owner sends each rank; an owner sees the weights of its own shards alone."""
    plan, weights, owners, world = case
    bounds = plan.selection.first_id[owners].tolist()
    shards = owners.tolist()
    return [
        weights_to_send(plan, weights[bounds[o] : bounds[o + 1]].copy(), (shards[o], shards[o + 1]), world)
        for o in range(world)
    ]


def line_of(case: Case, rank: int, routed: list[list[bytes]]) -> LineWeights:
    """Return the part of a rank, after its way."""
    plan, _, owners, world = case
    values = weights_received(plan, rank, world, owners, [parts[rank] for parts in routed])
    return LineWeights(plan.part(rank, world)[0], values)


@settings(max_examples=200)
@given(cases())
def test_every_rank_gets_the_owners_weights_of_what_it_reads(case: Case) -> None:
    """In the order of the line; by shard, by id; and nothing else travels."""
    plan, weights, _, world = case
    routed = sent(case)
    for rank in range(world):
        begin, stop = plan.part(rank, world)
        line = line_of(case, rank, routed)
        assert line.values.dtype == np.float32
        assert line.values.tolist() == weights[plan.stretch(begin, stop)].tolist()
        assert sum(len(parts[rank]) for parts in routed) == 4 * (stop - begin)
        lookup = Weights.of_line(plan, line)
        for _, ids in rounds(plan, Share(rank, world)):
            assert lookup.of(ids).tolist() == weights[ids].tolist()
            by_shard = np.searchsorted(plan.selection.first_id, ids, side="right") - 1
            for shard in np.unique(by_shard).tolist():
                own = ids[by_shard == shard]
                by_position = line.of_shard(plan, shard)
                assert by_position[own - plan.selection.first_id[shard]].tolist() == weights[own].tolist()


@settings(max_examples=150)
@given(cases())
def test_a_lookup_knows_its_part_and_refuses_the_rest(case: Case) -> None:
    """Every id of the corpus: the owner's weight, or an error where another rank reads it; in one process, none."""
    plan, weights, _, world = case
    routed = sent(case)
    for rank in range(world):
        begin, stop = plan.part(rank, world)
        lookup = Weights.of_line(plan, line_of(case, rank, routed))
        held = set(plan.stretch(begin, stop).tolist())
        shards = {int(s) for s in np.searchsorted(plan.selection.first_id, sorted(held), side="right") - 1}
        for number, weight in enumerate(weights.tolist()):
            shard = int(np.searchsorted(plan.selection.first_id, number, side="right")) - 1
            # What is not selected weighs 0 where that can be known: beside samples that are read, or in nobody's shard.
            is_known = number in held or (weight == 0 and (shard in shards or not plan.selection.counts[shard]))
            if is_known:
                assert lookup.of(np.array([number])).tolist() == [weight]
            else:
                assert world > 1
                with pytest.raises(
                    ArgumentError, match=f"Cannot tell the weight of id {number}: another rank reads it"
                ):
                    lookup.of(np.array([-1, number]))
        samples = np.diff(plan.selection.first_id)
        most = samples[sorted(shards)].sum() + samples[plan.selection.counts == 0].max(initial=0)
        assert len(lookup.table) <= (most if (begin, stop) != (0, plan.lanes.selected) else plan.total)


def case_by_hand() -> Case:
    """Make two shards of 4 and 3 samples, all but id 1 selected, read in corpus order by two ranks of 3 samples."""
    mask = np.array([1, 0, 1, 1, 1, 1, 1], bool)
    plan = EpochPlan(Selection.of(mask, np.array([0, 4, 7])), Geometry(2, 1, 1, 1, 1, 0, "corpus", True), 0)
    weights = np.array([0.5, 0, 1.5, 2.5, 3.5, 4.5, 5.5], np.float32)
    return Case(plan, weights, np.array([0, 2, 2]), 2)


def test_the_way_by_hand() -> None:
    """One process owns all shards, the other none; the bytes are little-endian float32 in the order of the line."""
    case = case_by_hand()
    assert [[np.frombuffer(part, "<f4").tolist() for part in parts] for parts in sent(case)] == [
        [[0.5, 1.5, 2.5], [3.5, 4.5, 5.5]],
        [[], []],
    ]
    line = line_of(case, 1, sent(case))
    assert (line.begin, line.values.tolist()) == (3, [3.5, 4.5, 5.5])
    assert np.isnan(line.of_shard(case.plan, 0)).tolist() == [True, False, True, True]
    lookup = Weights.of_line(case.plan, line)
    assert lookup.of(np.array([[6, -1], [4, 5]])).tolist() == [[5.5, 0], [3.5, 4.5]]
    assert lookup.of(np.array([], np.int64)).tolist() == []
    with pytest.raises(ArgumentError, match="a rank knows the weights of what it reads"):
        lookup.of(np.array([4, 3]))


@pytest.mark.parametrize("rank", [0, 1])
def test_ids_outside_the_corpus_are_refused(rank: int) -> None:
    """Whether or not all is held."""
    case = case_by_hand()
    for lookup in (
        Weights.of_line(case.plan, line_of(case, rank, sent(case))),
        Weights.of_line(case.plan, LineWeights(0, np.ones(6, np.float32))),
    ):
        with pytest.raises(ArgumentError, match="Cannot tell the weight of id 7: the corpus has 7 samples"):
            lookup.of(np.array([5, 7]))


def test_an_owner_with_another_plan_is_told() -> None:
    """The error names who, how many came and how many were due."""
    case = case_by_hand()
    told = (
        "Process 0 sent 2 weights for epoch 0, and its shards have 3 selected samples in the part of the line that "
        "rank 1 of 2 reads: the processes have different plans"
    )
    with pytest.raises(PeerError, match=told):
        weights_received(case.plan, 1, 2, case.owners, [bytes(8), b""])
    with pytest.raises(PeerError, match="Process 1 sent 1 weights for epoch 0, and its shards have 0 selected"):
        weights_received(case.plan, 1, 2, case.owners, [bytes(12), bytes(4)])


def test_one_process_keeps_all_by_id() -> None:
    """What is left out of the steps has its weight too, and what is not selected weighs 0."""
    mask = np.arange(23) % 3 > 0
    weights = np.where(mask, np.arange(23) + 0.5, 0).astype(np.float32)
    plan = EpochPlan(Selection.of(mask, np.array([0, 9, 9, 23])), Geometry(1, 2, 4, 8, 1, 5, "blocks", True), 1)
    case = Case(plan, weights, np.array([0, 3]), 1)
    assert plan.lanes.left_out == 3
    lookup = Weights.of_line(plan, line_of(case, 0, sent(case)))
    assert lookup.is_by_id
    assert lookup.of(np.arange(-1, 23)).tolist() == [0, *weights.tolist()]
