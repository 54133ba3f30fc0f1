"""docs/training.md: a network with batch norm on pictures, and what each block of the page does to it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from block_corpora import write_pictures
from PIL import ImageEnhance, ImageOps
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from seta_stream import DynamicRandom, EfficientTrain, PerGroup, SeTa
from seta_stream.adapters.torch import SetaDataset


def pictures(batch: dict[str, Any]) -> torch.Tensor:
    return batch["jpg"].permute(0, 3, 1, 2).float() / 255


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )  # fmt: skip
    return {
        "ACCUMULATE": 4, "BATCH": 10, "EPOCHS": 5, "DataLoader": DataLoader, "DynamicRandom": DynamicRandom,
        "EfficientTrain": EfficientTrain, "ImageEnhance": ImageEnhance, "ImageOps": ImageOps, "LambdaLR": LambdaLR,
        "OneCycleLR": OneCycleLR, "PerGroup": PerGroup, "SeTa": SeTa, "SetaDataset": SetaDataset,
        "cross_entropy": cross_entropy, "decode": "rgb8", "math": math, "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        "penalty": lambda scores: scores.logsumexp(1) ** 2, "pictures": pictures,
        "policy": SeTa(num_epochs=5, target=0.4), "state": str(folder / "state"), "torch": torch,
        "update_bn": update_bn, "urls": write_pictures(folder, shards=2, samples=80),
    }  # fmt: skip


def keep(known: dict[str, Any]) -> None:
    known["first"] = known["dataset"]


def rises_and_falls(known: dict[str, Any]) -> None:
    assert [known["rate"](progress) for progress in (0, 0.05, 1)] == [0, 1, 0]
    assert known["scheduler"].get_last_lr() == [0]


def has_room(known: dict[str, Any]) -> None:
    assert isinstance(known["scheduler"], OneCycleLR)
    assert known["scheduler"].total_steps == known["planned"] + known["planned"].margin


def grows(known: dict[str, Any]) -> None:
    curriculum = known["curriculum"]
    assert [curriculum.stage(share).resolution for share in (0.0, 1.0)] == [96, 224]
    assert [curriculum.stage(share).magnitude for share in (0.0, 1.0)] == [0, 9]
    staged = EfficientTrain(augment=known["augment"], stages=[(16, 9)], num_epochs=1)
    batch = next(iter(SetaDataset(known["urls"], batch_size=4, batches=True, decode=staged)))
    assert batch["jpg"].shape == (4, 16, 16, 3)
    known["dataset"].close()
    known["dataset"] = known["first"]


def recorded_everything(known: dict[str, Any]) -> None:
    assert known["first"].stats.recorded == 160


def per_valid_token(known: dict[str, Any]) -> None:
    scores, targets = torch.zeros(2, 3, 4), torch.tensor([[1, -100, -100], [0, 1, 2]])
    assert torch.allclose(known["per_text"](scores, targets), torch.tensor([math.log(4)] * 2))


def recorded_in_part(known: dict[str, Any]) -> None:
    stats = known["first"].stats
    assert 0 < stats.recorded < stats.samples


def remember_means(known: dict[str, Any]) -> None:
    known["means"] = known["model"][1].running_mean.clone()


def measured_anew(known: dict[str, Any]) -> None:
    assert not torch.equal(known["means"], known["model"][1].running_mean)


def keeps_a_part_of_each_class(known: dict[str, Any]) -> None:
    known["dataset"].set_epoch(1)
    assert 0 < known["dataset"].stats.selected < 160
    known["dataset"], known["loader"] = known["first"], DataLoader(known["first"], batch_size=None)
    known["first"].set_epoch(2)


def stepped(known: dict[str, Any]) -> None:
    assert known["first"].stream.position == known["first"].stats.steps
    assert all(parameter.grad is None for parameter in known["model"].parameters())
    known["first"].close()


BEFORE = {"Mixup and CutMix": lambda known: known["first"].set_epoch(1), "Batch norm": remember_means}
AFTER = {
    "Training on a selection": keep,
    "Steps and learning rates": rises_and_falls,
    "Steps and learning rates 2": has_room,
    "Resolution that grows: EfficientTrain++ 2": grows,
    "Weights of your own loss": recorded_everything,
    "Language models": per_valid_token,
    "Mixup and CutMix": recorded_in_part,
    "Batch norm": measured_anew,
    "Frequent classes and wrong labels": keeps_a_part_of_each_class,
    "Gradient accumulation": stepped,
}
