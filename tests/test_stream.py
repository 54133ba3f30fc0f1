"""SetaStream as a user sees it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_corpora import MakeCorpus, text_members, write_tar

from seta_stream import DynamicRandom, Full, Reading, Rule, SeTa, SetaStream, SetaStreamWarning
from seta_stream.collective import OneProcess
from seta_stream.corpus.building import Task
from seta_stream.corpus.places import Place
from seta_stream.errors import (
    ArgumentError,
    CheckpointError,
    CorpusError,
    DecodeError,
    PlanError,
    ReadError,
    ShardChangedError,
    StateError,
    StateLockedError,
)
from seta_stream.read import sequence
from seta_stream.read.reader import _Job
from seta_stream.store import ObjectInfo


def ids_of(samples: Any) -> list[int]:
    return [sample["__index__"] for sample in samples]


def train(stream: SetaStream, epoch: int, loss: Callable[[int], float] = float) -> list[int]:
    """Run one epoch with a loss that is a function of the id; return the ids in order."""
    stream.set_epoch(epoch)
    seen = []
    for sample in stream:
        seen.append(sample["__index__"])
        stream.record([sample["__index__"]], [loss(sample["__index__"])])
    return seen


def test_full_reader_gives_every_sample_whole(make_corpus: MakeCorpus) -> None:
    """Without a policy or state every sample comes once, in corpus order if asked, with its key, shard and bytes."""
    shards = make_corpus(4, [3, 0, 5, 1])
    stream = SetaStream(shards, shuffle=False, drop_last=False, batch_size=4)
    samples = list(stream)
    assert len(stream) == len(samples) == 9
    for number, sample in enumerate(samples):
        text = str(number).ljust(20).encode()
        url = shards[[0, 0, 0, 2, 2, 2, 2, 2, 3][number]]
        assert sample == {
            "__key__": f"{number:08d}", "__url__": url, "__index__": number, "__weight__": 1.0,
            "txt": text, "cls": str(number % 10).encode(),
        }  # fmt: skip
    assert sorted(ids_of(SetaStream(shards))) == list(range(9))


def test_same_seed_same_order(make_corpus: MakeCorpus) -> None:
    """Two streams of one seed yield the same bytes in the same order; another seed or epoch another order."""
    shards = make_corpus(4, 25)
    one, two = SetaStream(shards, seed=3), SetaStream(shards, seed=3)
    assert list(one) == list(two) == list(one)
    assert ids_of(one) != ids_of(SetaStream(shards, seed=4))
    first = ids_of(one)
    one.set_epoch(1)
    assert ids_of(one) != first
    one.set_epoch(0)
    assert ids_of(one) == first


def test_length_is_exact_before_reading(make_corpus: MakeCorpus) -> None:
    """len() counts what will be yielded: the selection, less what fills no step, which stats name."""
    stream = SetaStream(make_corpus(4, 25), policy=DynamicRandom(prune_ratio=0.5), batch_size=8)
    for epoch in range(4):
        stream.set_epoch(epoch)
        expected = len(stream)
        assert expected == len(list(stream))
        assert expected % 8 == 0
        assert stream.stats.selected == expected + stream.stats.left_out
        assert stream.stats.steps == expected // 8


def test_seta_prunes_and_reads_only_what_it_selects(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """With a target of a half, epoch 0 sees all, later ones fewer; the run saves half; bytes fall with the samples."""
    shards = make_corpus(4, 250)
    epochs = 6
    counts, fetched = [], []
    with SetaStream(shards, policy=SeTa(num_epochs=epochs, target=0.5), state=str(tmp_path / "s")) as stream:
        for epoch in range(epochs):
            counts.append(len(train(stream, epoch, lambda i: float(np.sin(i) + 2))))
            fetched.append(stream.stats.bytes_fetched)
            assert stream.stats.bytes_fetched <= 1.053 * stream.stats.bytes_needed
    assert counts[0] == 1000
    assert abs(sum(counts) / 6000 - 0.5) < 0.05
    assert fetched[1] < 0.6 * fetched[0]


def test_restart_changes_nothing(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """A run that is stopped after each epoch selects the same samples in the same order as one that goes on."""
    shards = make_corpus(3, 40)
    policy = SeTa(num_epochs=5, target=0.5)
    whole = SetaStream(shards, policy=policy, state=str(tmp_path / "a"), seed=1)
    unbroken = [train(whole, epoch, lambda i: (i * 37 % 101) / 10) for epoch in range(5)]
    whole.close()
    broken = []
    for epoch in range(5):
        with SetaStream(shards, policy=policy, state=str(tmp_path / "b"), seed=1) as stream:
            broken.append(train(stream, epoch, lambda i: (i * 37 % 101) / 10))
    assert broken == unbroken


def test_checkpoint_in_the_middle(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Resuming at any step gives the very same rest of the epoch and the same next epoch; the state is small JSON."""
    shards = make_corpus(3, 40)
    state = tmp_path / "state"

    def stream_of(folder: Path) -> SetaStream:
        policy = SeTa(num_epochs=5, target=0.5)
        return SetaStream(shards, policy=policy, state=str(folder), seed=1, batch_size=4)

    reference = stream_of(tmp_path / "reference")
    expected = [train(reference, epoch, lambda i: (i * 37 % 101) / 10) for epoch in range(4)]
    reference.close()
    for stop in (0, 1, 3, len(expected[1]) // 4):
        shutil.rmtree(state, ignore_errors=True)
        stream = stream_of(state)
        train(stream, 0, lambda i: (i * 37 % 101) / 10)
        stream.set_epoch(1)
        seen = []
        for sample in stream:
            if len(seen) == 4 * stop:
                break
            seen.append(sample["__index__"])
            stream.record([sample["__index__"]], [(sample["__index__"] * 37 % 101) / 10])
        saved = json.loads(json.dumps(stream.state_dict(step=stop)))
        assert len(json.dumps(saved)) < 4000
        stream.session.memory.close()  # as a killed process would leave it
        again = stream_of(state)
        again.load_state_dict(saved)
        assert len(again) == len(expected[1]) - 4 * stop
        for sample in again:
            seen.append(sample["__index__"])
            again.record([sample["__index__"]], [(sample["__index__"] * 37 % 101) / 10])
        assert seen == expected[1]
        assert train(again, 2, lambda i: (i * 37 % 101) / 10) == expected[2]
        assert train(again, 3, lambda i: (i * 37 % 101) / 10) == expected[3]
        again.close()


def test_position_counts_what_was_received(make_corpus: MakeCorpus) -> None:
    """The position moves to the next step with a step's last sample, not before."""
    stream = SetaStream(make_corpus(1, 10), batch_size=3)
    positions = [stream.position for _ in stream]
    assert positions == [0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert stream.state_dict()["step"] == 3


def test_checkpoint_of_another_run_is_refused(make_corpus: MakeCorpus) -> None:
    """Corpus, policy, batch and seed are compared, and every difference is named."""
    shards = make_corpus(2, 20)
    saved = SetaStream(shards, batch_size=4).state_dict()
    with pytest.raises(
        CheckpointError, match=r"policy was .*Full.* and is .*DynamicRandom.*global batch was 4 and is 5"
    ):
        SetaStream(shards, batch_size=5, policy=DynamicRandom(prune_ratio=0.1)).load_state_dict(saved)
    with pytest.raises(CheckpointError, match="corpus fingerprint was"):
        SetaStream(shards[:1], batch_size=4).load_state_dict(saved)
    with pytest.raises(CheckpointError, match="seed was 0 and is 1"):
        SetaStream(shards, batch_size=4, seed=1).load_state_dict(saved)
    stream = SetaStream(shards, batch_size=4)
    with pytest.raises(CheckpointError, match="no seta_stream checkpoint"):
        stream.load_state_dict({})
    with pytest.raises(CheckpointError, match="has version 99"):
        stream.load_state_dict({**saved, "version": 99})
    with pytest.raises(CheckpointError, match="damaged"):
        stream.load_state_dict({**saved, "rule": {}})
    with pytest.raises(CheckpointError, match="stands at step 99 of an epoch of 10 steps"):
        stream.load_state_dict({**saved, "step": 99})


def test_checkpoint_needs_the_losses(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """A selection that depends on losses in memory cannot be saved; one from a state cannot be loaded without it."""
    shards = make_corpus(2, 20)
    policy = SeTa(num_epochs=9, prune_ratio=0.1)
    stream = SetaStream(shards, policy=policy)
    train(stream, 0)
    stream.set_epoch(1)
    with pytest.raises(StateError, match="losses that live in memory only"):
        stream.state_dict()
    kept = SetaStream(shards, policy=policy, state=str(tmp_path / "s"))
    train(kept, 0)
    kept.set_epoch(1)
    saved = kept.state_dict()
    with pytest.raises(CheckpointError, match="and this stream has no state"):
        SetaStream(shards, policy=policy).load_state_dict(saved)
    kept.close()


def test_epoch_set_again_starts_from_its_own_ancestor(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Going back to an earlier epoch repeats its selection, whatever was recorded since."""
    shards = make_corpus(2, 50)
    stream = SetaStream(shards, policy=SeTa(num_epochs=9, prune_ratio=0.0), state=str(tmp_path / "s"))
    plans = [train(stream, epoch, lambda i: i % 7 + 0.5) for epoch in range(3)]
    assert train(stream, 1, lambda _: 1.0) == plans[1]
    stream.set_epoch(2)
    assert ids_of(stream) != plans[2]  # the losses of the second epoch 1 are others
    stream.record([0], [1.0])
    stream.close()


def test_losses_that_cannot_be(make_corpus: MakeCorpus) -> None:
    """NaN losses are refused, counted and warned about once an epoch; the old value stays."""
    stream = SetaStream(make_corpus(1, 10))
    stream.set_epoch(0)
    stream.record(np.arange(10), np.ones(10))
    stream.record([3], [float("nan")])
    assert stream.stats.bad_losses == 1
    with pytest.warns(SetaStreamWarning, match="1 losses of epoch 0 were NaN or infinite"):
        stream.set_epoch(1)


def test_forgetting_to_record_is_told(make_corpus: MakeCorpus) -> None:
    """A policy that needs losses and gets none says so at the end of the epoch."""
    stream = SetaStream(make_corpus(1, 10), policy=SeTa(num_epochs=5))
    list(stream)
    with pytest.warns(SetaStreamWarning, match="No losses were recorded in epoch 0"):
        stream.set_epoch(1)


def test_weights_reach_the_samples(make_corpus: MakeCorpus) -> None:
    """A rule's loss weights come with each sample and from weights(ids); the id −1 has none."""

    def policy(histogram: object, epoch: int) -> Rule:
        return Rule([], [0.5], weight=2.0, unseen_keep=0.5, unseen_weight=2.0)

    stream = SetaStream(make_corpus(2, 50), policy=policy)
    samples = list(stream)
    assert {sample["__weight__"] for sample in samples} == {2.0}
    ids = ids_of(samples)
    assert 20 < len(ids) < 80
    assert stream.weights([*ids[:3], -1]).tolist() == [2, 2, 2, 0]
    assert SetaStream(make_corpus(1, 4, name="x")).weights(np.array([0, -1])).tolist() == [1, 0]


def test_batches_are_columns(make_corpus: MakeCorpus) -> None:
    """batches(n) gives ids int64, weights float32, numbers as arrays and the rest as lists."""
    stream = SetaStream(make_corpus(2, 5), shuffle=False, decode="basic", drop_last=False, batch_size=4)
    batches = list(stream.batches())
    assert [len(batch["__index__"]) for batch in batches] == [4, 4, 2]
    assert batches[0]["__index__"].dtype == np.int64
    assert batches[0]["__weight__"].dtype == np.float32
    assert batches[0]["cls"].tolist() == [0, 1, 2, 3]
    assert batches[0]["txt"][1] == "1".ljust(20)
    assert [len(b["__index__"]) for b in stream.batches(10)] == [10]
    with pytest.raises(ArgumentError, match="needs a number of samples"):
        next(SetaStream(make_corpus(1, 3, name="y")).batches())


def test_fields_read_less(make_corpus: MakeCorpus) -> None:
    """fields= gives those alone, and their bytes alone are read."""
    shards = make_corpus(2, 30, length=3000)
    whole, part = SetaStream(shards, shuffle=False), SetaStream(shards, shuffle=False, fields=("CLS",))
    expected = [{k: v for k, v in sample.items() if k != "txt"} for sample in whole]
    assert list(part) == expected
    assert part.stats.bytes_fetched < 0.01 * whole.stats.bytes_fetched
    assert next(iter(SetaStream(shards, fields=("no",)))).keys() == {"__key__", "__url__", "__index__", "__weight__"}
    with pytest.raises(ArgumentError, match="fields='cls' is one text"):
        SetaStream(shards, fields="cls")


def test_large_members_are_read_alike(tmp_path: Path) -> None:
    """Photos-sized samples, mixed with small ones and with other fields, come byte for byte."""
    rng = np.random.default_rng(0)
    expected, shards = {}, []
    for shard in range(3):
        members = []
        for number in range(8):
            key = f"{shard}-{number}"
            expected[key] = {"jpg": rng.bytes(90_000 if shard else 50), "cls": b"3"}
            if number % 3 == 0:
                expected[key]["json"] = b"{}"
            members += [(f"{key}.{field}", data) for field, data in expected[key].items()]
        shards.append(str(write_tar(tmp_path / f"{shard}.tar", members)))
    for options in ({}, {"shuffle": False}, {"policy": DynamicRandom(prune_ratio=0.5)}, {"fields": ("jpg", "json")}):
        seen = set()
        for sample in SetaStream(shards, **options):  # type: ignore[arg-type]
            wanted = {f: d for f, d in expected[sample["__key__"]].items() if f in options.get("fields", (f,))}  # type: ignore[operator]
            assert {k: v for k, v in sample.items() if not k.startswith("__")} == wanted
            seen.add(sample["__key__"])
        assert options.get("policy") or seen == set(expected)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_decoding_in_threads_keeps_the_order(make_corpus: MakeCorpus, threads: int) -> None:
    """Any number of threads gives the same values in the same order."""
    shards = make_corpus(2, 700)
    stream = SetaStream(shards, decode="basic", read=Reading(decode_threads=threads))
    raw = SetaStream(shards)
    assert [(s["__index__"], s["txt"], s["cls"]) for s in stream] == [
        (s["__index__"], s["txt"].decode(), int(s["cls"])) for s in raw
    ]
    assert stream.stats.decoded == 1400


def test_any_callable_decodes(make_corpus: MakeCorpus) -> None:
    """A callable gets (field, bytes)."""
    stream = SetaStream(make_corpus(1, 3), decode=lambda field, data: (field, len(data)), shuffle=False)
    assert next(iter(stream))["txt"] == ("txt", 20)


def test_compressed_shards_are_read_in_sequence(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """gz shards give the same samples, shuffled by shard, and stats say that no bytes were saved."""
    plain = make_corpus(3, 30)
    packed = []
    for path in plain:
        packed.append(path + ".gz")
        Path(packed[-1]).write_bytes(gzip.compress(Path(path).read_bytes()))

    def contents(stream: SetaStream) -> list[tuple[int, bytes]]:
        return [(sample["__index__"], sample["txt"]) for sample in stream]

    stream = SetaStream(packed)
    assert sorted(contents(stream)) == sorted(contents(SetaStream(plain)))
    assert stream.stats.is_sequential
    assert contents(SetaStream(packed, shuffle=False)) == contents(SetaStream(plain, shuffle=False))
    half = SetaStream(packed, policy=DynamicRandom(prune_ratio=0.5), lanes=(1, 2))
    assert dict(contents(half)).items() <= dict(contents(stream)).items()
    in_all = sum(Path(path).stat().st_size for path in packed)
    assert (stream.stats.bytes_fetched, stream.stats.requests) == (2 * in_all, 6)  # it was read twice
    whole = SetaStream(packed, policy=DynamicRandom(prune_ratio=0.5), shuffle=False)
    assert len(contents(whole)) < 60
    assert 0.5 * in_all < whole.stats.bytes_fetched <= in_all
    cut = Path(packed[1]).read_bytes()
    broken = SetaStream(packed, shuffle=False)
    status = os.stat(packed[1])
    Path(packed[1]).write_bytes(cut[: len(cut) // 2] + bytes(len(cut) - len(cut) // 2))
    os.utime(packed[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ReadError, match=r"Cannot (decompress|read)"):
        list(broken)


@pytest.mark.parametrize("fields", [None, ("cls",)])
def test_compressed_shards_are_held_open_no_longer_than_wanted(
    make_corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch, fields: tuple[str, ...] | None
) -> None:
    """Of a shard whose last samples are left out no stream stays open: it would hold what was asked ahead."""
    packed = []
    for path in make_corpus(20, 30):
        packed.append(path + ".gz")
        Path(packed[-1]).write_bytes(gzip.compress(Path(path).read_bytes()))
    opened: list[Any] = []
    under = sequence.open_decompressed
    monkeypatch.setattr(sequence, "open_decompressed", lambda *where: opened.append(under(*where)) or opened[-1])
    stream = SetaStream(packed, policy=DynamicRandom(prune_ratio=0.9), lanes=(1, 1), fields=fields)
    samples = iter(stream)
    for _ in range(len(stream)):
        next(samples)
    assert len(opened) > 10
    assert sum(not one._stream.closed for one in opened) == 0
    samples.close()


def test_large_samples_wait_in_small_numbers(make_corpus: MakeCorpus) -> None:
    """Decoding runs a few pieces ahead; where each is large, no further than its threads."""
    reader = SetaStream(make_corpus(1, 2), decode=lambda _field, data: data).reader
    made = []

    def jobs(size: int) -> Iterator[_Job]:
        for number in range(20):
            made.append(number)
            yield _Job([{"__key__": "a", "bin": bytes(size)}], reader.decode, 0, 0)

    for size, ahead in ((100, 4), (8 << 20, 2)):
        made.clear()
        samples = reader._make_in_threads(jobs(size), 1)
        next(samples)
        assert len(made) == ahead
        samples.close()


def test_options_stand_in_no_text(make_corpus: MakeCorpus) -> None:
    """A traceback that shows local values shows no credential."""
    stream = SetaStream(make_corpus(1, 2), storage_options={"secret": "hidden-value"})
    place = Place("s3://bucket/a", {"secret": "hidden-value"}, None)
    info = ObjectInfo(1, "etag:x")
    task = Task(0, "s3://bucket/a", info, "/x", {"secret": "hidden-value"}, must_write=False)
    assert "hidden-value" not in f"{stream.reader!r} {place!r} {task!r} {stream.reader.corpus!r}"


def bad_decode(field: str, data: bytes) -> int:
    if field != "txt":
        return 0
    if int(data) % 10 == 3:
        raise ValueError("not a good sample")
    return int(data)


def test_undecodable_samples_raise_or_are_stood_in_for(make_corpus: MakeCorpus) -> None:
    """Errors name field, key and shard; skipping puts a neighbour in the place, weight 0, id −1, the same on resume."""
    shards = make_corpus(2, 50)
    with pytest.raises(DecodeError, match=r"Cannot decode field 'txt' \(20 bytes\) of sample '0000...3'.*on_error"):
        list(SetaStream(shards, decode=bad_decode))

    def stream() -> SetaStream:
        return SetaStream(shards, decode=bad_decode, on_error="skip", batch_size=4, read=Reading(decode_threads=2))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetaStreamWarning)
        one = stream()
        samples = list(one)
        assert len(samples) == 100
        assert one.stats.skipped == 10
        stand_ins = [s for s in samples if s["__index__"] == -1]
        assert len(stand_ins) == 10
        assert all(s["__weight__"] == 0 and s["txt"] % 10 != 3 for s in stand_ins)
        for step in (1, 7, 20):
            later = stream()
            later.load_state_dict(one.state_dict(step=step))
            assert list(later) == samples[4 * step :]
        one.record([s["__index__"] for s in samples], np.ones(100))
        assert one.stats.recorded == 90
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        list(stream())
    texts = [str(one.message) for one in told]
    assert len(texts) == 5
    assert all(text.startswith("Skipped a sample. Cannot decode field 'txt'") for text in texts)
    assert texts[-1].endswith("Further ones are counted in stats.skipped.")


def test_too_many_undecodable_samples_end_the_run(make_corpus: MakeCorpus) -> None:
    """A broken decoder is not skipped over for ever."""

    def broken(field: str, data: bytes) -> int:
        raise ValueError(field)

    def mostly(field: str, data: bytes) -> int:
        if field == "txt" and int(data) % 3:
            raise ValueError(field)
        return 1

    stream = SetaStream(make_corpus(1, 300), decode=broken, on_error="skip")
    mostly_broken = SetaStream(make_corpus(1, 300, name="z"), decode=mostly, on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetaStreamWarning)
        with pytest.raises(DecodeError, match="No sample near step 0 can be decoded"):
            list(stream)
        with pytest.raises(DecodeError, match="Gave up after 65 samples"):
            list(mostly_broken)


def test_a_shard_that_changes_is_never_misread(make_corpus: MakeCorpus) -> None:
    """A shard replaced between opening and reading is refused; opened anew it is indexed again."""
    shards = make_corpus(2, 20)
    stream = SetaStream(shards, shuffle=False)
    write_tar(Path(shards[1]), text_members(500, 30))
    with pytest.raises(ShardChangedError, match="changed since it was indexed"):
        list(stream)
    assert len(list(SetaStream(shards))) == 50


def test_a_truncated_shard_is_told(make_corpus: MakeCorpus) -> None:
    """A shard cut short after it was indexed gives an error with the offset, not wrong data."""
    shards = make_corpus(1, 2000)
    stream = SetaStream(shards, shuffle=False)
    iterator = iter(stream)
    next(iterator)
    os.truncate(shards[0], 3_000_000)
    with pytest.raises(ShardChangedError, match="is truncated or changed since it was opened"):
        list(iterator)


def test_missing_shards_are_told(tmp_path: Path) -> None:
    """A wrong path is named."""
    with pytest.raises(ReadError, match="there is no such file"):
        SetaStream(str(tmp_path / "no-{0..3}.tar"))


def test_two_runs_on_one_state_are_refused(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """The second writer of a state folder is refused by name; after the first closes it may go on."""
    shards, state = make_corpus(1, 10), str(tmp_path / "s")
    first = SetaStream(shards, state=state)
    with pytest.raises(StateLockedError, match=str(tmp_path / "s")):
        SetaStream(shards, state=state)
    first.close()
    SetaStream(shards, state=state).close()
    with pytest.raises(StateError, match="This stream is closed"):
        list(first)


def test_an_exception_commits_nothing(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Leaving the with block by an exception keeps the epoch's losses aside, and no generation claims them."""
    state = tmp_path / "s"
    shards = make_corpus(1, 10)

    def fail() -> None:
        with SetaStream(shards, policy=SeTa(num_epochs=5), state=str(state)) as stream:
            stream.set_epoch(0)
            stream.record([1], [2.0])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(state.glob("losses/gen-*"))
    assert len(list((state / "pending").iterdir())) == 1


def test_steps_and_progress(make_corpus: MakeCorpus) -> None:
    """With a target the run's steps are known ahead, and progress runs from 0 to 1 by samples."""
    epochs = 10
    stream = SetaStream(make_corpus(4, 250), policy=SeTa(num_epochs=epochs, target=0.5), batch_size=10)
    planned = stream.steps(epochs)
    assert planned.is_exact
    assert abs(planned - 500) <= epochs
    assert 0 < planned.margin < 60
    taken, last = 0, -1.0
    for epoch in range(epochs):
        stream.set_epoch(epoch)
        for batch in stream.batches():
            assert last <= stream.progress <= 1
            last = stream.progress
            stream.record(batch["__index__"], batch["__index__"] % 13 + 1.0)
            taken += 1
    assert abs(taken - planned) <= planned.margin + epochs
    assert last > 0.97
    full = SetaStream(make_corpus(1, 25, name="f"), batch_size=10)
    assert (full.steps(3), full.steps(3).is_exact, full.steps(3).margin) == (6, True, 0)
    estimate = SetaStream(make_corpus(1, 1000, name="e"), policy=SeTa(num_epochs=5)).steps(5)
    assert not estimate.is_exact
    assert 1000 < estimate < 5000
    with pytest.raises(ArgumentError, match="call steps"):
        _ = SetaStream(make_corpus(1, 5, name="g")).progress


def test_options_that_cannot_be(make_corpus: MakeCorpus) -> None:
    """Each wrong option is refused with what would fit."""
    shards = make_corpus(1, 10)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"on_error": "ignore"}, ArgumentError, "on_error='ignore' is not possible: choose one of 'raise', 'skip'"),
        ({"losses": "old"}, ArgumentError, "choose one of 'exact', 'latest'"),
        ({"cache": "s3://b/c"}, ArgumentError, "is no folder of this machine"),
        ({"world": 2}, ArgumentError, "rank=None is outside the world of 2: give this process's number, 0 … 1"),
        ({"world": 0}, ArgumentError, "world=0 is no number of processes"),
        ({"rank": 1}, ArgumentError, "rank=1 is outside the world of 1"),
        ({"world": 2, "rank": 0, "policy": SeTa(num_epochs=4)}, ArgumentError, "world=2 without a collective: losses"),
        ({"world": 2, "rank": 0, "state": "runs"}, ArgumentError, "world=2 without a collective: .* no state="),
        ({"world": 2, "rank": 1, "drop_last": False}, ArgumentError, "drop_last=False gives the last step fewer"),
        ({"world": 2, "collective": OneProcess()}, ArgumentError, "world=2 contradict the collective, .* 0 of 1"),
        ({"batch_size": 0}, ArgumentError, "batch_size=0 is no number of samples"),
        ({"batch_size": True}, ArgumentError, "batch_size=True is no number of samples"),
        ({"seed": 2**63}, ArgumentError, "is no integer of 64 bits"),
        ({"lanes": (1,)}, ArgumentError, "both 1 or more"),
        ({"lanes": (0, 1)}, ArgumentError, "both 1 or more"),
        ({"lanes": (3, 1), "batch_size": 4}, ArgumentError, r"choose rows from \[1, 2, 4\]"),
        ({"lanes": (2, 1), "batch_size": 4, "drop_last": False}, ArgumentError, "needs one row"),
        ({"decode": "jpeg"}, ArgumentError, "'jpeg' is no decoder"),
        ({"decode": "torchrgb"}, ArgumentError, "use decode='rgb'"),
        ({"batch_size": 11}, PlanError, "fewer than one global batch of 11"),
    ]
    for options, error, text in cases:
        with pytest.raises(error, match=text):
            len(SetaStream(shards, **options))
    with pytest.raises(ArgumentError, match="counted from 0"):
        SetaStream(shards).set_epoch(-1)
    with pytest.raises(ArgumentError, match="max_waste is a share"):
        Reading(max_waste=2)
    with pytest.raises(ArgumentError, match="prefetch_bytes is a number of bytes"):
        Reading(prefetch_bytes=0)
    with pytest.raises(ArgumentError, match="in_flight is a number"):
        Reading(in_flight=0)
    with pytest.raises(ArgumentError, match="not negative"):
        Reading(decode_threads=-1)


def test_rows_give_the_steps_of_many_ranks(make_corpus: MakeCorpus) -> None:
    """lanes=(R, W) in one process yields the whole of each step: the plan of R ranks can be repeated on one."""
    shards = make_corpus(3, 40)
    stream = SetaStream(shards, lanes=(4, 2), batch_size=8)
    assert len(stream) == len(set(ids_of(stream))) == 120


def test_memory_urls(make_corpus: MakeCorpus) -> None:
    """Shards and state behind fsspec work by the same code; a half epoch fetches about half."""
    import fsspec

    fs = fsspec.filesystem("memory")
    urls = []
    for path in make_corpus(2, 50, length=3000):
        urls.append(f"memory://corpus/{Path(path).name}")
        fs.pipe_file(urls[-1], Path(path).read_bytes())
    with SetaStream(urls, policy=SeTa(num_epochs=5, target=0.5), state="memory://run") as stream:
        assert sorted(train(stream, 0, lambda i: i + 1.0)) == list(range(100))
        whole = stream.stats.bytes_fetched
        train(stream, 1)
        assert stream.stats.bytes_fetched < 0.6 * whole
        assert stream.stats.bytes_fetched <= 1.053 * stream.stats.bytes_needed
    assert isinstance(stream.policy, SeTa)
    assert Full() == Full()


def test_fields_of_the_streams_own_are_refused(tmp_path: Path) -> None:
    """A member whose field is one that the stream sets is an error, not a silent overwriting."""
    shard = str(write_tar(tmp_path / "a.tar", [("k.__index__", b"1"), ("k.txt", b"2")]))
    with pytest.raises(CorpusError, match="has a field named '__index__', which the stream itself sets"):
        list(SetaStream(shard))


def test_unshuffled_half_epochs_keep_to_the_waste_budget(make_corpus: MakeCorpus) -> None:
    """Fetched bytes stay within 1.053 × needed, whatever the order; max_waste=1 reads whole stretches."""
    shards = make_corpus(3, 400, length=1500)
    for shuffle in (False, True):
        stream = SetaStream(shards, policy=DynamicRandom(prune_ratio=0.5), shuffle=shuffle)
        list(stream)
        assert stream.stats.bytes_needed <= stream.stats.bytes_fetched <= 1.053 * stream.stats.bytes_needed
    whole = SetaStream(shards, policy=DynamicRandom(prune_ratio=0.5), shuffle=False, read=Reading(max_waste=1))
    list(whole)
    assert whole.stats.requests < 30


def test_leaving_an_iteration_waits_for_no_decoder(make_corpus: MakeCorpus) -> None:
    """An abandoned iteration may be collected in any thread, while that one starts another: it must not wait there."""
    shards = make_corpus(1, 600)
    going, go_on = threading.Event(), threading.Event()

    def decode(field: str, data: bytes) -> bytes:
        if int(data) >= 300:  # of the second piece
            going.set()
            assert go_on.wait(60)
        return data

    stream = SetaStream(shards, shuffle=False, decode=decode, read=Reading(decode_threads=1))
    iterator = iter(stream)
    assert next(iterator)["__index__"] == 0
    assert going.wait(60)
    iterator.close()
    is_open = [path for path in Path("/proc/self/fd").iterdir() if str(path.resolve()) == shards[0]]
    assert is_open, "the decoder may still read"
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("seta-decode"):
            thread.join(60)
    assert not [path for path in Path("/proc/self/fd").iterdir() if str(path.resolve()) == shards[0]]
