"""docs/migrating/webdataset.md: both loops train the same model on the same shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from block_corpora import write_pictures
from block_migrations import FEWER, reader_with_a_model, trained

REPLACE = {**FEWER, "shardshuffle=100": "shardshuffle=4"}  # there are four shards


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    given = reader_with_a_model()
    return {
        **given, "steps_per_epoch": 10, "start": [one.clone() for one in given["model"].parameters()],
        "to_tensor": lambda image: torch.as_tensor(image).movedim(2, 0), "urls": write_pictures(folder, samples=160),
    }  # fmt: skip


def moved(known: dict[str, Any]) -> None:
    assert known["images"].shape == (64, 3, 16, 16)
    assert not all(map(torch.equal, known["start"], known["model"].parameters()))
    known["start"] = [one.detach().clone() for one in known["model"].parameters()]


def moved_and_selected(known: dict[str, Any]) -> None:
    moved(known)
    trained()


AFTER = {"Before": moved, "After": moved_and_selected}
