"""SetaDataset under DataLoader: any workers, any start method, losses back, resume."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_corpora import MakeCorpus
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from seta_stream import DynamicRandom, Rule, SeTa
from seta_stream.adapters.torch import SetaDataset
from seta_stream.errors import ArgumentError, CheckpointError, LossError, UnsupportedError

BATCH = 8

pytestmark = [
    # This machine has two cores, and more workers than cores are the point here.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    # torchdata 0.11 calls what torch 2.13 deprecates.
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),
]


@pytest.fixture
def shards(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(5, 41)


def decode(field: str, data: bytes) -> Any:
    return int(data)


def loader_of(dataset: SetaDataset, workers: int, method: str | None = None, **options: Any) -> DataLoader[Any]:
    context = method if workers else None
    return DataLoader(dataset, batch_size=BATCH, num_workers=workers, multiprocessing_context=context, **options)


def loss_of(ids: torch.Tensor) -> torch.Tensor:
    return (ids * 37 % 101).float() / 10 + 0.1


def epoch_ids(dataset: SetaDataset, loader: DataLoader[Any], epoch: int) -> list[list[int]]:
    dataset.set_epoch(epoch)
    seen = []
    for batch in loader:
        dataset.update(batch["__index__"], loss_of(batch["__index__"]))
        assert batch["txt"].tolist() == batch["__index__"].tolist()
        seen.append(batch["__index__"].tolist())
    return seen


def run(
    shards: list[str], state: Path, workers: int, method: str | None, epochs: int = 4, **options: Any
) -> list[list[list[int]]]:
    policy = SeTa(num_epochs=4, target=0.4)
    with SetaDataset(shards, batch_size=BATCH, policy=policy, state=str(state), decode=decode, seed=2) as dataset:
        loader = loader_of(dataset, workers, method, **options)
        plans = [epoch_ids(dataset, loader, epoch) for epoch in range(epochs)]
        assert dataset.stats.samples == sum(map(len, plans[-1]))
        assert dataset.stats.bytes_fetched > 0
        del loader
    return plans


@pytest.fixture
def reference(shards: list[str], tmp_path: Path) -> list[list[list[int]]]:
    return run(shards, tmp_path / "reference", 0, None)


@pytest.mark.parametrize(
    ("workers", "method", "persistent"),
    [(1, "fork", False), (2, "fork", True), (3, "fork", False), (4, "fork", True), (2, "spawn", True)],
)
def test_any_workers_give_the_same_batches(
    shards: list[str], tmp_path: Path, reference: list[Any], workers: int, method: str, persistent: bool
) -> None:
    """Workers by fork or spawn, persistent or not: the same batches in the same order, each planned sample once."""
    plans = run(shards, tmp_path / "state", workers, method, persistent_workers=persistent)
    assert plans == reference
    for plan in plans:
        ids = [number for batch in plan for number in batch]
        assert len(ids) == len(set(ids))
    assert len(reference[1]) < len(reference[0])


def test_len_is_what_the_loader_gives(shards: list[str]) -> None:
    """len(loader) is exact, so torch has nothing to warn about; with batches=True it counts batches."""
    dataset = SetaDataset(shards, batch_size=BATCH, policy=DynamicRandom(prune_ratio=0.5), decode=decode)
    loader = loader_of(dataset, 2, "fork")
    assert len(loader) == len(list(loader))
    whole = SetaDataset(shards, batch_size=BATCH, batches=True, drop_last=False, decode=decode)
    batches = list(DataLoader(whole, batch_size=None))
    assert len(whole) == len(batches) == 26
    assert isinstance(batches[0]["txt"], torch.Tensor)


@pytest.mark.parametrize("workers", [0, 2])
def test_ready_batches_are_the_same(shards: list[str], workers: int) -> None:
    """batches=True yields what the DataLoader would have collated."""
    one = SetaDataset(shards, batch_size=BATCH, decode=decode)
    ready = SetaDataset(shards, batch_size=BATCH, decode=decode, batches=True)
    loader = DataLoader(ready, batch_size=None, num_workers=workers)
    for a, b in zip(loader_of(one, 0), loader, strict=True):
        assert a["__index__"].tolist() == b["__index__"].tolist()
        assert a["__key__"] == b["__key__"]
        ready.update(b["__index__"], loss_of(b["__index__"]))


def test_update_is_the_weighted_mean(shards: list[str]) -> None:
    """The value is sum(weight × loss) / B; gradients carry the weights; the losses are untouched and recorded."""

    def policy(histogram: object, epoch: int) -> Rule:
        return Rule([], [1.0], unseen_keep=1.0, unseen_weight=2.5)

    dataset = SetaDataset(shards, batch_size=4, policy=policy)
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    mean = dataset.update(torch.tensor([0, 1, 2, -1]), losses)
    assert mean.item() == pytest.approx(2.5 * 6 / 4)
    mean.backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [0.625, 0.625, 0.625, 0.0]
    assert losses.tolist() == [1, 2, 3, 4]
    assert dataset.stats.recorded == 3
    plain = SetaDataset(shards, batch_size=4)
    assert plain.update([5, 6, 7, 8], losses).item() == 2.5
    assert plain.stats.recorded == 4


def test_update_in_place_later_changes_nothing(shards: list[str]) -> None:
    """A loop that reuses its loss or id buffers after update() does not change what was recorded."""
    dataset = SetaDataset(shards, batch_size=2)
    ids, losses = torch.tensor([3, 4]), torch.tensor([1.5, 2.5], dtype=torch.bfloat16)
    dataset.update(ids, losses)
    ids.fill_(9)
    losses.fill_(9)
    _ = dataset.stats
    table = dataset.stream.session.memory.losses.values
    assert table[[3, 4]].tolist() == [1.5, 2.5]
    assert np.isnan(table[9])


def test_update_refuses_other_batches(shards: list[str]) -> None:
    """Another length, or one loss for the whole batch, is an error that names both; the short last batch is not."""
    dataset = SetaDataset(shards, batch_size=8, drop_last=False, decode=decode)
    with pytest.raises(LossError, match=r"update\(\) got \(4,\) ids and losses of shape \(4,\), and this step has 8"):
        dataset.update(torch.arange(4), torch.ones(4))
    with pytest.raises(LossError, match=r"losses of shape \(\), .*reduction='none'"):
        dataset.update(torch.arange(8), torch.tensor(1.0))
    sizes = []
    for batch in loader_of(dataset, 2, "fork"):
        dataset.update(batch["__index__"], loss_of(batch["__index__"]))
        sizes.append(len(batch["__index__"]))
    assert sizes == [8] * 25 + [5]
    assert dataset.state_dict()["step"] == 26


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 3), (3, 0), (2, 2)])
def test_resume_with_other_workers(
    shards: list[str], tmp_path: Path, reference: list[Any], before: int, after: int
) -> None:
    """A checkpoint taken while workers prefetch continues with the very same batches on any number of workers."""
    policy = SeTa(num_epochs=4, target=0.4)

    def make() -> SetaDataset:
        return SetaDataset(
            shards, batch_size=BATCH, policy=policy, state=str(tmp_path / "state"), decode=decode, seed=2
        )

    dataset = make()
    assert epoch_ids(dataset, loader_of(dataset, before, "fork"), 0) == reference[0]
    dataset.set_epoch(1)
    seen: list[list[int]] = []
    for batch in loader_of(dataset, before, "fork"):
        dataset.update(batch["__index__"], loss_of(batch["__index__"]))
        seen.append(batch["__index__"].tolist())
        if len(seen) == 3:
            break
    saved = json.loads(json.dumps(dataset.state_dict()))
    assert saved["step"] == 3
    dataset.stream.session.memory.close()
    again = make()
    again.load_state_dict(saved)
    loader = loader_of(again, after, "fork")
    assert len(loader) == len(reference[1]) - 3
    for batch in loader:
        again.update(batch["__index__"], loss_of(batch["__index__"]))
        seen.append(batch["__index__"].tolist())
    assert seen == reference[1]
    assert epoch_ids(again, loader, 2) == reference[2]
    again.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_dataloader(shards: list[str], tmp_path: Path, reference: list[Any], workers: int) -> None:
    """torchdata's loader resumes at its own place, given the dataset's checkpoint first."""
    policy = SeTa(num_epochs=4, target=0.4)

    def make(folder: str) -> tuple[SetaDataset, Any]:
        dataset = SetaDataset(shards, batch_size=BATCH, policy=policy, state=folder, decode=decode, seed=2)
        return dataset, StatefulDataLoader(dataset, batch_size=BATCH, num_workers=workers)

    def steps(dataset: SetaDataset, loader: Any) -> Iterator[list[int]]:
        for batch in loader:
            dataset.update(batch["__index__"], loss_of(batch["__index__"]))
            yield batch["__index__"].tolist()

    dataset, loader = make(str(tmp_path / "s"))
    dataset.set_epoch(0)
    seen = []
    for ids in steps(dataset, loader):
        seen.append(ids)
        if len(seen) == 5:
            break
    saved = {"dataset": dataset.state_dict(), "loader": loader.state_dict()}
    dataset.stream.session.memory.close()
    dataset, loader = make(str(tmp_path / "s"))
    dataset.load_state_dict(saved["dataset"])
    loader.load_state_dict(saved["loader"])
    seen += list(steps(dataset, loader))
    assert seen == reference[0]
    dataset.close()


def test_loader_checkpoint_alone_is_refused(shards: list[str]) -> None:
    """A loader's place in another epoch, or for other workers, is an error that says what to load first."""
    dataset = SetaDataset(shards, batch_size=BATCH, decode=decode)
    place = iter(dataset)
    saved = place.state_dict()  # type: ignore[attr-defined]
    dataset.set_epoch(1)
    with pytest.raises(CheckpointError, match=r"call dataset.load_state_dict\(\) before"):
        iter(dataset).load_state_dict(saved)  # type: ignore[attr-defined]


