"""docs/training.md runs: every block of it, in order, on a small corpus."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from small_corpora import Member, write_tar
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from seta_stream import DynamicRandom, EfficientTrain, PerGroup, SeTa
from seta_stream.adapters.torch import SetaDataset

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def urls(tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    for shard in range(2):
        members: list[Member] = []
        for number in range(80):
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(file, "JPEG")
            members += [(f"{number}.jpg", file.getvalue()), (f"{number}.cls", str(number % 3).encode())]
        write_tar(tmp_path / f"{shard}.tar", members)
    return str(tmp_path / "{0..1}.tar")


def pictures(batch: dict[str, Any]) -> torch.Tensor:
    return batch["jpg"].permute(0, 3, 1, 2).float() / 255


def names(urls: str, tmp_path: Path) -> dict[str, Any]:
    """What the page's code takes for given."""
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
        "policy": SeTa(num_epochs=5, target=0.4), "state": str(tmp_path / "state"), "torch": torch,
        "update_bn": update_bn, "urls": urls,
    }  # fmt: skip


def test_every_block_runs(urls: str, tmp_path: Path) -> None:
    """One after another, in one namespace; and each does what its text says."""
    known = names(urls, tmp_path)

    def run(number: int) -> None:
        exec(compile(BLOCKS[number], f"{PAGE}, block {number}", "exec"), known)

    assert len(BLOCKS) == 11
    run(0)
    first = known["dataset"]
    run(1)
    assert [known["rate"](p) for p in (0, 0.05, 1)] == [0, 1, 0]
    assert known["scheduler"].get_last_lr() == [0]
    run(2)
    assert isinstance(known["scheduler"], OneCycleLR)
    assert known["scheduler"].total_steps == known["planned"] + known["planned"].margin
    run(3)
    run(4)
    assert isinstance(known["curriculum"], EfficientTrain)
    staged = EfficientTrain(augment=known["augment"], stages=[(16, 9)], num_epochs=1)
    assert next(iter(SetaDataset(urls, batch_size=4, batches=True, decode=staged)))["jpg"].shape == (4, 16, 16, 3)
    known["dataset"] = first
    run(5)
    assert first.stats.recorded == 160
    scores, targets = torch.zeros(2, 3, 4), torch.tensor([[1, -100, -100], [0, 1, 2]])
    run(6)
    assert known["per_text"](scores, targets).tolist() == pytest.approx([math.log(4)] * 2)
    first.set_epoch(1)
    run(7)
    assert 0 < first.stats.recorded < first.stats.samples
    before = known["model"][1].running_mean.clone()
    run(8)
    assert not torch.equal(before, known["model"][1].running_mean)
    run(9)
    known["dataset"].set_epoch(1)
    known["dataset"], known["loader"] = first, DataLoader(first, batch_size=None)
    first.set_epoch(2)
    run(10)
    assert first.stream.position == first.stats.steps
    assert all(parameter.grad is None for parameter in known["model"].parameters())
    first.close()
