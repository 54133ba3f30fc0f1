"""docs/migrating/infobatch.md: the policy trains, files become shards, and another run begins with their losses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from block_corpora import picture, write_pictures
from block_migrations import FEWER, reader_with_a_model, trained

from seta_stream import InfoBatch, SetaStream

REPLACE = FEWER


def names(folder: Path, _blocks: object) -> dict[str, Any]:
    files = []
    for number in range(30):
        path = folder / f"{number}.jpg"
        path.write_bytes(picture(number))
        files.append((path, number % 3))
    (folder / "data").mkdir()
    scores = torch.arange(30, dtype=torch.float32)
    return {
        **reader_with_a_model(), "train_data": SimpleNamespace(scores=scores), "train_files": files,
        "urls": write_pictures(folder, samples=160),
    }  # fmt: skip


def begins_with_their_losses(_known: dict[str, Any]) -> None:
    policy = InfoBatch(num_epochs=90, prune_ratio=0.5)
    with SetaStream("data/train-00000.tar", state="runs/8", policy=policy, batch_size=1) as stream:
        stream.set_epoch(0)
        samples = list(stream)
        kept = [sample["__index__"] for sample in samples]
        assert set(range(15, 30)) <= set(kept)  # above the mean
        assert len(kept) < 30
        assert {sample["__weight__"] for sample in samples} == {1.0, 2.0}
        stream.record(kept, [1.0] * len(kept))


AFTER = {"After": lambda _known: trained(), "Converting 3": begins_with_their_losses}
