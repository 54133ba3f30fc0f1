"""Decisions per run are the same whatever the number of processes, for every policy, and keep what each promises."""

from __future__ import annotations

import functools
import operator

import msgpack
import numpy as np
import pytest
from policy_rows import EPOCHS, ROWS, empty_table, losses_at, record_epoch

from seta_stream.losses.histogram import Histogram
from seta_stream.policies.deciding import all_labels, apply, decide, grouping_of, judged_scores
from seta_stream.policies.groups import GroupHistograms, rule_from_plain
from seta_stream.policies.policy import expected_share_of, rule_of
from seta_stream.policies.runs import Runs

SAMPLES = np.array([130, 0, 257, 64, 1, 400, 33, 90, 0, 205, 77, 12])
FIRST_ID = np.concatenate([[0], np.cumsum(SAMPLES)])
TOTAL = int(SAMPLES.sum())
SEED, EPOCH = 11, 4
KINDS = (Runs("sample", 1, 7), Runs("run", 1, 7), Runs("run", 1, 1000))
EVERY = pytest.mark.parametrize("name", ROWS)
KIND = pytest.mark.parametrize("runs", KINDS, ids=lambda runs: f"{runs.unit} {runs.length}")


@functools.cache
def remembered(name, never=0.1):
    """Return what a policy remembers after three epochs that saw all but a share of the samples."""
    table = empty_table(ROWS[name].policy, SAMPLES.tolist())
    ids = np.flatnonzero(np.random.default_rng(3).random(TOTAL) >= never)
    for epoch in range(3):
        table.advance()
        record_epoch(table, ids, losses_at("exponential", TOTAL, epoch), epoch)
    return table.remembered()


def owned(values, shards):
    """Return what a process remembers that owns these shards, where its shards begin, and which samples they are."""
    sizes = np.zeros(len(SAMPLES), np.int64)
    sizes[shards] = SAMPLES[shards]
    inside = np.repeat(sizes > 0, SAMPLES)
    return {name: column[inside] for name, column in values.items()}, np.concatenate([[0], np.cumsum(sizes)]), inside


def histogram_of(policy, values, first_id, runs):
    """Return what one process brings to the sum."""
    labels = all_labels(policy, values, None)
    scores = judged_scores(policy, values, runs, first_id, labels)
    return Histogram.of(scores) if labels is None else GroupHistograms.of(scores, labels)


def sent(policy, histogram):
    """Return the rule as it is after its way to the other processes."""
    rule = policy.rules(histogram, EPOCH) if grouping_of(policy) else rule_of(policy, histogram, EPOCH)
    return rule_from_plain(msgpack.unpackb(msgpack.packb(rule.to_plain())))


@KIND
@EVERY
def test_any_number_of_processes_selects_the_same_runs(name, runs):
    """1, 2 and 8 of them, shards dealt in any way: rules, masks and weights bit for bit."""
    policy, values = ROWS[name].policy, remembered(name)
    decision = decide(policy, values, EPOCH, first_id=FIRST_ID, runs=runs)
    mask, weight = apply(policy, decision.rule, values, FIRST_ID, seed=SEED, epoch=EPOCH, runs=runs)
    for processes in (1, 2, 8):
        random = np.random.default_rng(processes)
        owner = random.integers(0, processes, len(SAMPLES))
        owner[random.permutation(np.flatnonzero(SAMPLES))[:processes]] = np.arange(processes)
        parts = [owned(values, np.flatnonzero(owner == process)) for process in range(processes)]
        histograms = [histogram_of(policy, part, first_id, runs) for part, first_id, _ in parts]
        order = random.permutation(processes)
        rule = sent(policy, functools.reduce(operator.add, [histograms[place] for place in order]))
        assert rule == decision.rule
        together, weights = np.zeros(TOTAL, np.bool_), np.zeros(TOTAL, np.float32)
        for part, first_id, inside in parts:
            own, own_weight = apply(policy, rule, part, first_id, seed=SEED, epoch=EPOCH, runs=runs)
            together[inside] = own
            weights[inside] = own if own_weight is None else own_weight
        assert np.array_equal(together, mask)
        assert np.array_equal(weights, mask if weight is None else weight)


@KIND
@EVERY
def test_the_share_promised_is_kept_in_samples(name, runs):
    """Where a policy knows its share ahead, the histogram of runs keeps it to the sample, in expectation."""
    policy = ROWS[name].policy
    for epoch in (1, EPOCH, EPOCHS - 1):
        share = expected_share_of(policy, epoch)
        if share is None:
            continue
        values = remembered(name, 0.0)
        decision = decide(policy, values, epoch, first_id=FIRST_ID, runs=runs)
        groups = decision.groups
        kept = sum(kept for _, kept in groups.values()) if groups else decision.rule.expected_kept(decision.histogram)
        assert kept == pytest.approx(share * TOTAL, rel=1e-6)


@EVERY
def test_runs_are_whole_but_where_groups_part_them(name):
    """Every sample of a run and of one group has the run's score, mask and rule weight."""
    policy, values, runs = ROWS[name].policy, remembered(name), Runs("run", 1, 7)
    decision = decide(policy, values, EPOCH, first_id=FIRST_ID, runs=runs)
    mask, weight = apply(policy, decision.rule, values, FIRST_ID, seed=SEED, epoch=EPOCH, runs=runs)
    position = np.arange(TOTAL) - np.repeat(FIRST_ID[:-1], SAMPLES)
    run = np.cumsum((position % 7 == 0).astype(np.int64))
    group = (
        np.zeros(TOTAL, np.int64)
        if decision.judgement.labels is None
        else decision.judgement.labels.codes.astype(np.int64)
    )
    _, place, counts = np.unique(run * (group.max() + 1) + group, return_inverse=True, return_counts=True)
    assert set(np.bincount(place, mask) / counts) <= {0.0, 1.0}
    if weight is not None and not ROWS[name].own_weights:
        means = np.bincount(place, weight) / counts
        assert means[place] == pytest.approx(weight)


@pytest.mark.parametrize("never", [0.0, 1.0])
@EVERY
def test_nothing_seen_is_nothing_decided(name, never):
    """Runs without a loss are unseen ones; a process without samples selects none."""
    policy, runs = ROWS[name].policy, Runs("run", 1, 7)
    values = empty_table(policy, SAMPLES.tolist()).remembered() if never else remembered(name, 0.0)
    decision = decide(policy, values, EPOCH, first_id=FIRST_ID, runs=runs)
    assert decision.histogram.unseen == (TOTAL if never else 0)
    nothing, first_id, _ = owned(values, [])
    mask, _ = apply(policy, decision.rule, nothing, first_id, seed=SEED, epoch=EPOCH, runs=runs)
    assert mask.shape == (0,)
