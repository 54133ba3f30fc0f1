"""SetaDataModule under Lightning's own Trainer: epochs, losses back, checkpoints at any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from small_corpora import MakeCorpus
from torch.utils.data import DataLoader

from seta_stream import Full, SeTa
from seta_stream.adapters.lightning import SetaDataModule
from seta_stream.adapters.torch import SetaDataset
from seta_stream.errors import ArgumentError, LossError

BATCH, EPOCHS = 8, 4

pytestmark = [
    # This machine has two cores, and Lightning advises more workers, also for loaders that have none.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    # Lightning 2.6 calls what torch 2.13 deprecates.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    # A resumed run of a test has its own way of stopping and saving.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    # The tests save where checkpoints are already.
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


@pytest.fixture
def shards(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(5, 41)


def decode(field: str, data: bytes) -> Any:
    return int(data)


def loss_of(ids: torch.Tensor) -> torch.Tensor:
    return (ids * 37 % 101).float() / 10 + 0.1


class Model(pl.LightningModule):
    """Notes every batch by epoch; its losses follow from the ids, so that every run selects alike."""

    def __init__(self, *, is_calling: bool = True) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.is_calling = is_calling
        self.seen: dict[int, list[list[int]]] = {}
        self.means: list[float] = []
        self.recorded: list[int] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        ids, data = batch["__index__"], self.trainer.datamodule
        assert batch["txt"].tolist() == ids.tolist()
        self.seen.setdefault(data.dataset.stream.epoch, []).append(ids.tolist())
        losses = loss_of(ids) + 0 * self.layer(ids[:, None].float()).squeeze(1)
        mean = data.update(ids, losses) if self.is_calling else losses.mean()
        self.means.append(mean.item())
        return mean

    def on_train_epoch_end(self) -> None:
        self.recorded.append(self.trainer.datamodule.dataset.stats.recorded)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ValidatingModel(Model):
    """Notes which epoch's plan is set when it is validated."""

    def __init__(self) -> None:
        super().__init__()
        self.validated: list[tuple[int, int]] = []

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        stream = self.trainer.datamodule.dataset.stream
        self.validated.append((stream.epoch, stream.position))


class ValidatingData(SetaDataModule):
    """As a user adds validation."""

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.arange(2), batch_size=2)


