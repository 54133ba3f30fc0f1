"""The selection is the same whatever the number of processes, and for corpora beyond 2^24, 2^32 and 2^53 samples."""

from __future__ import annotations

import functools
import operator

import msgpack
import numpy as np
import pytest
from policy_rows import ROWS, empty_table, losses_at, record_epoch, run

from seta_stream.corpus.ids import ShardTable
from seta_stream.draws import WordSource
from seta_stream.errors import ArgumentError, LossError
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.table import LossTable
from seta_stream.plan.epoch import EpochPlan, Geometry, Selection
from seta_stream.policies import Rule, select
from seta_stream.policies.deciding import apply, decide, grouping_of, labels_of, scores_of
from seta_stream.policies.groups import GroupHistograms, rule_from_plain
from seta_stream.policies.policy import rule_of

SAMPLES = np.array([130, 0, 257, 64, 1, 400, 33, 90, 0, 205, 77, 12])
FIRST_ID = np.concatenate([[0], np.cumsum(SAMPLES)])
SEED, EPOCH = 11, 5
UNGROUPED = [name for name, row in ROWS.items() if grouping_of(row.policy) is None]


def deal(processes):
    """Return the shards of each process, dealt at random, at least one with samples each: arrays of shard numbers."""
    random = np.random.default_rng(processes)
    owner = random.integers(0, processes, len(SAMPLES))
    owner[random.permutation(np.flatnonzero(SAMPLES))[:processes]] = np.arange(processes)
    return [np.flatnonzero(owner == process) for process in range(processes)]


def owned(values, shards):
    """Return what a process remembers that owns these shards, and where its shards begin: the others are empty."""
    sizes = np.zeros(len(SAMPLES), np.int64)
    sizes[shards] = SAMPLES[shards]
    inside = np.repeat(sizes > 0, SAMPLES)
    return {name: column[inside] for name, column in values.items()}, np.concatenate([[0], np.cumsum(sizes)]), inside


def histogram_of(policy, values):
    """Return what one process brings to the sum: the histogram of its scores, or one per group that it knows."""
    scores, grouping = scores_of(policy, values), grouping_of(policy)
    return Histogram.of(scores) if grouping is None else GroupHistograms.of(scores, labels_of(grouping, values, None))


def rule_from(policy, histogram):
    """Return the rule as it is after its way to the other processes."""
    rule = policy.rules(histogram, EPOCH) if grouping_of(policy) else rule_of(policy, histogram, EPOCH)
    return rule_from_plain(msgpack.unpackb(msgpack.packb(rule.to_plain())))


@pytest.fixture(scope="module")
def remembered():
    """Return what each policy remembers after five epochs, and its selection for the next in one process."""

    @functools.cache
    def of(name):
        policy = ROWS[name].policy
        *_, last = run(policy, SAMPLES.tolist(), "exponential", epochs=EPOCH + 1, seed=SEED, never=0.1)
        return last.values, last.mask, last.weight

    return of


@pytest.mark.parametrize("name", ROWS)
def test_any_number_of_processes_selects_the_same(name, remembered):
    """1, 2, 3 and 8 of them, shards dealt in any way, histograms summed in any order: masks and weights bit for bit."""
    policy = ROWS[name].policy
    values, mask, weight = remembered(name)
    assert 0 < mask.sum() <= len(mask)
    for processes in (1, 2, 3, 8):
        parts = [owned(values, shards) for shards in deal(processes)]
        histograms = [histogram_of(policy, part) for part, _, _ in parts]
        order = np.random.default_rng(processes).permutation(processes)
        rule, same = (
            rule_from(policy, functools.reduce(operator.add, [histograms[place] for place in places]))
            for places in (order, order[::-1])
        )
        decision = decide(policy, values, EPOCH)
        assert rule == same == decision.rule
        summed = functools.reduce(operator.add, histograms)
        if decision.groups is not None:
            assert {group: summed[group].total for group in summed} == {
                group: total for group, (total, _) in decision.groups.items()
            }
        together, weights = np.zeros(len(mask), np.bool_), np.zeros(len(mask), np.float32)
        for part, first_id, inside in parts:
            own, own_weight = apply(policy, rule, part, first_id, seed=SEED, epoch=EPOCH)
            together[inside] = own
            weights[inside] = own if own_weight is None else own_weight
        assert np.array_equal(together, mask)
        assert np.array_equal(weights, mask if weight is None else weight)


@pytest.mark.parametrize("name", UNGROUPED)
def test_each_shard_alone_gives_its_part(name, remembered):
    """`rule.apply` needs the shard's number and its own scores, and no ids at all."""
    policy = ROWS[name].policy
    values, mask, _ = remembered(name)
    rule = decide(policy, values, EPOCH).rule
    for shard in range(len(SAMPLES)):
        part = slice(FIRST_ID[shard], FIRST_ID[shard + 1])
        own = scores_of(policy, {column: array[part] for column, array in values.items()})
        assert np.array_equal(rule.apply(own, seed=SEED, epoch=EPOCH, shard=shard)[0], mask[part])


