"""docs/adopting.md: a small network on pictures. Ninety epochs are four here, four workers one, all processes one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from block_corpora import decode_channels, history_of, write_pictures
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from seta_stream import Full, SeTa

REPLACE = {
    "range(90)": "range(4)",
    "num_workers=4": "num_workers=1",
    'init_process_group("nccl")': 'init_process_group("gloo", store=STORE, rank=0, world_size=1)',
}


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    write_pictures(folder, name="val", shards=10, samples=30, digits=3)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 3))

    def loss_of(images: Any, labels: Any) -> torch.Tensor:
        inputs = torch.as_tensor(np.asarray(images)).flatten(1).float()
        return cross_entropy(model(inputs), torch.as_tensor(np.asarray(labels)), reduction="none")

    def train_step(state: int, images: Any, labels: Any, weights: Any) -> tuple[int, Any]:
        assert images.shape[1:] == (16, 16, 3)
        assert set(weights) == {1}
        return state + 1, loss_of(images, labels).detach().numpy()

    return {
        "CosineAnnealingLR": CosineAnnealingLR, "Full": Full, "STORE": torch.distributed.HashStore(),
        "cross_entropy": cross_entropy, "decode": decode_channels, "loss_of": loss_of, "math": math, "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1), "policy": SeTa(90, target=0.5),
        "prepare": lambda sample: sample, "state": 0, "torch": torch, "train_step": train_step,
        "urls": write_pictures(folder, samples=200),
    }  # fmt: skip


def four_epochs(known: dict[str, Any], batch: int) -> None:
    """See that every sample of every step gave a loss back, and that later epochs are about half."""
    known["stream" if batch == 0 else "dataset"].close()
    epochs = history_of("runs/7")
    assert [one["epoch"] for one in epochs] == [0, 1, 2, 3]
    assert all(one["recorded"] == one["samples"] > 0 for one in epochs)
    assert all(one["selected"] < 500 for one in epochs[1:])
    for path in Path("runs/7").rglob("*"):
        if path.is_file():
            path.unlink()


def trained_by_torch(known: dict[str, Any]) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    four_epochs(known, 256)
    dataset = known["SetaDataset"](
        known["urls"], batch_size=256, policy=known["policy"], decode=decode_channels, state="runs/8"
    )
    known["dataset"], known["loader"] = dataset, StatefulDataLoader(dataset, batch_size=256, num_workers=1)
    known["first"] = next(iter(known["loader"]))["__index__"]


def resumed(known: dict[str, Any]) -> None:
    assert set(known["first"].tolist()).isdisjoint(next(iter(known["loader"]))["__index__"].tolist())
    known["loader"] = None
    known["dataset"].close()


def joined(known: dict[str, Any]) -> None:
    assert len(list(known["loader"])) == 3
    known["dataset"].close()
    torch.distributed.destroy_process_group()


def reads_by_steps(known: dict[str, Any]) -> None:
    known["dataset"] = known["SetaDataset"](known["urls"], batch_size=64, policy=known["policy"], state="runs/9")


def scheduled(known: dict[str, Any]) -> None:
    assert known["scheduler"].T_max == known["dataset"].steps(epochs=90)
    assert known["lr"] == 0.1


def validates(known: dict[str, Any]) -> None:
    lengths = [len(batch["cls"]) for batch in known["reader"].batches()]
    assert lengths == [256, 44]
    known["reader"].close()
    known["dataset"].close()


BEFORE = {"Learning-rate schedules": reads_by_steps}
AFTER = {
    "PyTorch": trained_by_torch,
    "PyTorch 2": resumed,
    "Many processes": joined,
    "webdataset": lambda known: four_epochs(known, 64),
    "Plain Python, numpy, JAX": lambda known: four_epochs(known, 0),
    "Learning-rate schedules": scheduled,
    "Validation": validates,
}
