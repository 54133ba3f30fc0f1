"""One process of a training run under a framework, started by torchrun.

Called as: python frameworks_driver.py FRAMEWORK FOLDER, with shards in FOLDER. The run fails at a checkpoint's next
step in every process, and a second run in the same processes goes on from that checkpoint. Writes FOLDER/<rank>.json:
for each of the two runs the batches of ids by epoch.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from seta_stream import SeTa
from seta_stream.adapters.torch import SetaDataset

BATCH, EPOCHS, STOP = 4, 4, 30
"""STOP: the step of the checkpoint, inside the second epoch."""

Seen = dict[int, list[list[int]]]


class MachineStoppedError(Exception):
    """What ends the first run."""


def decode(field: str, data: bytes) -> Any:
    return int(data)


def loss_of(ids: torch.Tensor) -> torch.Tensor:
    return (ids * 37 % 101).float() / 10 + 0.1


def shards_of(folder: Path) -> list[str]:
    return sorted(map(str, folder.glob("*.tar")))


def options_of(folder: Path) -> dict[str, Any]:
    policy = SeTa(num_epochs=EPOCHS, target=0.4)
    return {"policy": policy, "state": str(folder / "state"), "decode": decode, "seed": 2}


def run_lightning(folder: Path, resume: bool) -> Seen:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint

    from seta_stream.adapters.lightning import SetaDataModule

    seen: Seen = {}

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
            ids, data = batch["__index__"], self.trainer.datamodule
            seen.setdefault(data.dataset.stream.epoch, []).append(ids.tolist())
            if not resume and self.trainer.fit_loop.total_batch_idx == STOP:
                raise MachineStoppedError
            mean: torch.Tensor = data.update(ids, loss_of(ids) + 0 * self.layer(ids[:, None].float()).squeeze(1))
            return mean

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    data = SetaDataModule(shards_of(folder), batch_size=BATCH, loader={"num_workers": 1}, **options_of(folder))
    saver = ModelCheckpoint(folder / "c", every_n_train_steps=STOP, save_top_k=-1, filename="saved")
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=EPOCHS, callbacks=[saver], logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    path = folder / "c" / "saved.ckpt" if resume else None
    with suppress(MachineStoppedError):
        trainer.fit(Model(), datamodule=data, ckpt_path=path)
    return seen


def run_huggingface(folder: Path, resume: bool) -> Seen:
    from transformers import TrainingArguments

    from seta_stream.adapters.huggingface import SetaTrainer

    seen: Seen = {}

    class Watching(SetaTrainer):
        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
            seen.setdefault(self.seta.stream.epoch or 0, []).append(inputs["__index__"].tolist())
            if not resume and self.state.global_step == STOP:
                raise MachineStoppedError
            return super().compute_loss(model, inputs, *arguments, **options)

    def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        numbers = torch.tensor([sample["txt"] for sample in samples])
        return {"input": numbers[:, None].float(), "labels": numbers}

    def sample_losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return loss_of(labels) + 0 * outputs.squeeze(1)

    arguments = TrainingArguments(
        str(folder / "out"), per_device_train_batch_size=BATCH, num_train_epochs=EPOCHS, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="steps", save_steps=STOP, dataloader_num_workers=1,
        ddp_find_unused_parameters=False,
    )  # fmt: skip
    with (
        suppress(MachineStoppedError),
        SetaDataset(shards_of(folder), batch_size=BATCH, **options_of(folder)) as dataset,
    ):
        model = torch.nn.Linear(1, 1)
        trainer = Watching(model, arguments, train_dataset=dataset, data_collator=collate, sample_losses=sample_losses)
        trainer.train(resume_from_checkpoint=resume or None)
    return seen


def run_accelerate(folder: Path, resume: bool) -> Seen:
    from accelerate import Accelerator

    from seta_stream.adapters.accelerate import prepare_loader

    seen: Seen = {}
    accelerator = Accelerator(cpu=True)
    layer = torch.nn.Linear(1, 1)
    model, optimizer = accelerator.prepare(layer, torch.optim.SGD(layer.parameters(), lr=0.01))
    with (
        suppress(MachineStoppedError),
        SetaDataset(shards_of(folder), batch_size=BATCH, **options_of(folder)) as dataset,
    ):
        accelerator.register_for_checkpointing(dataset)
        loader = prepare_loader(accelerator, dataset, loader={"num_workers": 1})
        if resume:
            accelerator.load_state(str(folder / "c"))
        step = STOP if resume else 0
        for epoch in range(dataset.stream.epoch or 0, EPOCHS):
            dataset.set_epoch(epoch)
            for batch in loader:
                ids = batch["__index__"]
                seen.setdefault(epoch, []).append(ids.tolist())
                if step == STOP and not resume:
                    raise MachineStoppedError
                accelerator.backward(dataset.update(ids, loss_of(ids) + 0 * model(ids[:, None].float()).squeeze(1)))
                optimizer.step()
                optimizer.zero_grad()
                step += 1
                if step == STOP:
                    accelerator.save_state(str(folder / "c"))
    return seen


RUNS: dict[str, Callable[[Path, bool], Seen]] = {
    "lightning": run_lightning, "huggingface": run_huggingface, "accelerate": run_accelerate,
}  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    framework, folder = sys.argv[1], Path(sys.argv[2])
    seen = [RUNS[framework](folder, resume) for resume in (False, True)]
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