class StopAt(Callback):
    """Fails after so many batches of the run, as a machine would."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batches:
            raise RuntimeError("the machine stops")


def module_of(
    shards: list[str], state: Path | None, kind: type[SetaDataModule] = SetaDataModule, **options: Any
) -> SetaDataModule:
    options = {"policy": SeTa(num_epochs=EPOCHS, target=0.4), "decode": decode, "seed": 2} | options
    return kind(shards, batch_size=BATCH, state=None if state is None else str(state), **options)


def trainer_of(folder: Path, callbacks: list[Callback] | None = None, **options: Any) -> pl.Trainer:
    options = {"max_epochs": EPOCHS, "enable_checkpointing": False, "num_sanity_val_steps": 0} | options
    return pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=callbacks, **options,
    )  # fmt: skip


@pytest.fixture
def reference(shards: list[str], tmp_path: Path) -> dict[int, list[list[int]]]:
    """What a plain loop of torch sees."""
    seen: dict[int, list[list[int]]] = {}
    policy, state = SeTa(num_epochs=EPOCHS, target=0.4), str(tmp_path / "reference")
    with SetaDataset(shards, batch_size=BATCH, policy=policy, state=state, decode=decode, seed=2) as dataset:
        loader = DataLoader(dataset, batch_size=BATCH)
        for epoch in range(EPOCHS):
            dataset.set_epoch(epoch)
            for batch in loader:
                dataset.update(batch["__index__"], loss_of(batch["__index__"]))
                seen.setdefault(epoch, []).append(batch["__index__"].tolist())
    assert len(seen[1]) < len(seen[0])
    return seen


@pytest.mark.parametrize(("workers", "accumulate", "reload"), [(0, 1, 0), (2, 1, 0), (0, 3, 0), (1, 2, 1)], ids=str)
def test_epochs_are_those_of_a_plain_loop(
    shards: list[str], tmp_path: Path, reference: dict[int, Any], workers: int, accumulate: int, reload: int
) -> None:
    """Workers, accumulated gradients, loaders made anew each epoch: the very same batches, and all losses arrive."""
    data = module_of(shards, tmp_path / "s", loader={"num_workers": workers, "persistent_workers": workers > 1})
    model = Model()
    trainer = trainer_of(tmp_path, accumulate_grad_batches=accumulate, reload_dataloaders_every_n_epochs=reload)
    trainer.fit(model, datamodule=data)
    assert model.seen == reference
    assert trainer.global_step == sum(-(-len(batches) // accumulate) for batches in reference.values())
    first = torch.tensor(reference[0][0])
    assert model.means[0] == pytest.approx(loss_of(first).mean().item())
    assert model.recorded == [BATCH * len(batches) for batches in reference.values()]


def merged(*runs: dict[int, list[list[int]]]) -> dict[int, list[list[int]]]:
    """Return what several runs saw, one after the other."""
    whole: dict[int, list[list[int]]] = {}
    for run in runs:
        for epoch, batches in run.items():
            whole.setdefault(epoch, []).extend(batches)
    return whole


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["inside the first epoch", "inside a later one", "last batch", "one before"])
def test_a_checkpoint_at_any_batch_goes_on_with_the_next(
    shards: list[str], tmp_path: Path, reference: dict[int, Any], where: str, workers: int
) -> None:
    """No sample is repeated or lost, also where the checkpoint was made on the last batch of an epoch."""
    first, second = len(reference[0]), len(reference[1])
    at = {"inside the first epoch": 7, "inside a later one": first + 4, "last batch": first + second}
    batches = at.get(where, first + second - 1)
    saver = ModelCheckpoint(tmp_path / "c", every_n_train_steps=batches, save_top_k=-1, filename="saved")
    before, loader = Model(), {"num_workers": workers}
    with pytest.raises(RuntimeError, match="the machine stops"):
        trainer_of(tmp_path, [saver, StopAt(batches + 1)], enable_checkpointing=True).fit(
            before, datamodule=module_of(shards, tmp_path / "s", loader=loader)
        )
    after, data = Model(), module_of(shards, tmp_path / "s", loader=loader)
    trainer = trainer_of(tmp_path)
    trainer.fit(after, datamodule=data, ckpt_path=tmp_path / "c" / "saved.ckpt")
    done = sum(map(len, before.seen.values())) - 1  # one more batch was trained on after the checkpoint
    flat = [batch for epoch in range(EPOCHS) for batch in reference[epoch]]
    assert done == batches
    assert [batch for epoch in sorted(after.seen) for batch in after.seen[epoch]] == flat[batches:]
    assert {epoch: batches for epoch, batches in after.seen.items() if epoch > 1} == {2: reference[2], 3: reference[3]}
    assert trainer.global_step == len(flat)


@pytest.mark.parametrize("limit", [{}, {"max_epochs": -1, "max_steps": 50}], ids=["epochs", "steps"])
@pytest.mark.parametrize("kind", [SetaDataModule, ValidatingData])
def test_a_checkpoint_of_an_epochs_end_goes_on_with_the_next_epoch(
    shards: list[str], tmp_path: Path, reference: dict[int, Any], limit: dict[str, Any], kind: type[SetaDataModule]
) -> None:
    """Runs limited by epochs or by steps, validated or not: the next epoch follows, and the losses before it count."""
    make = Model if kind is SetaDataModule else ValidatingModel
    saver = ModelCheckpoint(
        tmp_path / "c", every_n_epochs=1, save_on_train_epoch_end=True, save_top_k=-1, filename="{epoch}"
    )
    before, flat = make(), [batch for epoch in range(EPOCHS) for batch in reference[epoch]]
    stop = len(reference[0]) + len(reference[1]) + 2
    with pytest.raises(RuntimeError, match="the machine stops"):
        trainer_of(tmp_path, [saver, StopAt(stop)], enable_checkpointing=True, **limit).fit(
            before, datamodule=module_of(shards, tmp_path / "s", kind)
        )
    after = make()
    trainer_of(tmp_path, **limit).fit(
        after, datamodule=module_of(shards, tmp_path / "s", kind), ckpt_path=tmp_path / "c" / "epoch=1.ckpt"
    )
    wanted = len(flat) if not limit else limit["max_steps"]
    seen = [batch for epoch in sorted(after.seen) for batch in after.seen[epoch]]
    assert seen == flat[len(reference[0]) + len(reference[1]) : wanted]
    assert min(after.seen) == 2


def test_resumed_twice_in_one_epoch(shards: list[str], tmp_path: Path, reference: dict[int, Any]) -> None:
    """A run that stops, goes on, and stops again in the same epoch still sees each batch once."""
    first, folder = len(reference[0]), tmp_path / "c"
    seen, path = [], None
    for stop in (first + 3, first + 6, None):
        saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
        model, stops = Model(), [] if stop is None else [StopAt(stop)]
        trainer = trainer_of(tmp_path, [saver, *stops], enable_checkpointing=True)
        data = module_of(shards, tmp_path / "s")
        if stop is None:
            trainer.fit(model, datamodule=data, ckpt_path=path)
        else:
            with pytest.raises(RuntimeError, match="the machine stops"):
                trainer.fit(model, datamodule=data, ckpt_path=path)
            # The callback that stops the run is asked before the one that saves.
            path = folder / f"step={stop - 1}.ckpt"
        seen.append(model.seen)
    seen[0][1], seen[1][1] = seen[0][1][:-1], seen[1][1][:-1]
    assert merged(*seen) == reference


def test_validation_sees_the_epoch_that_was_trained(
    shards: list[str], tmp_path: Path, reference: dict[int, Any]
) -> None:
    """A subclass adds Lightning's own validation; the next epoch is not selected before it has run."""
    model = ValidatingModel()
    trainer_of(tmp_path).fit(model, datamodule=module_of(shards, tmp_path / "s", ValidatingData))
    assert model.seen == reference
    assert model.validated == [(epoch, len(batches)) for epoch, batches in reference.items()]


