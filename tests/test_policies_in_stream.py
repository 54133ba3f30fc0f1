"""Policies that remember more than the loss, through a whole stream: recorded, committed, resumed."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from click.testing import CliRunner
from small_corpora import write_tar

from seta_stream import (
    BLS,
    RS2,
    UCB,
    DynamicRandom,
    EpsilonGreedy,
    Full,
    InfoBatch,
    Kakurenbo,
    PerGroup,
    RePB,
    Rule,
    SeTa,
    SetaStream,
    SetaStreamWarning,
)
from seta_stream.cli import main
from seta_stream.errors import CheckpointError, LossError
from seta_stream.policies.groups import Grouping, GroupRules

EPOCHS = 4


def loss_of(ids, epoch):
    """A loss that differs by sample and epoch, and that any process computes alike."""
    spread = np.random.default_rng(epoch).exponential(size=10_000)
    return spread[np.asarray(ids)] + 0.01 * np.asarray(ids)


def train_epoch(stream, epoch, seen, *, start=True, stop=None, **recorded):
    """Iterate an epoch by batches; leave after `stop` of them."""
    if start:
        stream.set_epoch(epoch)
    for number, batch in enumerate(stream.batches(), 1):
        ids = batch["__index__"]
        stream.record(ids, loss_of(ids, epoch), **{name: of(ids) for name, of in recorded.items()})
        seen.append((epoch, ids.tolist(), batch["__weight__"].tolist()))
        if number == stop:
            return


REMEMBERING = {
    "egreedy": EpsilonGreedy(0.5),
    "ucb": UCB(0.5),
    "repb": RePB(),
    "bls": InfoBatch(EPOCHS, smooth=BLS()),
    "per shard": PerGroup(SeTa(EPOCHS, target=0.3), "shard", floor=0.2),
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_resumed_run_selects_as_one_that_was_not_stopped(name, make_corpus, tmp_path):
    """Columns survive a checkpoint in mid-epoch and the generations: the same batches and weights to the end."""
    shards = make_corpus(4, 40)
    options = {"policy": REMEMBERING[name], "batch_size": 8, "seed": 3}
    whole = []
    with SetaStream(shards, state=str(tmp_path / "whole"), **options) as stream:
        for epoch in range(EPOCHS):
            train_epoch(stream, epoch, whole)
    parts = []
    state = str(tmp_path / "parts")
    first = SetaStream(shards, state=state, **options)
    train_epoch(first, 0, parts)
    train_epoch(first, 1, parts, stop=3)
    saved = json.loads(json.dumps(first.state_dict()))
    first.session.close(is_whole=False)
    with SetaStream(shards, state=state, **options) as second:
        second.load_state_dict(saved)
        train_epoch(second, 1, parts, start=False)
        for epoch in range(2, EPOCHS):
            train_epoch(second, epoch, parts)
    assert parts == whole


def test_flags_are_recorded_and_move_samples_back(make_corpus, tmp_path):
    """Kakurenbo hides the lowest 30 %, but none that was flagged."""
    shards = make_corpus(2, 50)
    with SetaStream(shards, policy=Kakurenbo(8, 0.3), state=str(tmp_path / "s"), batch_size=10) as stream:
        train_epoch(stream, 0, [], flags=lambda ids: ids % 2)
        losses, flags = stream.session.memory.losses.values.copy(), np.arange(100) % 2
        stream.set_epoch(1)
        hidden = np.setdiff1d(np.arange(100), stream.reader.plan().stretch(0, stream.stats.selected))
    lowest = np.argsort(losses, kind="stable")[:30]
    assert sorted(hidden) == sorted(lowest[flags[lowest] == 0])
    assert 5 < len(hidden) < 30


def test_a_policy_that_asks_for_no_flags_refuses_them(make_corpus):
    """So that a misspelt argument is no silent loss."""
    stream = SetaStream(make_corpus(1, 10))
    with pytest.raises(LossError, match="the policy asks for nothing beside the losses"):
        stream.record([1], [1.0], flags=[1])


def harder_half(histogram, epoch):
    if not histogram.seen:
        return Rule([], [1.0])
    ranks = np.cumsum(histogram.weights())
    return Rule([histogram.values()[np.searchsorted(ranks, histogram.seen // 2, side="right")]], [0.0, 1.0])


@pytest.mark.parametrize("by", ["folder", "fields", lambda url, key: key.split("/")[0], "recorded"])
def test_every_class_keeps_its_harder_half(by, tmp_path):
    """Cats have low losses and dogs high ones: without groups no cat would be kept. inspect shows both."""
    members = [(f"cat/{i:03d}.txt", b"x") for i in range(40)] + [(f"dog/{i:03d}.jpg", b"x") for i in range(40)]
    path = write_tar(tmp_path / "pets.tar", members)
    policy, state = PerGroup(harder_half, by, floor=0.1), str(tmp_path / "s")
    with SetaStream(str(path), policy=policy, state=state, batch_size=4) as stream:
        recorded = {"group": lambda ids: ids // 40} if by == "recorded" else {}
        for epoch in (0, 1):
            stream.set_epoch(epoch)
            for batch in stream.batches():
                ids = batch["__index__"]
                losses = np.where(ids < 40, 1.0, 5.0) + ids % 40 / 100
                stream.record(ids, losses, **{name: of(ids) for name, of in recorded.items()})
        stream.set_epoch(2)
        kept = np.sort(stream.reader.plan().stretch(0, stream.stats.selected))
    expected = np.concatenate([np.arange(20, 40), np.arange(60, 80)])
    assert np.array_equal(kept, expected)
    shown = CliRunner().invoke(main, ["inspect", state])
    assert shown.exit_code == 0, shown.output
    assert "Decided within" in shown.output
    parts = json.loads(CliRunner().invoke(main, ["inspect", state, "--json"]).output)["parts"]
    assert [(part["samples"], part["next_keep"]) for part in parts] == [(40, 0.5), (40, 0.5)]


def test_one_mean_per_batch_is_enough_with_smoothing(make_corpus):
    """After some epochs of mixed batches, samples that make batches worse are told from the others."""
    stream = SetaStream(make_corpus(2, 100), policy=InfoBatch(100, smooth=BLS(0.9)), batch_size=4)
    hard = np.arange(200) % 10 == 0
    for epoch in range(30):
        stream.set_epoch(epoch)
        for batch in stream.batches():
            stream.record(batch["__index__"], hard[batch["__index__"]].mean())
    scores = stream.session.memory.losses.columns["smoothed"]
    assert scores[hard].mean() > scores[~hard].mean() + 2 * scores.std()


def test_a_text_names_a_policy(make_corpus):
    """As on the command line; what it describes is what the value would."""
    stream = SetaStream(make_corpus(1, 20), policy="seta(num_epochs=9, target=0.5)")
    assert stream.policy == SeTa(9, target=0.5)
    assert SetaStream(make_corpus(1, 20), policy={"name": "DynamicRandom", "prune_ratio": 0.5}).policy == DynamicRandom(
        0.5
    )


def test_a_cycle_of_slices_reads_every_sample_once(make_corpus):
    """RS2 at 3/4 pruned: four epochs, each sample once."""
    stream = SetaStream(make_corpus(4, 50), policy=RS2(0.75), batch_size=1)
    seen = []
    for epoch in range(4):
        stream.set_epoch(epoch)
        seen += [sample["__index__"] for sample in stream]
    assert sorted(seen) == list(range(200))


@pytest.mark.parametrize(("policy", "judged_by"), [(SeTa(4), "loss"), (InfoBatch(4, smooth=BLS()), "score")])
def test_the_history_tells_by_what_samples_were_judged(policy, judged_by, make_corpus, tmp_path):
    """By losses inspect shows what is kept of each group of them; by scores it does not claim to."""
    state = str(tmp_path / "s")
    with SetaStream(make_corpus(2, 50), policy=policy, state=state, batch_size=10) as stream:
        for epoch in range(2):
            train_epoch(stream, epoch, [])
    told = json.loads(CliRunner().invoke(main, ["inspect", state, "--json"]).output)
    line = json.loads((tmp_path / "s" / "history.jsonl").read_text().splitlines()[-1])
    assert line["judged_by"] == judged_by
    assert all((group["next_keep"] is None) == (judged_by == "score") for group in told["groups"])
    assert told["next_share"] == line["expected_share"]


def test_a_changed_policy_makes_its_own_rule(make_corpus, tmp_path):
    """What the policy before it decided for the coming epoch is not applied to this one's scores."""
    shards, state = make_corpus(2, 50), str(tmp_path / "s")
    with SetaStream(shards, policy=InfoBatch(30), state=state, batch_size=10) as stream:
        train_epoch(stream, 0, [])
    for policy, kept in ((Full(), 100), (UCB(0.4), 60), (PerGroup(UCB(0.4), "shard"), 60)):
        stream = SetaStream(shards, policy=policy, state=state, batch_size=10)
        stream.set_epoch(1)
        assert stream.stats.selected == kept
        stream.session.close(is_whole=False)