def test_processes_that_do_not_know_each_other_are_refused(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """WORLD_SIZE without torch.distributed is an error that says so; world=1 reads for itself all the same."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentError, match="WORLD_SIZE=2 says that several processes train"):
        SetaDataset(shards, batch_size=2)
    assert len(SetaDataset(shards, batch_size=5, world=1)) == 205
    monkeypatch.setenv("WORLD_SIZE", "1")
    early, alone = SetaDataset(shards, batch_size=5), SetaDataset(shards, batch_size=5, world=1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ArgumentError, match="initialised, with 2 processes, after this dataset was constructed"):
        early.set_epoch(1)
    alone.set_epoch(1)
    monkeypatch.undo()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert len(SetaDataset(shards, batch_size=5)) == 205


def test_workers_have_no_losses(shards: list[str]) -> None:
    """What only the main process can do is refused in a worker by name, and a dataset is not pickled elsewhere."""
    import pickle

    dataset = SetaDataset(shards, batch_size=2)
    with pytest.raises(UnsupportedError, match="can be handed to worker processes as they are started"):
        pickle.dumps(dataset)
    copy = SetaDataset.__new__(SetaDataset)
    copy.__setstate__(dataset.__getstate__())
    with pytest.raises(ArgumentError, match="A DataLoader worker only reads"):
        copy.set_epoch(1)


def test_nothing_is_left_behind(shards: list[str], tmp_path: Path) -> None:
    """No shared memory, lock file or temporary file outlives a run with workers."""
    folders = [Path("/dev/shm"), Path(tempfile.gettempdir())]
    before = [set(folder.iterdir()) for folder in folders]
    run(shards, tmp_path / "state", 1, "spawn", epochs=1)
    for folder, names in zip(folders, before, strict=True):
        left = {path.name for path in set(folder.iterdir()) - names}
        assert not {name for name in left if name.startswith(("pym", "psm", "seta"))}
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["corpus", "history.jsonl", "losses"]


def test_losses_move_in_groups(shards: list[str]) -> None:
    """Losses wait until a group of steps is full, and all of them are there whenever they are needed."""
    dataset = SetaDataset(shards, batch_size=1)
    for number in range(100):
        dataset.update(torch.tensor([number]), torch.tensor([1.0 + number]))
    assert dataset.stream.stats.recorded == 64
    assert dataset.stats.recorded == 100


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_losses_on_a_gpu(shards: list[str]) -> None:
    """ids and losses on a GPU are recorded alike."""
    dataset = SetaDataset(shards, batch_size=4)
    dataset.update(torch.arange(4).cuda(), torch.ones(4).cuda())
    assert dataset.stats.recorded == 4
