"""What an attacker found: failures in the middle of a run lose nothing and are never silently wrong."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_corpora import MakeCorpus, text_members, write_tar
from torch.utils.data import DataLoader

from seta_stream import DynamicRandom, Full, Reading, Rule, SeTa, SetaStream, SetaStreamWarning
from seta_stream.adapters.torch import SetaDataset
from seta_stream.errors import (
    ArgumentError,
    CheckpointError,
    LossError,
    PlanError,
    ShardChangedError,
    StateError,
)
from seta_stream.losses.drafts import LocalPart
from seta_stream.losses.generations import Generations
from seta_stream.losses.histogram import Histogram
from seta_stream.losses.table import LossTable
from seta_stream.store import LocalStore

POLICY = SeTa(num_epochs=8, target=0.5)


def train(stream: SetaStream, epoch: int) -> list[int]:
    stream.set_epoch(epoch)
    ids = [sample["__index__"] for sample in stream]
    stream.record(ids, np.array(ids) * 37 % 101 / 10 + 0.1)
    return ids


def test_a_checkpoint_names_the_losses_of_its_own_epoch(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """After the epoch is committed no checkpoint pairs the old rule with the new losses."""
    stream = SetaStream(make_corpus(2, 60), policy=POLICY, state=str(tmp_path / "s"), batch_size=4)
    train(stream, 0)
    train(stream, 1)
    saved = stream.state_dict(step=0)
    expected = [sample["__index__"] for sample in stream]
    with pytest.raises(ArgumentError, match="counted from 0"):
        stream.set_epoch(-1)
    stream.close()
    with pytest.raises(StateError, match="This stream is closed"):
        stream.state_dict()
    again = SetaStream(make_corpus(2, 60), policy=POLICY, state=str(tmp_path / "s"), batch_size=4)
    again.load_state_dict(saved)
    assert [sample["__index__"] for sample in again] == expected
    again.close()


def test_a_failed_set_epoch_leaves_no_epoch(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """After a policy selects nothing, iterating or saving is refused until an epoch can be set; losses are kept."""

    def policy(_: Histogram, epoch: int) -> Rule:
        keep = 0.0 if epoch == 1 else 1.0
        return Rule([], [keep], unseen_keep=keep)

    stream = SetaStream(make_corpus(1, 20), policy=policy, state=str(tmp_path / "s"))
    train(stream, 0)
    with pytest.raises(PlanError, match="nothing to train on"):
        stream.set_epoch(1)
    with pytest.raises(StateError, match=r"No epoch is set, since set_epoch\(1\) failed"):
        stream.state_dict()
    with pytest.raises(StateError, match="No epoch is set"):
        list(stream)
    assert len(train(stream, 2)) == 20
    stream.close()
    assert [line["epoch"] for line in Generations(str(tmp_path / "s")).history()] == [0, 2]


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_checkpoint_whose_losses_are_damaged_is_refused(make_corpus: MakeCorpus, tmp_path: Path, damage: str) -> None:
    """A sidecar that is gone or broken makes the checkpoint an error, not another selection."""
    shards = make_corpus(2, 60)
    stream = SetaStream(shards, policy=POLICY, state=str(tmp_path / "s"), batch_size=4)
    train(stream, 0)
    stream.set_epoch(1)
    saved = stream.state_dict()
    stream.close()
    sidecar = next((tmp_path / "s").glob("losses/gen-*/000001*"))
    data = bytearray(sidecar.read_bytes())
    data[len(data) // 2] ^= 1
    sidecar.unlink()
    if damage == "flipped":
        sidecar.write_bytes(data)
    again = SetaStream(shards, policy=POLICY, state=str(tmp_path / "s"), batch_size=4)
    with (
        pytest.warns(SetaStreamWarning),
        pytest.raises(CheckpointError, match="losses are no longer whole: 1 shards of generation"),
    ):
        again.load_state_dict(saved)
    with pytest.raises(CheckpointError, match="had 999 selected samples and its losses now select"):
        again.load_state_dict({**saved, "generation": None, "selected": 999})
    with pytest.raises(CheckpointError, match=r"The checkpoint's losses are gone. Generation gen-x"):
        again.load_state_dict({**saved, "generation": "gen-x"})
    with pytest.raises(CheckpointError, match="recorded before the checkpoint are gone"):
        again.load_state_dict({**saved, "generation": None, "pending": "no", "rule": Rule([], [1.0]).to_plain()})
    again.close()


def test_damaged_checkpoint_values_are_refused(make_corpus: MakeCorpus) -> None:
    """Numbers and names of other kinds are an error that says so."""
    stream = SetaStream(make_corpus(1, 20), batch_size=4)
    saved = stream.state_dict()
    wrong: list[dict[str, Any]] = [
        {"step": "2"},
        {"step": 2.0},
        {"consumed": None},
        {"pending": 5},
        {"geometry": {**saved["geometry"], "block": 0}},
        {"geometry": {**saved["geometry"], "order": "zzz"}},
    ]
    for values in wrong:
        with pytest.raises(CheckpointError, match="The checkpoint is damaged"):
            stream.load_state_dict({**saved, **values})
    with pytest.raises(CheckpointError, match="shuffle was True and is False"):
        SetaStream(make_corpus(1, 20), batch_size=4, shuffle=False).load_state_dict(saved)


def test_a_commit_that_fails_can_be_tried_again(
    make_corpus: MakeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk close() raises, the stream stays open, and closing again after space is freed keeps the epoch."""
    stream = SetaStream(make_corpus(1, 20), policy=POLICY, state=str(tmp_path / "s"))
    train(stream, 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalPart, "write", full)
        with pytest.raises(StateError, match="Free space there"):
            stream.close()
    stream.close()
    assert [line["epoch"] for line in Generations(str(tmp_path / "s")).history()] == [0]