def test_limited_batches_leave_the_rest_of_an_epoch(
    shards: list[str], tmp_path: Path, reference: dict[int, Any]
) -> None:
    """limit_train_batches=5 is five batches of each epoch, and the next epoch follows all the same."""
    model = Model()
    trainer_of(tmp_path, limit_train_batches=5).fit(model, datamodule=module_of(shards, tmp_path / "s"))
    assert model.seen[0] == reference[0][:5]
    assert [len(batches) for batches in model.seen.values()] == [5] * EPOCHS


def test_a_second_fit_starts_where_the_first_ended(
    shards: list[str], tmp_path: Path, reference: dict[int, Any]
) -> None:
    """With more max_epochs the same trainer goes on, from the losses that the first fit committed."""
    model, data = Model(), module_of(shards, tmp_path / "s")
    trainer = trainer_of(tmp_path, max_epochs=2)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "ended.ckpt")
    trainer.fit_loop.max_epochs = EPOCHS
    trainer.fit(model, datamodule=data)
    assert model.seen == reference
    again = Model()
    trainer_of(tmp_path).fit(
        again, datamodule=module_of(shards, tmp_path / "s", losses="latest"), ckpt_path=tmp_path / "ended.ckpt"
    )
    assert again.seen == {2: reference[2], 3: reference[3]}


def test_own_collation(shards: list[str], tmp_path: Path, reference: dict[int, Any]) -> None:
    """A collate_fn gets lists of samples."""
    model = Model()
    data = module_of(shards, tmp_path / "s", loader={"collate_fn": collate})
    trainer_of(tmp_path, max_epochs=1).fit(model, datamodule=data)
    assert model.seen == {0: reference[0]}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    assert sorted(samples[0]) == ["__index__", "__key__", "__url__", "__weight__", "cls", "txt"]
    return {name: torch.tensor([sample[name] for sample in samples]) for name in ("__index__", "txt")}


def test_what_cannot_work_is_refused(shards: list[str], tmp_path: Path) -> None:
    """Samplers, forgetful checkpoints, a step without update(), a dataset before fit(): each says what to do."""
    with pytest.raises(ArgumentError, match="DataLoader's shuffle, sampler cannot be chosen, since the plan"):
        module_of(shards, None, loader={"shuffle": True, "sampler": None})
    with pytest.raises(ArgumentError, match="SetaDataModule has no dataset yet: Lightning makes it in fit"):
        _ = module_of(shards, None).dataset
    with pytest.raises(ArgumentError, match="would live in memory only: give SetaDataModule state= a folder"):
        trainer_of(tmp_path, enable_checkpointing=True).fit(Model(), datamodule=module_of(shards, None))
    silent = Model(is_calling=False)
    with pytest.raises(LossError, match="1 batches were trained on and none of their losses came back: call update"):
        trainer_of(tmp_path).fit(silent, datamodule=module_of(shards, None))
    assert sum(map(len, silent.seen.values())) == 1


def test_checkpoints_without_losses_to_keep(shards: list[str], tmp_path: Path) -> None:
    """A policy that looks at no losses saves and resumes without a state folder."""
    saver = ModelCheckpoint(tmp_path / "c", every_n_train_steps=30, save_top_k=-1, filename="saved")
    before = Model()
    trainer_of(tmp_path, [saver], enable_checkpointing=True, max_epochs=2).fit(
        before, datamodule=module_of(shards, None, policy=Full())
    )
    after = Model()
    trainer_of(tmp_path, max_epochs=2).fit(
        after, datamodule=module_of(shards, None, policy=Full()), ckpt_path=tmp_path / "c" / "saved.ckpt"
    )
    assert after.seen == {1: before.seen[1][30 - len(before.seen[0]) :]}


def test_an_exception_commits_nothing(shards: list[str], tmp_path: Path, reference: dict[int, Any]) -> None:
    """The epoch that failed leaves no generation, and its state folder is free again."""
    with pytest.raises(RuntimeError, match="the machine stops"):
        trainer_of(tmp_path, [StopAt(len(reference[0]) + 3)]).fit(Model(), datamodule=module_of(shards, tmp_path / "s"))
    kept = sorted(path.name[:10] for path in (tmp_path / "s" / "losses").iterdir())
    assert kept == ["gen-000000"]
    model = Model()
    trainer_of(tmp_path, max_epochs=1).fit(model, datamodule=module_of(shards, tmp_path / "s"))
    assert model.seen == {0: reference[0]}