def test_weights_by_columns_that_were_not_kept_are_told(make_corpus, tmp_path):
    """RePB after another policy: visits start anew."""
    shards, state = make_corpus(2, 50), str(tmp_path / "s")
    with SetaStream(shards, policy=InfoBatch(30), state=state, batch_size=10) as stream:
        train_epoch(stream, 0, [])
    stream = SetaStream(shards, policy=RePB(), state=state, batch_size=10)
    with pytest.warns(SetaStreamWarning, match="written without above, visits, by which RePB weights the samples"):
        stream.set_epoch(1)
    stream.session.close(is_whole=False)


@pytest.mark.parametrize("policy", [RePB(), InfoBatch(10)], ids=["repb", "infobatch"])
def test_progress_never_goes_back(policy, make_corpus, tmp_path):
    """Planned by what the epoch was chosen from: what is recorded in it does not move it, nor does a resume."""
    shards = make_corpus(4, 50)
    stream = SetaStream(shards, policy=policy, state=str(tmp_path / "s"), batch_size=10)
    stream.steps(10)
    told = []
    for epoch in range(3):
        stream.set_epoch(epoch)
        for batch in stream.batches():
            told.append(stream.progress)
            stream.record(batch["__index__"], loss_of(batch["__index__"], epoch) ** 3)
    before, saved = stream.progress, json.loads(json.dumps(stream.state_dict()))
    stream.session.close(is_whole=False)
    again = SetaStream(shards, policy=policy, state=str(tmp_path / "s"), batch_size=10)
    again.steps(10)
    again.load_state_dict(saved)
    assert again.progress == before
    assert min(np.diff(told)) > -0.03
    again.session.close(is_whole=False)