@pytest.mark.parametrize("name", ROWS)
def test_a_process_without_samples_changes_nothing(name, remembered):
    """More processes than shards: it adds an empty histogram, and selects none."""
    policy = ROWS[name].policy
    values, _, _ = remembered(name)
    nothing, first_id, _ = owned(values, [])
    rule = decide(policy, values, EPOCH).rule
    total = histogram_of(policy, nothing) + histogram_of(policy, values)
    assert rule_from(policy, total) == rule
    mask, _ = apply(policy, rule, nothing, first_id, seed=SEED, epoch=EPOCH)
    assert mask.shape == (0,)


@pytest.mark.parametrize("name", ["SeTa with a target", "UCB", "Kakurenbo"])
def test_who_recorded_the_losses_does_not_matter(name):
    """The same losses recorded in other batches, by another number of processes: the same table, the same selection."""
    policy = ROWS[name].policy
    tables = [empty_table(policy, SAMPLES.tolist()) for _ in range(3)]
    for epoch in range(4):
        losses = losses_at("exponential", int(SAMPLES.sum()), epoch)
        for processes, table in enumerate(tables, start=1):
            table.advance()
            shuffled = np.random.default_rng((processes, epoch)).permutation(table.total)
            for ids in np.array_split(shuffled, processes):
                record_epoch(table, ids, losses, epoch)
    rules = [decide(policy, table.remembered(), EPOCH).rule for table in tables]
    assert rules[0] == rules[1] == rules[2]


NARROW = 1 << 24
"""From here on float32 counts in steps of 2."""


def test_ids_beyond_2_to_the_24_are_exact():
    """Neighbours keep their own losses and are selected, planned and read as themselves; float32 would merge them."""
    table = LossTable([NARROW - 2, 6, 70])
    ids = np.arange(NARROW - 5, NARROW + 70, 2)
    assert len(np.unique(ids.astype(np.float32))) < len(ids)
    losses = (1 + np.arange(len(ids)) / 256).astype(np.float32)
    for dtype, part in ((np.int64, slice(0, 12)), (np.uint32, slice(12, 24)), (np.int32, slice(24, None))):
        table.record(ids[part].astype(dtype), losses[part])
    with pytest.raises(LossError, match="ids are float32, and only integers count samples exactly"):
        table.record(ids.astype(np.float32), losses)
    assert np.array_equal(np.flatnonzero(~np.isnan(table.values)), ids)
    assert np.array_equal(table.values[ids], losses)
    histogram = table.histogram()
    assert (histogram.seen, histogram.total) == (len(ids), table.total)

    rule = Rule([1 + 8 / 256], [1.0, 0.0], unseen_keep=0.0)
    mask, _ = select(rule, table.values, table.first_id, seed=0, epoch=1)
    geometry = Geometry(1, 2, 4, 8, 1, 0, "blocks", drop_last=True)
    plan = EpochPlan(Selection.of(mask, table.first_id), geometry, 1)
    assert sorted(np.concatenate([plan.block(lane, 0) for lane in range(2)]).tolist()) == ids[:8].tolist()


def test_torch_ids_beyond_2_to_the_24_are_exact():
    """As int64 beside bfloat16 losses, which count to 256 only."""
    torch = pytest.importorskip("torch")
    table = LossTable([NARROW + 8])
    ids = torch.tensor([NARROW + 1, NARROW + 3, NARROW - 1])
    table.record(ids, torch.tensor([0.5, 1.5, 2.5], dtype=torch.bfloat16))
    assert np.flatnonzero(~np.isnan(table.values)).tolist() == sorted(ids.tolist())
    assert table.values[ids.numpy()].tolist() == [0.5, 1.5, 2.5]


def shards_of(samples):
    """Return the table of a corpus with so many samples per shard."""
    count = len(samples)
    numbers = np.array(samples, np.int64)
    return ShardTable(("u",) * count, numbers, ("",) * count, numbers, numbers, (bytes(16),) * count, numbers > 0)


@pytest.mark.parametrize("start", [1 << 24, 1 << 31, 1 << 32, 1 << 53])
def test_ids_are_located_whatever_their_size(start):
    """The last of one shard, the first of the next, and an empty one between; float64 ends at 2^53."""
    table = shards_of([start - 3, 5, 0, 2, 1 << 40])
    ids = np.array([start - 4, start - 3, start + 1, start + 2, start + 3, start + 4, start + 4 + (1 << 39)])
    shard, position = table.locate(ids)
    assert shard.tolist() == [0, 1, 1, 3, 3, 4, 4]
    assert position.tolist() == [start - 4, 0, 4, 0, 1, 0, 1 << 39]
    assert np.array_equal(table.first_id[shard] + position, ids)
    assert table.first_id.dtype == position.dtype == np.int64
    again = ShardTable.from_bytes(table.to_bytes())
    assert np.array_equal(again.locate(ids)[1], position)
    with pytest.raises(ArgumentError, match=f"Cannot locate id {table.total}: the corpus has {table.total} samples"):
        table.locate(np.array([table.total]))