def test_a_full_disk_at_the_start_is_told(
    make_corpus: MakeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state folder that cannot be written is an error with the way out, and the lock is given back."""
    shards = make_corpus(1, 20)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "write", full)
        with pytest.raises(StateError, match=r"Cannot write .*corpus.*Free space"):
            SetaStream(shards, state=str(tmp_path / "s"), index=None)
    SetaStream(shards, state=str(tmp_path / "s")).close()


def test_the_last_epoch_is_kept_whatever_the_policy_says_of_the_next(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """A policy that has no rule for the epoch after the last does not cost the last epoch's losses."""

    def policy(_: Histogram, epoch: int) -> Rule:
        if epoch > 1:
            raise ValueError(epoch)
        return Rule([], [1.0])

    with SetaStream(make_corpus(1, 20), policy=policy, state=str(tmp_path / "s")) as stream:
        train(stream, 0)
        train(stream, 1)
    assert [one.epoch for one in Generations(str(tmp_path / "s")).kept()] == [0, 1]
    with (
        pytest.raises(ValueError, match="2"),
        SetaStream(make_corpus(1, 20), policy=policy, state=str(tmp_path / "s")) as stream,
    ):
        stream.set_epoch(2)


def test_a_shard_that_is_written_to_is_never_misread(tmp_path: Path) -> None:
    """Overwriting an open shard in place, size kept, is an error at the next read."""
    shard = write_tar(tmp_path / "a.tar", text_members(0, 4000))
    samples = iter(SetaStream(str(shard), read=Reading(prefetch_bytes=1 << 20)))
    next(samples)
    with shard.open("r+b") as file:
        file.seek(3_000_000)
        file.write(b"garbage" * 1000)
    os.utime(shard, ns=(1, 1))  # so that the test needs no coarse clock to tick
    with pytest.raises(ShardChangedError, match="truncated or changed since it was opened"):
        list(samples)


def test_the_last_reads_are_checked_too(tmp_path: Path) -> None:
    """A shard that is written to after its last look, few reads before the end, is an error at the end."""
    shard = write_tar(tmp_path / "a.tar", [(f"{n}.jpg", bytes(90_000)) for n in range(4)])
    samples = iter(SetaStream(str(shard), shuffle=False))
    next(samples)
    os.utime(shard, ns=(1, 1))
    with pytest.raises(ShardChangedError, match="truncated or changed since it was opened"):
        list(samples)


def test_many_shards_need_few_handles(tmp_path: Path) -> None:
    """A window over 600 shards keeps to a bounded number of open files."""
    shards = [str(write_tar(tmp_path / f"{n:04d}.tar", text_members(2 * n, 2))) for n in range(600)]
    stream = SetaStream(shards)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        assert sorted(sample["__index__"] for sample in stream) == list(range(1200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_wrong_ids_are_refused_at_once_and_cost_nothing(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """update() refuses ids that cannot be before it counts or records; the other steps' losses stay."""
    dataset = SetaDataset(make_corpus(1, 20), batch_size=2, policy=POLICY, state=str(tmp_path / "s"))
    dataset.update(torch.tensor([3, 4]), torch.ones(2))
    for ids in (torch.tensor([0.0, 1.0]), torch.tensor([True, False])):
        with pytest.raises(LossError, match="takes integer ids"):
            dataset.update(ids, torch.ones(2))
    with pytest.raises(LossError, match="takes integer ids and a tensor of losses"):
        dataset.update([1, 2], [0.5, 0.5])  # type: ignore[arg-type]
    with pytest.raises(LossError, match="id 20 is none of the corpus"):
        dataset.update(torch.tensor([0, 20]), torch.ones(2))
    dataset.update(torch.tensor([5, 6], dtype=torch.uint8), torch.ones(2))
    assert dataset.state_dict()["step"] == 2
    assert dataset.stats.recorded == 4
    dataset.close()


def test_a_loader_may_be_iterated_again(make_corpus: MakeCorpus) -> None:
    """A second pass over the same epoch counts from its first step again, with a short last batch too."""
    dataset = SetaDataset(make_corpus(1, 21), batch_size=4, drop_last=False)
    for _ in range(2):
        for batch in DataLoader(dataset, batch_size=4, num_workers=1):
            dataset.update(batch["__index__"], torch.ones(len(batch["__index__"])))
    assert dataset.state_dict()["step"] == 6


def test_updates_belong_to_the_main_process(make_corpus: MakeCorpus) -> None:
    """A forked worker that records would lose the losses, so it is told."""
    dataset = SetaDataset(make_corpus(1, 8), batch_size=4)

    def collate(samples: list[dict[str, Any]]) -> None:
        dataset.update(torch.tensor([s["__index__"] for s in samples]), torch.ones(len(samples)))

    with pytest.raises(ArgumentError, match="A DataLoader worker only reads"):
        list(DataLoader(dataset, batch_size=4, num_workers=1, collate_fn=collate))


def test_a_dataset_that_cannot_be_planned_gives_the_state_back(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """A batch that is too large is an error, and the corrected call may use the state at once."""
    shards = make_corpus(1, 8)
    with pytest.raises(PlanError, match="fewer than one global batch of 100"):
        SetaDataset(shards, batch_size=100, state=str(tmp_path / "s"))
    SetaDataset(shards, batch_size=4, state=str(tmp_path / "s")).close()


def test_setting_the_epoch_of_a_checkpoint_keeps_its_position(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """load_state_dict, then the usual loop with set_epoch(the same epoch): the rest of the epoch, not all of it."""
    shards = make_corpus(2, 60)
    stream = SetaStream(shards, policy=POLICY, state=str(tmp_path / "s"), batch_size=4)
    train(stream, 0)
    stream.set_epoch(1)
    whole = [sample["__index__"] for sample in stream]
    saved = stream.state_dict(step=3)
    stream.session.memory.close()
    again = SetaStream(shards, policy=POLICY, state=str(tmp_path / "s"), batch_size=4)
    again.load_state_dict(saved)
    assert train(again, 1) == whole[12:]
    again.set_epoch(1)
    assert [sample["__index__"] for sample in again] == whole
    again.record([0], [1.0])
    again.close()


def test_progress_counts_epochs_that_recorded_nothing(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Progress does not fall back where an epoch had no losses, and does where an earlier epoch is set."""
    stream = SetaStream(make_corpus(1, 40), policy=Full(), state=str(tmp_path / "s"))
    stream.steps(4)
    train(stream, 0)
    stream.set_epoch(1)
    list(stream)
    stream.set_epoch(2)
    assert stream.progress == 0.5
    stream.set_epoch(1)
    assert stream.progress == 0.25
    stream.close()


def test_old_pending_losses_go(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """Checkpoints of one process keep the losses of the last eight alone."""
    stream = SetaStream(make_corpus(1, 40), policy=POLICY, state=str(tmp_path / "s"))
    for number, sample in enumerate(stream):
        stream.record([sample["__index__"]], [1.0])
        if number < 12:
            stream.state_dict()
    assert len(list((tmp_path / "s" / "pending").iterdir())) == 8
    stream.close()


def test_ids_are_checked_alone() -> None:
    """check_ids passes -1 and the last id, and names the first that is wrong."""
    table = LossTable([4])
    table.check_ids(np.array([-1, 3]))
    with pytest.raises(LossError, match="id -2 is none"):
        table.check_ids(np.array([0, -2]))


def test_random_policies_need_no_losses(make_corpus: MakeCorpus) -> None:
    """No warning where nothing is recorded and nothing need be."""
    stream = SetaStream(make_corpus(1, 40), policy=DynamicRandom(prune_ratio=0.5))
    for epoch in range(3):
        stream.set_epoch(epoch)
        list(stream)