def test_counting_steps_does_not_change_the_length_of_a_run(make_corpus):
    """Where the policy tells it; and the number survives pickle as a plain int."""
    stream = SetaStream(make_corpus(2, 50), policy=SeTa(10, target=0.5), batch_size=10)
    stream.set_epoch(0)
    next(iter(stream.batches()))
    before = stream.progress
    assert copy.deepcopy(stream.steps(1)) == 10
    assert pickle.loads(pickle.dumps(stream.steps(10))) == stream.steps(10)
    assert stream.progress == before


def test_a_refused_extra_changes_nothing(make_corpus):
    """Neither the average nor the loss of a sample, so that the call can be made again."""
    stream = SetaStream(make_corpus(1, 20), policy=PerGroup(UCB(), by="recorded"))
    table = stream.session.memory.losses
    stream.record([0, 1], [1.0, 1.0], group=[1, 1])
    for wrong in ([70_000, 1], ["a", "b"]):
        with pytest.raises(LossError, match=r"Cannot record group="):
            stream.record([0, 1], [3.0, 3.0], group=wrong)
    assert table.columns["ema"][:2].tolist() == table.values[:2].tolist() == [1.0, 1.0]


def test_a_policy_that_groups_by_what_is_recorded_needs_no_column(make_corpus):
    """It comes with the grouping."""

    class Own:
        group = Grouping(by="recorded")

        def rule(self, histogram, epoch):
            return Rule([], [1.0])

        def rules(self, histograms, epoch):
            return GroupRules({name: Rule([], [0.0 if name == "1" else 1.0]) for name in histograms})

    stream = SetaStream(make_corpus(1, 20), policy=Own(), batch_size=5)
    train_epoch(stream, 0, [], group=lambda ids: ids % 2)
    stream.set_epoch(1)
    assert stream.stats.selected == 10


def test_an_older_checkpoint_without_new_settings_fits(make_corpus, tmp_path):
    """A setting that a later release added does not stop a run."""
    shards = make_corpus(1, 40)
    stream = SetaStream(shards, policy=SeTa(10, target=0.5), state=str(tmp_path / "s"), batch_size=10)
    train_epoch(stream, 0, [])
    saved = stream.state_dict()
    del saved["policy"]["group_scale"], saved["policy"]["smooth"]
    stream.load_state_dict(saved)
    saved["policy"]["target"] = 0.4
    with pytest.raises(CheckpointError, match="give the policy that the run began with"):
        stream.load_state_dict(saved)


def test_inspect_shows_the_groups_that_the_policy_made(make_corpus, tmp_path):
    """With a target they are on the logarithmic scale: a few large losses do not take most of them."""
    state, policy = str(tmp_path / "s"), SeTa(9, target=0.5)
    losses = np.concatenate([np.linspace(c, 1.1 * c, 32) for c in (0.01, 0.1, 1)] + [[300, 600, 600, 900]])
    with SetaStream(make_corpus(1, 100), policy=policy, state=state, batch_size=10) as stream:
        stream.set_epoch(0)
        stream.record(np.arange(100), losses)
        table = stream.session.memory.losses
    shown = json.loads(CliRunner().invoke(main, ["inspect", state, "--json"]).output)["groups"]
    assert [group["samples"] for group in shown] == policy.groups(table.histogram()).counts.tolist()
    assert max(group["share"] for group in shown) < 0.5
