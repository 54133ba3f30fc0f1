"""README.md: a loop's lines without the loop, so the batch of the first step is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from block_corpora import history_of, write_pictures

from seta_stream import SeTa, SetaStream
from seta_stream.adapters.torch import SetaDataset
from seta_stream.adapters.webdataset import SetaWebDataset

IDS = np.arange(256)


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    given: dict[str, Any] = {
        "SeTa": SeTa, "SetaDataset": SetaDataset, "SetaStream": SetaStream, "SetaWebDataset": SetaWebDataset,
        "batch": {"__index__": IDS}, "epoch": 0, "ids": IDS, "losses": np.ones(256), "prepare": lambda sample: sample,
        "urls": write_pictures(folder, samples=160),
    }  # fmt: skip
    renew(given)
    return given


def renew(known: dict[str, Any], samples: int = 256) -> None:
    known |= {"loss": torch.ones(samples, requires_grad=True), "ids": np.arange(samples)}


def gave_losses_back(known: dict[str, Any]) -> None:
    assert known["loss"].grad.tolist() == [1 / 256] * 256
    known["dataset"].set_epoch(1)
    assert known["dataset"].stats.selected < 400
    known["dataset"].close()


def read_pictures(known: dict[str, Any]) -> None:
    images, _, ids = next(iter(known["pipeline"]))
    assert len(images) == len(ids) == 64
    known["dataset"].close()


def recorded(_known: dict[str, Any]) -> None:
    assert history_of("runs/7")[-1]["recorded"] == 256


BEFORE = {"Adopt it 2": lambda known: renew(known, 64)}
AFTER = {"Adopt it": gave_losses_back, "Adopt it 2": read_pictures, "Adopt it 3": recorded}