@pytest.fixture
def sparse_table(tmp_path):
    """Make a table of more than 2^32 samples whose arrays are holes in a file: only what is recorded takes memory."""

    def make(*last_shards):
        table = LossTable([])
        table.first_id = np.cumsum([0, (1 << 32) - 3, *last_shards])
        table.total = int(table.first_id[-1])
        for name, dtype in (("values", np.float32), ("all_ages", np.uint8)):
            path = tmp_path / name
            setattr(table, name, np.memmap(path, dtype, "w+", shape=(table.total,)))
            path.unlink()
        return table

    return make


def test_losses_beyond_2_to_the_32_are_recorded_and_selected(sparse_table):
    """Each in its place, and none where its id would lie after a wrap to 32 bits; a shard's mask needs no ids."""
    table = sparse_table(5, 40)
    ids = np.array([(1 << 32) - 1, 1 << 32, (1 << 32) + 1, (1 << 32) + 2, (1 << 32) + 41])
    table.record(ids, [1.0, 2.0, 3.0, 4.0, 5.0])
    table.record(ids[:2].astype(np.uint64), [1.5, 2.5])
    assert np.array_equal(table.values[ids], [1.5, 2.5, 3.0, 4.0, 5.0])
    assert not table.values[: 1 << 10].any()
    assert table.losses(1).tolist() == [0, 0, 1.5, 2.5, 3.0]
    assert table.losses(2)[0] == 4.0
    for narrow in (np.int32, np.uint32):
        with pytest.raises(LossError, match=f"{narrow.__name__}, which cannot count the corpus's {table.total}"):
            table.record(np.array([7], narrow), [1.0])
    with pytest.raises(LossError, match=f"id {table.total} is none of the corpus"):
        table.record(np.array([table.total]), [1.0])
    rule = Rule([2.0], [0.0, 1.0])
    masks = [rule.apply(table.losses(shard), seed=0, epoch=0, shard=shard)[0] for shard in (1, 2)]
    assert (np.flatnonzero(masks[0]) + table.first_id[1]).tolist() == ids[1:3].tolist()
    assert (np.flatnonzero(masks[1]) + table.first_id[2]).tolist() == ids[3:].tolist()


def test_a_plan_beyond_2_to_the_32_holds_the_selected_ids():
    """The bits of 2^32 samples before them are zero pages; ids are those of the mask, once each, at any batch size."""
    first_id = np.cumsum([0, (1 << 32) - 5, 11, 300, 0, 200])
    bits = np.zeros(-(-int(first_id[-1]) // 8), np.uint8)
    begin = int(first_id[1]) // 8 * 8
    chosen = np.random.default_rng(0).random(int(first_id[-1]) - begin) < 0.5
    chosen[: int(first_id[1]) - begin] = False
    bits[begin // 8 :] = np.packbits(chosen)
    ids = np.flatnonzero(chosen) + begin
    counts = np.histogram(ids, first_id)[0]
    selection = Selection(bits, counts, first_id)
    assert np.array_equal(selection.positions(1) + first_id[1], ids[: counts[1]])
    geometry = Geometry(2, 2, 3, 6, 1, 4, "blocks", drop_last=True)
    plan = EpochPlan(selection, geometry, 3)
    planned = [
        plan.block(lane, number)
        for lane in range(4)
        for number in range(-(-int(plan.lanes.lengths[lane]) // geometry.block))
    ]
    held = np.concatenate(planned)
    assert held.dtype == np.int64
    assert len(np.unique(held)) == len(held) == plan.lanes.planned
    assert np.isin(held, ids).all()
    assert held.max() > 1 << 32


@pytest.mark.parametrize("shard", [1 << 24, 1 << 32, (1 << 32) + 1, 1 << 53])
def test_shards_of_any_number_have_words_of_their_own(shard):
    """No two of them share words, as they would if numbers were cut to 32 bits or went through a float."""
    source = WordSource(SEED, "keep", EPOCH)
    others = [shard - 1, shard + 1, shard % (1 << 32), shard % (1 << 24)]
    words = source.words(shard, 64)
    assert all(not np.array_equal(words, source.words(other, 64)) for other in others if other != shard)
    assert np.array_equal(words, WordSource(SEED, "keep", EPOCH).words(shard, 64))
