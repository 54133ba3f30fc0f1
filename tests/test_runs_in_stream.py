"""Runs through a whole stream: what is read, what a checkpoint and the history keep, what changes and what does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from small_corpora import MakeCorpus, text_members, write_tar

from seta_stream import RS2, DynamicRandom, Kakurenbo, PerGroup, Reading, SeTa, SetaStream, SetaStreamWarning
from seta_stream.cli import main
from seta_stream.errors import CheckpointError
from seta_stream.options import DEFAULT_RUN_BYTES
from seta_stream.policies.runs import EACH, Runs

EPOCHS = 4
SHARDS, PER_SHARD, LENGTH = 3, 200, 6000
MEAN = 512 + 6144 + 1024
"""Bytes of a sample: two headers, a text of 6,000 bytes and a class, padded."""


def selected(stream):
    """Return the ids that the set epoch selects, ascending."""
    return np.sort(stream.reader.plan().stretch(0, stream.stats.selected))


def runs_in(ids, length):
    """Return (whole, broken): the runs of which all samples are among some ids, and those of which only some are."""
    mask = np.zeros(SHARDS * PER_SHARD)
    mask[ids] = 1
    place = np.concatenate([np.arange(PER_SHARD) // length + 1000 * shard for shard in range(SHARDS)])
    shares = [mask[place == run].mean() for run in np.unique(place)]
    return sum(share == 1 for share in shares), sum(0 < share < 1 for share in shares)


def loss_of(ids, epoch):
    """A loss that differs by sample and epoch, with hard and easy stretches of the corpus."""
    ids = np.asarray(ids)
    spread = np.random.default_rng(epoch).exponential(size=10_000)
    return 2 + np.sin(ids / 7) + 0.5 * spread[ids]


def train_epoch(stream, epoch, seen, *, start=True, stop=None):
    if start:
        stream.set_epoch(epoch)
    for number, batch in enumerate(stream.batches(), 1):
        ids = batch["__index__"]
        stream.record(ids, loss_of(ids, epoch))
        seen.append((epoch, ids.tolist(), batch["__weight__"].tolist()))
        if number == stop:
            return


@pytest.fixture
def shards(make_corpus):
    return make_corpus(SHARDS, PER_SHARD, length=LENGTH)


def test_requests_fall_as_the_runs_grow(shards):
    """Half of the samples in runs of 8 and 32: whole runs, as many samples and bytes, and far fewer requests."""
    requests, counts = [], []
    for length in (1, 8, 32):
        read = Reading(run_bytes=length * MEAN if length > 1 else 0)
        stream = SetaStream(shards, policy=DynamicRandom(0.5), read=read, shuffle=False, drop_last=False)
        ids = [sample["__index__"] for sample in stream]
        assert stream.session.memory.runs.length == length
        assert stream.stats.bytes_fetched <= 1.053 * stream.stats.bytes_needed
        assert runs_in(np.array(ids), length)[1] == 0
        requests.append(stream.stats.requests)
        counts.append(len(ids))
    assert requests[1] < 0.3 * requests[0]
    assert requests[2] < 0.5 * requests[1]
    total = SHARDS * PER_SHARD
    assert all(
        abs(count - total / 2) <= 5 * np.sqrt(total * length / 4)
        for count, length in zip(counts, (1, 8, 32), strict=True)
    )


def test_turns_cover_the_corpus_once(shards):
    """RS2 in runs: four epochs yield every sample exactly once."""
    stream = SetaStream(shards, policy=RS2(0.75), read=Reading(run_bytes=10 * MEAN), drop_last=False)
    seen = []
    for epoch in range(4):
        stream.set_epoch(epoch)
        seen += [sample["__index__"] for sample in stream]
    assert sorted(seen) == list(range(SHARDS * PER_SHARD))


def test_unit_run_keeps_whole_runs_and_the_target(shards, tmp_path):
    """SeTa decides runs by their mean loss: none is broken, and the run saves its target in samples."""
    read, state = Reading(run_bytes=8 * MEAN), tmp_path / "s"
    counts = []
    options = {"policy": SeTa(num_epochs=EPOCHS, target=0.5), "unit": "run", "read": read, "state": str(state)}
    with SetaStream(shards, batch_size=10, **options) as stream:
        for epoch in range(EPOCHS):
            train_epoch(stream, epoch, [])
            counts.append(stream.stats.selected)
            assert runs_in(selected(stream), 8)[1] == 0
            if epoch:
                means = stream.session.memory.histogram
                assert means().total == SHARDS * PER_SHARD
    assert counts[0] == SHARDS * PER_SHARD
    assert sum(counts) / (EPOCHS * SHARDS * PER_SHARD) == pytest.approx(0.5, abs=0.06)
    lines = [json.loads(line) for line in (state / "history.jsonl").read_text().splitlines()]
    assert [line["facts"]["runs"] for line in lines] == [{"unit": "run", "run_bytes": 8 * MEAN, "length": 8}] * EPOCHS
    assert {line["judged_by"] for line in lines} == {"score"}
    assert lines[0]["expected_share"] == pytest.approx(1 - 0.5 * EPOCHS / (EPOCHS - 1), rel=1e-6)
    shown = CliRunner().invoke(main, ["inspect", str(state)])
    assert shown.exit_code == 0, shown.output


def test_half_seen_runs_are_judged_by_what_was_seen(shards):
    """Where only some samples of a run have losses, the others go with them."""
    with SetaStream(shards, policy=Kakurenbo(8, 0.3), unit="run", read=Reading(run_bytes=10 * MEAN)) as stream:
        ids = np.arange(0, SHARDS * PER_SHARD, 4)
        stream.record(ids, 1.0 + ids // 10)
        stream.set_epoch(1)
        kept = selected(stream)
    assert np.array_equal(kept, np.arange(180, 600))


def test_unit_run_alone_has_the_default_bytes(shards):
    """run_bytes=0 is none for samples, and the default for runs."""
    assert SetaStream(shards).session.memory.runs == EACH
    by_run = SetaStream(shards, unit="run").session.memory.runs
    assert by_run == Runs("run", DEFAULT_RUN_BYTES, round(DEFAULT_RUN_BYTES / MEAN))
    assert SetaStream(shards, unit="run", read=Reading(run_bytes=100)).session.memory.runs == Runs("run", 100, 1)


WAYS = {
    "draws": (SeTa(EPOCHS, target=0.5), "sample", 8),
    "runs": (SeTa(EPOCHS, target=0.5), "run", 8),
    "runs per shard": (PerGroup(SeTa(EPOCHS, target=0.3), "shard", floor=0.2), "run", 8),
    "random runs": (DynamicRandom(0.5), "run", 16),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_resumed_run_selects_as_one_that_was_not_stopped(name, shards, tmp_path):
    """A checkpoint in mid-epoch and the generations give the same batches and weights to the end."""
    policy, unit, length = WAYS[name]
    options = {"policy": policy, "batch_size": 8, "seed": 3, "unit": unit, "read": Reading(run_bytes=length * MEAN)}
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
    assert saved["runs"] == {"unit": unit, "run_bytes": length * MEAN, "length": length}
    first.session.close(is_whole=False)
    with SetaStream(shards, state=state, **options) as second:
        second.load_state_dict(saved)
        train_epoch(second, 1, parts, start=False)
        train_epoch(second, 2, parts)
    with SetaStream(shards, state=state, **options) as third:  # from the generation alone
        train_epoch(third, 3, parts)
    assert parts == whole


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"unit": "sample"}, "unit was run and is sample"),
        (
            {"read": Reading(run_bytes=4 * MEAN)},
            rf"run_bytes was {8 * MEAN} and is {4 * MEAN} \(give the same in read=",
        ),
        ({"read": Reading()}, f"run_bytes was {8 * MEAN} and is {DEFAULT_RUN_BYTES}"),
    ],
)
def test_a_checkpoint_of_other_runs_is_refused(other, text, shards, tmp_path):
    """And says what differs."""
    options = {"policy": DynamicRandom(0.5), "unit": "run", "read": Reading(run_bytes=8 * MEAN)}
    saved = SetaStream(shards, **options).state_dict()
    with pytest.raises(CheckpointError, match=text):
        SetaStream(shards, **options | other).load_state_dict(saved)


def test_an_old_checkpoint_decides_each_sample(shards):
    """One that was written before there were runs fits a stream without them, and no other."""
    saved = SetaStream(shards, policy=DynamicRandom(0.5)).state_dict()
    del saved["runs"]
    stream = SetaStream(shards, policy=DynamicRandom(0.5))
    stream.load_state_dict(saved)
    assert stream.session.memory.runs == EACH
    with pytest.raises(CheckpointError, match="unit was sample and is run"):
        SetaStream(shards, policy=DynamicRandom(0.5), unit="run").load_state_dict(saved)
    with pytest.raises(CheckpointError, match="its runs are"):
        SetaStream(shards, policy=DynamicRandom(0.5)).load_state_dict(saved | {"runs": {"length": 0}})


def grown(tmp_path, shards):
    """Return the corpus with a shard of much larger samples: its mean sample is another."""
    return [*shards, str(write_tar(tmp_path / "more.tar", text_members(9000, 100, length=60_000)))]


def test_a_grown_corpus_keeps_its_runs(shards, tmp_path):
    """Samples per run are fixed at the first start: through the generations, and through a checkpoint of them."""
    options = {"policy": SeTa(EPOCHS, target=0.5), "unit": "run", "read": Reading(run_bytes=8 * MEAN), "batch_size": 8}
    options["state"] = str(tmp_path / "s")
    with SetaStream(shards, **options) as stream:
        train_epoch(stream, 0, [])
    more = grown(tmp_path, shards)
    with SetaStream(more, **options) as stream:
        assert stream.session.memory.runs.length < 8  # of a run that starts here
        with pytest.warns(SetaStreamWarning, match="1 of 4 shards"):
            train_epoch(stream, 1, [])
        train_epoch(stream, 2, [], stop=2)
        assert stream.session.memory.runs.length == 8
        ids, saved = selected(stream), stream.state_dict()
        assert runs_in(ids[ids < SHARDS * PER_SHARD], 8)[1] == 0
    with SetaStream(more, **options) as stream:
        stream.load_state_dict(saved)
        assert stream.session.memory.runs.length == 8
        assert np.array_equal(selected(stream), ids)
    with SetaStream(more, **options | {"state": str(tmp_path / "new")}) as stream:
        stream.set_epoch(0)
        assert stream.session.memory.runs.length < 8


def test_other_settings_hold_from_the_next_epoch_on(shards, tmp_path):
    """A run that goes on with another unit decides anew: the rule that its last epoch left is of other scores."""
    policy, state = SeTa(EPOCHS, target=0.5), str(tmp_path / "s")
    with SetaStream(shards, policy=policy, state=state, batch_size=8) as stream:
        train_epoch(stream, 0, [])
        losses = stream.session.memory.losses.values.copy()
    with SetaStream(shards, policy=policy, state=state, unit="run", read=Reading(run_bytes=8 * MEAN)) as stream:
        stream.set_epoch(1)
        first = stream.session.memory.base.rule
        assert stream.session.state_dict(0)["rule"] != first.to_plain()
        assert runs_in(selected(stream), 8)[1] == 0
        assert np.array_equal(stream.session.memory.losses.values, losses, equal_nan=True)
    with SetaStream(shards, policy=policy, state=state, read=Reading(run_bytes=8 * MEAN)) as stream:
        stream.set_epoch(1)  # judged as before: only the draws are shared
        assert stream.session.state_dict(0)["rule"] == first.to_plain()


def test_the_steps_of_runs_vary_more(make_corpus: MakeCorpus) -> None:
    """A draw for 16 samples at once makes the size of an epoch vary four times as much, and the margin says so."""
    shards = make_corpus(4, 256)
    sample = SetaStream(shards, policy=DynamicRandom(0.5), batch_size=2)
    mean_bytes = sample.reader.corpus.table.mean_bytes
    runs = SetaStream(shards, policy=DynamicRandom(0.5), batch_size=2, read=Reading(run_bytes=round(16 * mean_bytes)))
    one, many = sample.steps(10), runs.steps(10)
    assert one == many
    assert abs(many.margin - 4 * one.margin) <= 4
